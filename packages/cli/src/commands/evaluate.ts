import { type HostTensor, nn, readSafetensors, sameShape, shapeText } from '@cohesin/core';
import { loadCheckpoint, openMesh } from '@cohesin/distributed';
import { type Dataset, openDataset } from '@cohesin/io';
import { type Command, type Options, UsageError } from '../command-line.ts';
import { type Evaluation, evaluationLeaf, openEvaluator } from '../evaluation.ts';
import { type Output, openOutput } from '../progress.ts';
import { openTask, reopenTask, type Task, usage } from '../task.ts';

type Weights = ReadonlyMap<string, HostTensor>;

export const evaluate: Command = {
  name: 'evaluate',
  about: 'compare predictions with measurements on one split of a data set',
  examples: [
    'cohesin evaluate --checkpoint runs/first --data data/hg38 --split test',
    'cohesin evaluate --model params.json --weights weights.safetensors --data data/hg38 --split valid --json',
  ],
  options: {
    checkpoint: {
      value: 'DIR',
      about: "a run's folder (its newest checkpoint) or one of its checkpoints/step-N",
    },
    model: { value: 'FILE.json|basset|basenji2', about: 'with --weights, instead of --checkpoint' },
    weights: { value: 'FILE.safetensors', about: 'parameters and running statistics by their dotted paths' },
    data: { value: 'DIR', about: 'TFRecord data set' },
    split: { value: 'train|valid|test', about: 'which sequences (default test)' },
    devices: { value: 'N', about: 'devices to predict on (default 1); never changes a bit' },
    'share-devices': { about: 'let several ranks use one GPU' },
    json: { about: 'one JSON object with every track' },
  },
  run: async (options) => {
    const output = openOutput(options.flag('json'));
    const split = options.choice('split', ['train', 'valid', 'test']) ?? 'test';
    const { task, weights } = await usage(() => openModel(options));
    const evaluation = await onMesh(task, weights, split, options, output);
    report(task, split, evaluation, output);
  },
};

async function openModel(options: Options): Promise<{ task: Task; weights: Weights }> {
  const dataset = await openDataset(options.required('data'));
  const checkpoint = options.text('checkpoint');
  return checkpoint === undefined ? fromFiles(options, dataset) : fromCheckpoint(checkpoint, dataset);
}

async function fromCheckpoint(path: string, dataset: Dataset): Promise<{ task: Task; weights: Weights }> {
  const { model, state, dir } = await loadCheckpoint(path);
  const task = await reopenTask(model, dataset);
  return { task, weights: ownWeights(task, state, dir) };
}

async function fromFiles(options: Options, dataset: Dataset): Promise<{ task: Task; weights: Weights }> {
  if (options.text('model') === undefined)
    throw new UsageError('cohesin evaluate needs --checkpoint DIR, or --model FILE.json and --weights FILE');
  const task = await openTask(options.required('model'), dataset);
  const path = options.required('weights');
  const { tensors } = await readSafetensors(path);
  return { task, weights: ownWeights(task, tensors, path) };
}

/** Training state that a checkpoint holds beside the model's own tensors. */
const TRAINING_ONLY = /^(optimizer|data)\//;

/** @throws with every missing, extra and misshapen name; nothing is loaded by halves. */
function ownWeights({ built }: Task, given: Weights, source: string): Weights {
  const wanted = nn.parameters(built.model);
  const missing = [...wanted.keys()].filter((name) => !given.has(name));
  const extra = [...given.keys()].filter((name) => !wanted.has(name) && !TRAINING_ONLY.test(name));
  const misshapen = [...wanted].flatMap(([name, { shape }]) => {
    const found = given.get(name);
    return found === undefined || sameShape(found.shape, shape)
      ? []
      : [`${name} is ${shapeText(found.shape)}, the model has ${shapeText(shape)}`];
  });
  const faults = [
    ...(missing.length === 0 ? [] : [`missing: ${missing.join(', ')}`]),
    ...(extra.length === 0 ? [] : [`not in the model: ${extra.join(', ')}`]),
    ...(misshapen.length === 0 ? [] : [`other shapes: ${misshapen.join('; ')}`]),
  ];
  if (faults.length > 0) throw new UsageError(`${source} does not fit the model:\n  ${faults.join('\n  ')}`);
  return new Map([...wanted.keys()].map((name) => [name, given.get(name)!]));
}

async function onMesh(
  task: Task,
  weights: Weights,
  split: string,
  options: Options,
  output: Output,
): Promise<Evaluation> {
  const mesh = await openMesh({
    devices: options.count('devices') ?? 1,
    shareDevices: options.flag('share-devices'),
  });
  try {
    const evaluator = await openEvaluator(task, {
      mesh,
      state: undefined,
      sequencesPerLeaf: evaluationLeaf(task),
    });
    await evaluator.state.write(weights);
    const total = await task.dataset.count(split);
    const evaluation = await evaluator.run(split, (done) =>
      output.progress(`${split}: ${done}/${total} sequences`),
    );
    output.endProgress();
    return evaluation;
  } finally {
    await mesh.close();
  }
}

function report(
  { name, dataset }: Task,
  split: string,
  { metric, tracks, sequences }: Evaluation,
  output: Output,
): void {
  const label = metric === 'pearson' ? 'Pearson r' : 'AUROC';
  const perTrack = [...tracks.perTrack].map((value, i) => ({
    track: i,
    identifier: dataset.targets[i]?.identifier ?? String(i),
    description: dataset.targets[i]?.description ?? '',
    value: Number.isNaN(value) ? null : value,
  }));
  output.event({
    model: name,
    split,
    sequences,
    metric,
    mean: tracks.mean,
    undefinedTracks: tracks.undefinedTracks,
    tracks: perTrack,
  });
  for (const { track, identifier, description, value } of perTrack) {
    output.say(
      `${String(track).padStart(5)}  ${value === null ? 'undefined' : value.toFixed(4).padStart(9)}  ${identifier}  ${description}`,
    );
  }
  const defined = tracks.perTrack.length - tracks.undefinedTracks;
  output.say(
    `${split}: mean ${label} ${tracks.mean.toFixed(4)} over ${defined} tracks and ${sequences} sequences`,
  );
}
