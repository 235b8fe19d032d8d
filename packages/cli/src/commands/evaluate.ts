import type { HostTensor } from '@cohesin/core';
import { loadCheckpoint, openMesh } from '@cohesin/distributed';
import { type Dataset, openDataset } from '@cohesin/io';
import { type Ensemble, loadWeights, ownWeights } from '@cohesin/models';
import { type Command, type Options, UsageError } from '../command-line.ts';
import { DEVICE_OPTIONS, deviceChoice } from '../device-options.ts';
import { type Evaluation, evaluationLeaf, openEvaluator } from '../evaluation.ts';
import { LABELS, type MeasureName, meansLine, measuresEvent } from '../measures.ts';
import { type Output, openOutput } from '../progress.ts';
import { openTask, reopenTask, type Task, usage } from '../task.ts';

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
      value: 'FILE.json|basset|basenji2|basenji1|akita',
      about: 'with --weights, instead of --checkpoint',
    },
    weights: {
      value: 'FILE',
      about: 'a Keras, PyTorch, TensorFlow or safetensors file, under published names or our own',
    },
    data: { value: 'DIR', about: 'TFRecord data set' },
    split: { value: 'train|valid|test', about: 'which sequences (default test)' },
    rc: { about: 'average over each sequence and its reverse complement' },
    'no-rc': { about: "do not, whatever the params file's ensemble_rc says" },
    shifts: {
      value: 'BP,…',
      about:
        "average over shifts, as 1,0,-1 (default: what the params file's ensemble_rc and ensemble_shifts say)",
    },
    spearman: { about: "Spearman's ρ too; keeps all predictions in memory" },
    ...DEVICE_OPTIONS,
    json: { about: 'one JSON object with every track' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const split = options.choice('split', ['train', 'valid', 'test']) ?? 'test';
    const { task, weights } = await usage(() => openModel(options));
    const ensemble = ensembleOf(task, options);
    const evaluation = await onMesh(task, weights, split, ensemble, options, output);
    report(task, split, evaluation, output);
  },
};

async function openModel(options: Options): Promise<{ task: Task; weights: Weights }> {
  const dataset = await openDataset(options.required('data'));
  const checkpoint = options.text('checkpoint');
  return checkpoint === undefined ? fromFiles(options, dataset) : fromCheckpoint(checkpoint, dataset);
}

async function fromCheckpoint(path: string, dataset: Dataset): Promise<{ task: Task; weights: Weights }> {
  const { model, state } = await loadCheckpoint(path);
  const task = await reopenTask(model, dataset);
  return { task, weights: ownWeights(task.built.model).toCohesin(state) };
}

async function fromFiles(options: Options, dataset: Dataset): Promise<{ task: Task; weights: Weights }> {
  if (options.text('model') === undefined)
    throw new UsageError('cohesin evaluate needs --checkpoint DIR, or --model FILE.json and --weights FILE');
  const task = await openTask(options.required('model'), dataset);
  return { task, weights: await loadWeights(task.built, options.required('weights')) };
}

function ensembleOf({ built }: Task, options: Options): Ensemble {
  const { reverseComplement, shiftsBp } = built.config.ensemble ?? {
    reverseComplement: false,
    shiftsBp: [0],
  };
  const [given, not] = [options.flag('rc'), options.flag('no-rc')];
  if (given && not) throw new UsageError('--rc and --no-rc exclude each other; give one of them');
  return {
    reverseComplement: !not && (given || reverseComplement),
    shiftsBp: options.integers('shifts') ?? shiftsBp,
  };
}

async function onMesh(
  task: Task,
  weights: Weights,
  split: string,
  ensemble: Ensemble,
  options: Options,
  output: Output,
): Promise<Evaluation> {
  const mesh = await openMesh({
    devices: deviceChoice(options),
    shareDevices: options.flag('share-devices'),
  });
  try {
    const evaluator = await openEvaluator(task, {
      mesh,
      state: undefined,
      sequencesPerLeaf: evaluationLeaf(task),
      ensemble,
    });
    const read = [...weights].filter(([name]) => evaluator.state.has(name)); // not what only training needs
    await evaluator.state.write(new Map(read));
    const total = await task.dataset.count(split);
    const evaluation = await evaluator.run(split, {
      onBatch: (done) => output.progress(`${split}: ${done}/${total} sequences`),
      ranks: options.flag('spearman'),
    });
    output.endProgress();
    return evaluation;
  } finally {
    await mesh.close();
  }
}

function report(
  { name, dataset }: Task,
  split: string,
  { measures, rows, sequences }: Evaluation,
  output: Output,
): void {
  const described = (track: number) => ({
    identifier: dataset.targets[track]?.identifier ?? String(track),
    description: dataset.targets[track]?.description ?? '',
  });
  output.event({ model: name, split, sequences, ...measuresEvent(measures, rows, described) });
  output.say(`track  ${measures.map((measure) => LABELS[measure.name]).join('  ')}`);
  for (let track = 0; track < dataset.numTargets; track++) {
    const values = measures.map(({ name: metric, tracks }) => valueText(tracks.perTrack[track]!, metric));
    const { identifier, description } = described(track);
    output.say(`${String(track).padStart(5)}  ${values.join('  ')}  ${identifier}  ${description}`);
  }
  output.say(`${split}: ${meansLine(measures, rows, sequences)}`);
}

/** As wide as its heading. */
function valueText(value: number, metric: MeasureName): string {
  const text = Number.isNaN(value) ? 'undefined' : value.toFixed(4);
  return text.padStart(LABELS[metric].length);
}
