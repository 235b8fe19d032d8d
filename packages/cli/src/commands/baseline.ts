import { mix } from '@cohesin/core';
import { type Dataset, f16ToF32, openDataset, type SequenceRecord } from '@cohesin/io';
import {
  type KmerFeatures,
  kmerFeatures,
  type LinearModel,
  type LogisticModel,
  logisticRows,
  ridgeSums,
  type SparseCounts,
} from '@cohesin/models';
import { type Command, UsageError } from '../command-line.ts';
import {
  labelCollector,
  type Measure,
  meansLine,
  measuresEvent,
  type Rows,
  valueCollector,
} from '../measures.ts';
import { type Output, openOutput } from '../progress.ts';
import { usage } from '../task.ts';

/** Weakest last: each logistic fit begins where the one before ended. */
const PENALTIES = [10, 1, 0.1, 1e-2, 1e-3, 1e-4];

type Kind = 'ridge' | 'logistic';

export const baseline: Command = {
  name: 'baseline',
  about: 'what a linear model of k-mers predicts, to hold a network against',
  examples: [
    'cohesin baseline --data data/hg38',
    'cohesin baseline --data data/peaks --k 4 --gaps 2 --rows 5000',
  ],
  options: {
    data: { value: 'DIR', about: 'TFRecord data set' },
    split: { value: 'valid|test', about: 'which sequences to report (default test)' },
    k: { value: 'K', about: 'bases of a word (default 5)' },
    gaps: { value: 'G', about: 'bases between them that may be any (default 0)' },
    context: { value: 'BP', about: 'bases beside a bin that count, on each side (default 200)' },
    fit: {
      value: 'ridge|logistic',
      about:
        'regression of values, or of labels 0 and 1 (default: logistic where all training targets are labels)',
    },
    rows: { value: 'N', about: 'bins to fit, drawn evenly from the training sequences (default 20000)' },
    json: { about: 'one JSON object' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const split = options.choice('split', ['valid', 'test']) ?? 'test';
    const dataset = await usage(() => openDataset(options.required('data')));
    const { view, rows } = await usage(async () => ({
      view: binView(dataset, {
        features: kmerFeatures({ k: options.count('k') ?? 5, gaps: options.count('gaps', 0) ?? 0 }),
        context: options.count('context', 0) ?? 200,
      }),
      rows: options.count('rows') ?? 20_000,
    }));
    const kind = await kindOf(view, options.choice('fit', ['ridge', 'logistic']));
    const fitted = await fit(view, kind, rows, output);
    const { sequences, measures } = await evaluate(view, kind, [fitted.model], split);
    report(view, { ...fitted, kind, split, sequences, measures: measures[0]! }, output);
  },
};

/** Bins of a data set as rows of word counts. */
interface BinView {
  readonly dataset: Dataset;
  readonly features: KmerFeatures;
  /** Of bin b of a sequence. */
  count(record: SequenceRecord, bin: number): SparseCounts;
}

function binView(
  dataset: Dataset,
  { features, context }: { readonly features: KmerFeatures; readonly context: number },
): BinView {
  if (dataset.diagonalOffset !== undefined)
    throw new UsageError(`${dataset.dir} holds contact maps; a baseline of k-mers needs tracks`);
  for (const split of ['train', 'valid', 'test'])
    if (dataset.splits[split] === undefined)
      throw new UsageError(`${dataset.dir} has no split '${split}'; a baseline needs train, valid and test`);
  const { cropBp, poolWidthBp } = dataset;
  const count = ({ sequence }: SequenceRecord, bin: number): SparseCounts => {
    const from = cropBp + bin * poolWidthBp;
    return features.count(sequence, from - context, from + poolWidthBp + context);
  };
  return { dataset, features, count };
}

/** @throws UsageError for a logistic fit of values that are no labels. */
async function kindOf({ dataset }: BinView, asked: Kind | undefined): Promise<Kind> {
  if (asked === 'ridge') return asked;
  for await (const { records } of dataset.batches('train', { batch: 16 })) {
    const value = records
      .flatMap((record) => [...targetsOf(record)])
      .find((target) => target !== 0 && target !== 1);
    if (value === undefined) continue;
    if (asked === undefined) return 'ridge';
    throw new UsageError(
      `--fit logistic needs labels, but ${dataset.dir} has a target of ${value}; use --fit ridge, or targets of 0 and 1`,
    );
  }
  return 'logistic';
}

interface Fit {
  readonly model: LinearModel;
  /** Of each track. */
  readonly penalties: readonly number[];
  /** Bins behind it. */
  readonly fitted: number;
}

/** Fits a share of the training bins, each track with the penalty that is best on the validation sequences. */
async function fit(view: BinView, kind: Kind, rows: number, output: Output): Promise<Fit> {
  const { dataset, features } = view;
  const solver = solverOf(kind, features.size, dataset.numTargets, output);
  const total = (await dataset.count('train')) * dataset.targetLength;
  const every = Math.ceil(total / rows);
  let [row, fitted] = [0, 0];
  for await (const { records } of dataset.batches('train', { batch: 16 })) {
    for (const record of records) {
      const targets = targetsOf(record);
      for (let bin = 0; bin < dataset.targetLength; bin++) {
        if (mix(row++, every) % every !== 0) continue; // a hash, so that no pattern of the bins is drawn
        solver.add(view.count(record, bin), targetsAt(targets, bin, dataset.numTargets));
        fitted++;
      }
    }
    output.progress(`fitting: ${row}/${total} bins seen, ${fitted} used`);
  }
  const models = PENALTIES.map((penalty, i) => {
    output.progress(`solving: penalty ${penalty}, ${i + 1} of ${PENALTIES.length}`);
    return solver.solve(penalty);
  });
  output.endProgress();
  const { measures } = await evaluate(view, kind, models, 'valid');
  const best = Array.from({ length: dataset.numTargets }, (_, track) => {
    const values = measures.map(([{ tracks }]) => tracks.perTrack[track]!);
    return Math.max(0, values.indexOf(Math.max(...values))); // NaN, of a constant track, is nowhere
  });
  return { model: perTrack(models, best), penalties: best.map((i) => PENALTIES[i]!), fitted };
}

interface Solver {
  add(features: SparseCounts, targets: Float32Array): void;
  solve(penalty: number): LinearModel;
}

function solverOf(kind: Kind, size: number, tracks: number, output: Output): Solver {
  if (kind === 'ridge') return ridgeSums(size, tracks);
  const rows = logisticRows(size, tracks);
  let last: LogisticModel | undefined;
  return {
    add: rows.add,
    solve: (penalty) => {
      last = rows.solve(penalty, last);
      if (last.unconverged > 0)
        output.say(`penalty ${penalty}: ${last.unconverged} of ${tracks} tracks are short of the minimum`);
      return last;
    },
  };
}

/** Track t as model `chosen[t]` has it. */
function perTrack(models: readonly LinearModel[], chosen: readonly number[]): LinearModel {
  return {
    predict: (features) => {
      const all = models.map((model, m) => (chosen.includes(m) ? model.predict(features) : undefined));
      return Float64Array.from(chosen, (m, track) => all[m]![track]!);
    },
  };
}

type Measures = readonly [Measure, ...Measure[]];

/** Each model as `cohesin evaluate` would find it: over all bins, by metrics of values or of labels. */
async function evaluate(
  { dataset, count }: BinView,
  kind: Kind,
  models: readonly LinearModel[],
  split: string,
): Promise<{ readonly sequences: number; readonly measures: readonly Measures[] }> {
  const tracks = dataset.numTargets;
  const collectors = models.map(() => (kind === 'ridge' ? valueCollector(tracks) : labelCollector(tracks)));
  let sequences = 0;
  for await (const { records } of dataset.batches(split, { batch: 16 })) {
    for (const record of records) {
      const counts = Array.from({ length: dataset.targetLength }, (_, bin) => count(record, bin));
      const targets = targetsOf(record);
      for (const [m, model] of models.entries())
        collectors[m]!.add(
          counts.flatMap((own) => [...model.predict(own)]),
          targets,
        ); // [bin, track]
      sequences++;
    }
  }
  if (sequences === 0) throw new UsageError(`${dataset.dir} has no sequences in its split '${split}'`);
  return { sequences, measures: collectors.map((collector) => collector.measures()) };
}

const targetsOf = ({ targets }: SequenceRecord): Float32Array =>
  targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data;

const targetsAt = (targets: Float32Array, bin: number, tracks: number): Float32Array =>
  targets.subarray(bin * tracks, (bin + 1) * tracks);

interface Found extends Omit<Fit, 'model'> {
  readonly kind: Kind;
  readonly split: string;
  readonly sequences: number;
  readonly measures: Measures;
}

function report({ dataset, features }: BinView, found: Found, output: Output): void {
  const { kind, split, measures, sequences, penalties, fitted } = found;
  const rows: Rows = dataset.targetLength === 1 ? 'sequences' : 'positions';
  const described = (track: number) => ({
    identifier: dataset.targets[track]?.identifier ?? String(track),
    penalty: penalties[track],
  });
  output.event({
    model: `k-mer ${kind}`,
    features: features.size,
    bins: fitted,
    split,
    sequences,
    ...measuresEvent(measures, rows, described),
  });
  const range = `${Math.min(...penalties)} to ${Math.max(...penalties)}`;
  output.say(`${kind} on ${features.size} k-mers, ${fitted} bins fitted, penalties ${range}`);
  output.say(`${split}: ${meansLine(measures, rows, sequences)}`);
}
