import { mix } from '@cohesin/core';
import { type Dataset, f16ToF32, openDataset, type SequenceRecord } from '@cohesin/io';
import {
  auroc,
  foldSums,
  type KmerFeatures,
  kmerFeatures,
  pearson,
  type RidgeModel,
  ridgeSums,
  type SparseCounts,
  sequenceSums,
  type TrackMetric,
  type TrackSums,
} from '@cohesin/models';
import { type Command, UsageError } from '../command-line.ts';
import { type Output, openOutput } from '../progress.ts';
import { usage } from '../task.ts';

const PENALTIES = [1e-4, 1e-3, 1e-2, 0.1, 1, 10];

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
    const { model, penalties, fitted } = await fit(view, rows, output);
    const [found] = await evaluate(view, [model], split);
    report(view, { split, penalties, fitted, ...found! }, output);
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

interface Fit {
  readonly model: RidgeModel;
  /** Of each track. */
  readonly penalties: readonly number[];
  /** Bins behind it. */
  readonly fitted: number;
}

/** Fits a share of the training bins, each track with the penalty that is best on the validation sequences. */
async function fit(view: BinView, rows: number, output: Output): Promise<Fit> {
  const { dataset, features } = view;
  const sums = ridgeSums(features.size, dataset.numTargets);
  const total = (await dataset.count('train')) * dataset.targetLength;
  const every = Math.ceil(total / rows);
  let [row, fitted] = [0, 0];
  for await (const { records } of dataset.batches('train', { batch: 16 })) {
    for (const record of records) {
      const targets = targetsOf(record);
      for (let bin = 0; bin < dataset.targetLength; bin++) {
        if (mix(row++, every) % every !== 0) continue; // a hash, so that no pattern of the bins is drawn
        sums.add(view.count(record, bin), targetsAt(targets, bin, dataset.numTargets));
        fitted++;
      }
    }
    output.progress(`fitting: ${row}/${total} bins seen, ${fitted} used`);
  }
  output.endProgress();
  const models = PENALTIES.map((penalty) => sums.solve(penalty));
  const found = await evaluate(view, models, 'valid');
  const best = Array.from({ length: dataset.numTargets }, (_, track) => {
    const values = found.map(({ tracks }) => tracks.perTrack[track]!);
    return Math.max(0, values.indexOf(Math.max(...values))); // NaN, of a constant track, is nowhere
  });
  return { model: perTrack(models, best), penalties: best.map((i) => PENALTIES[i]!), fitted };
}

/** Track t as model `chosen[t]` has it. */
function perTrack(models: readonly RidgeModel[], chosen: readonly number[]): RidgeModel {
  return {
    predict: (features) => {
      const all = models.map((model, m) => (chosen.includes(m) ? model.predict(features) : undefined));
      return Float64Array.from(chosen, (m, track) => all[m]![track]!);
    },
  };
}

interface Found {
  readonly metric: 'pearson' | 'auroc';
  readonly tracks: TrackMetric;
  readonly sequences: number;
}

/**
 * Each model as `cohesin evaluate` would find it: Pearson's r over all bins, or the AUROC where sequences have one bin and
 * all targets are 0 or 1.
 */
async function evaluate(
  { dataset, count }: BinView,
  models: readonly RidgeModel[],
  split: string,
): Promise<Found[]> {
  const shape = { tracks: dataset.numTargets };
  const sums = models.map((): TrackSums[] => []);
  const labels: number[] = []; // of data with one bin only: [sequence, track]
  const scores = models.map((): number[] => []);
  let sequences = 0;
  for await (const { records } of dataset.batches(split, { batch: 16 })) {
    for (const record of records) {
      const counts = Array.from({ length: dataset.targetLength }, (_, bin) => count(record, bin));
      const targets = targetsOf(record);
      if (dataset.targetLength === 1) labels.push(...targets);
      for (const [m, model] of models.entries()) {
        const predicted = counts.flatMap((own) => [...model.predict(own)]); // [bin, track]
        sums[m]!.push(sequenceSums(predicted, targets, shape));
        if (dataset.targetLength === 1) scores[m]!.push(...predicted);
      }
      sequences++;
    }
  }
  if (sequences === 0) throw new UsageError(`${dataset.dir} has no sequences in its split '${split}'`);
  const areLabels = labels.length > 0 && labels.every((label) => label === 0 || label === 1);
  return models.map((_, m) => ({
    metric: areLabels ? 'auroc' : 'pearson',
    tracks: areLabels ? auroc(scores[m]!, labels, shape) : pearson(foldSums(sums[m]!)),
    sequences,
  }));
}

const targetsOf = ({ targets }: SequenceRecord): Float32Array =>
  targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data;

const targetsAt = (targets: Float32Array, bin: number, tracks: number): Float32Array =>
  targets.subarray(bin * tracks, (bin + 1) * tracks);

function report(
  { dataset, features }: BinView,
  found: Found & Omit<Fit, 'model'> & { readonly split: string },
  output: Output,
): void {
  const { split, metric, tracks, sequences, penalties, fitted } = found;
  output.event({
    model: 'k-mer ridge',
    features: features.size,
    bins: fitted,
    split,
    sequences,
    metric,
    mean: tracks.mean,
    undefinedTracks: tracks.undefinedTracks,
    tracks: [...tracks.perTrack].map((value, track) => ({
      track,
      identifier: dataset.targets[track]?.identifier ?? String(track),
      penalty: penalties[track],
      value: Number.isNaN(value) ? null : value,
    })),
  });
  const defined = tracks.perTrack.length - tracks.undefinedTracks;
  output.say(
    `ridge on ${features.size} k-mers, ${fitted} bins fitted, penalties ${Math.min(...penalties)} to ${Math.max(...penalties)}`,
  );
  output.say(
    `${split}: mean ${metric === 'pearson' ? 'Pearson r' : 'AUROC'} ${tracks.mean.toFixed(4)} over ${defined} tracks and ${sequences} sequences`,
  );
}
