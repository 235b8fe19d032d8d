import type { HostTensor } from '@cohesin/core';
import { loadCheckpoint, type Mesh, openMesh } from '@cohesin/distributed';
import { type Ensemble, loadWeights, ownWeights, type ProfileMetrics } from '@cohesin/models';
import { type Command, type Options, UsageError } from '../command-line.ts';
import { DEVICE_OPTIONS, describeMesh, deviceChoice } from '../device-options.ts';
import { evaluationLeaf, inWords, openEvaluator } from '../evaluation.ts';
import { type GeneComparison, openGenes } from '../genes.ts';
import { genesEvent, genesLine, LABELS, type MeasureName, meansLine, measuresEvent } from '../measures.ts';
import { type Output, openOutput } from '../progress.ts';
import { type DataOptions, openStudy, reopenStudy, type Study } from '../study.ts';
import { type Evaluation, type Task, type TrackEvaluation, usage } from '../task.ts';

type Weights = ReadonlyMap<string, HostTensor>;

export const evaluate: Command = {
  name: 'evaluate',
  about: 'compare predictions with measurements on one split of a data set',
  examples: [
    'cohesin evaluate --checkpoint runs/first --data data/hg38 --split test',
    'cohesin evaluate --model params.json --weights model.h5 --data data/hg38 --split valid --json',
  ],
  options: {
    checkpoint: {
      value: 'DIR',
      about: "a run's folder (its newest checkpoint), its best, or one of its checkpoints/step-N",
    },
    model: {
      value: 'NAME|FILE.json',
      about: 'with --weights, instead of --checkpoint; as of train',
    },
    weights: {
      value: 'FILE',
      about: 'a Keras, PyTorch, TensorFlow or safetensors file, under published names or our own',
    },
    data: { value: 'DIR|human=DIR,mouse=DIR', about: 'TFRecord data set, of several genomes each by name' },
    split: { value: 'train|valid|test', about: 'which sequences (default test)' },
    rc: { about: 'average over each sequence and its reverse complement' },
    'no-rc': { about: "do not, whatever the params file's ensemble_rc says" },
    shifts: {
      value: 'BP,…',
      about:
        "average over shifts, as 1,0,-1 (default: what the params file's ensemble_rc and ensemble_shifts say)",
    },
    spearman: { about: "Spearman's ρ of tracks too; keeps all predictions in memory" },
    genes: {
      value: 'FILE.bed',
      about:
        "genes too: of their spans, exons or starts (rows of one name), Pearson's r over genes and within them",
    },
    'without-bias': { about: 'of chrombpnet: predict without the bias model' },
    ...DEVICE_OPTIONS,
    json: { about: 'one JSON object a genome, with every track' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const split = options.choice('split', ['train', 'valid', 'test']) ?? 'test';
    const { study, weights } = await usage(() => openModel(options));
    const ranks = options.flag('spearman');
    const genes = await usage(() => genesOf(study, options.text('genes'), split));
    const ensembles = study.tasks.map((task) => ensembleOf(task, options));
    const mesh = await openMesh({
      devices: deviceChoice(options),
      shareDevices: options.flag('share-devices'),
    });
    try {
      if (mesh.level !== 'L0') output.say(describeMesh(mesh));
      for (const [i, task] of study.tasks.entries())
        report(
          study,
          task,
          split,
          await onMesh(mesh, { study, task, weights, split, ranks, genes }, ensembles[i], output),
          output,
        );
    } finally {
      await mesh.close();
    }
  },
};

async function openModel(options: Options): Promise<{ study: Study; weights: Weights }> {
  const data: DataOptions = { data: options.required('data'), withoutBias: options.flag('without-bias') };
  const checkpoint = options.text('checkpoint');
  if (checkpoint !== undefined) {
    const { model, state } = await loadCheckpoint(checkpoint);
    const study = await reopenStudy(model, data);
    return { study, weights: ownWeights(study.weights.model).toCohesin(state) };
  }
  if (options.text('model') === undefined)
    throw new UsageError('cohesin evaluate needs --checkpoint DIR, or --model FILE.json and --weights FILE');
  const study = await openStudy(options.required('model'), { ...data, allHeads: true });
  return { study, weights: await loadWeights(study.weights, options.required('weights')) };
}

/** What predictions are averaged over; undefined where they cannot be. */
function ensembleOf({ averaging }: Task, options: Options): Ensemble | undefined {
  const [given, not, shifts] = [options.flag('rc'), options.flag('no-rc'), options.integers('shifts')];
  if (given && not) throw new UsageError('--rc and --no-rc exclude each other; give one of them');
  if (averaging === undefined) {
    if (given || shifts) throw new UsageError('--rc and --shifts are for tracks; profiles are not averaged');
    return undefined;
  }
  const { reverseComplement, shiftsBp } = averaging.stated;
  return {
    reverseComplement: !not && (given || reverseComplement),
    shiftsBp: shifts ?? shiftsBp,
  };
}

/** @throws when the model or its data have no places of genes */
async function genesOf(
  { name, tasks }: Study,
  path: string | undefined,
  split: string,
): Promise<GeneComparison | undefined> {
  if (path === undefined) return undefined;
  const [{ dataset, averaging }, other] = tasks as [Task, Task?];
  if (other !== undefined)
    throw new UsageError('--genes is for one genome at a time; name one in --data, as human=DIR');
  if (averaging === undefined || dataset.diagonalOffset !== undefined || dataset.targetLength === 1)
    throw new UsageError(`--genes is for tracks along a sequence; ${name} has none`);
  return openGenes(path, dataset, split);
}

interface Job {
  readonly study: Study;
  readonly task: Task;
  readonly weights: Weights;
  readonly split: string;
  readonly ranks: boolean;
  readonly genes: GeneComparison | undefined;
}

async function onMesh(
  mesh: Mesh,
  { study, task, weights, split, ranks, genes }: Job,
  ensemble: Ensemble | undefined,
  output: Output,
): Promise<Evaluation> {
  const evaluator = await openEvaluator(task, {
    mesh,
    state: undefined,
    sequencesPerLeaf: evaluationLeaf(study.train.batchSize, task),
    ...(ensemble && { ensemble }),
  });
  const { state } = evaluator;
  await state.write(new Map([...weights].filter(([name]) => state.has(name)))); // not what only training needs
  const total = await task.dataset.count(split);
  const evaluation = await evaluator.run(split, {
    onBatch: (done) => output.progress(`${split}: ${done}/${total} sequences`),
    ranks,
    genes,
  });
  output.endProgress();
  await evaluator.close();
  return evaluation;
}

function report(
  { name }: Study,
  { genome, dataset }: Task,
  split: string,
  evaluation: Evaluation,
  output: Output,
): void {
  const { sequences } = evaluation;
  const what = { model: name, ...(genome === undefined ? {} : { genome }), split, sequences };
  const of = genome === undefined ? split : `${genome}, ${split}`;
  if (evaluation.kind === 'tracks') {
    reportTracks(what, of, dataset, evaluation, output);
    return;
  }
  const { loss, perTrack, perGroup } = evaluation.profiles;
  output.event({ ...what, metric: 'loss', loss, tracks: perTrack, counts: perGroup });
  for (const line of profileLines(evaluation.profiles)) output.say(line);
  output.say(`${of}: ${inWords(evaluation)}`);
}

/** A line for each profile, and one for each total. */
function profileLines({ perTrack, perGroup }: ProfileMetrics): string[] {
  return [
    ...perTrack.map(
      ({ jsd, medianJsDistance, pearson, empty }, i) =>
        `profile ${i}: JSD ${jsd.toFixed(4)} nats, median distance ${medianJsDistance.toFixed(4)}, Pearson ${pearson.toFixed(4)} (${empty} sequences without reads)`,
    ),
    ...perGroup.map(
      ({ mnll, countPearson, countSpearman, countMse }, i) =>
        `counts ${i}: Pearson ${countPearson.toFixed(4)}, Spearman ${countSpearman.toFixed(4)}, MSE ${countMse.toFixed(4)}; multinomial NLL ${mnll.toFixed(2)}`,
    ),
  ];
}

function reportTracks(
  what: Readonly<Record<string, unknown>>,
  of: string,
  dataset: Task['dataset'],
  { measures, rows, sequences, genes }: TrackEvaluation,
  output: Output,
): void {
  const described = (track: number) => ({
    identifier: dataset.targets[track]?.identifier ?? String(track),
    description: dataset.targets[track]?.description ?? '',
  });
  const ofGenes = genes === undefined ? {} : { genes: genesEvent(genes, described) };
  output.event({ ...what, ...measuresEvent(measures, rows, described), ...ofGenes });
  output.say(`track  ${measures.map((measure) => LABELS[measure.name]).join('  ')}`);
  for (let track = 0; track < dataset.numTargets; track++) {
    const values = measures.map(({ name: metric, tracks }) => valueText(tracks.perTrack[track]!, metric));
    const { identifier, description } = described(track);
    output.say(`${String(track).padStart(5)}  ${values.join('  ')}  ${identifier}  ${description}`);
  }
  output.say(`${of}: ${meansLine(measures, rows, sequences)}`);
  if (genes !== undefined) output.say(`${of}: ${genesLine(genes)}`);
}

/** As wide as its heading. */
function valueText(value: number, metric: MeasureName): string {
  const text = Number.isNaN(value) ? 'undefined' : value.toFixed(4);
  return text.padStart(LABELS[metric].length);
}
