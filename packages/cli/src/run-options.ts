import type { Precision } from '@cohesin/core';
import type { DeviceChoice, StagesOptions } from '@cohesin/distributed';
import { MODEL_NAMES } from '@cohesin/models';
import { type OptionSpec, type Options, UsageError } from './command-line.ts';
import { DEVICE_OPTIONS, deviceChoice } from './device-options.ts';
import type { NamedPlan } from './plan-file.ts';
import { plannedOptions } from './planned-options.ts';
import type { TraceOptions } from './run-trace.ts';
import { readStages, STAGE_OPTIONS, stageDevices } from './stage-options.ts';

/** What `train` and `demo` need to know; undefined means the default, or on resume the checkpoint's. */
export interface RunOptions {
  readonly model: string;
  readonly data: string;
  readonly out: string;
  readonly devices: DeviceChoice;
  readonly shareDevices: boolean;
  /** Stages that the layers are cut into; none by default. */
  readonly pipeline?: StagesOptions | undefined;
  /** Whether each device has the moments of some parameters only. */
  readonly shardOptimizer?: boolean;
  readonly steps: number | undefined;
  readonly epochs: number | undefined;
  readonly batch: number | undefined;
  readonly batchNorm: 'sequence' | 'step' | undefined;
  readonly parts: number | undefined;
  readonly replicas?: number | undefined;
  readonly sideBySide?: number | undefined;
  readonly precision: Precision | undefined;
  /** A file of `tune`. */
  readonly kernelTable: string | undefined;
  readonly seed: number | undefined;
  readonly checkpointEvery: number | undefined;
  readonly patience: number | undefined;
  readonly resume: string | undefined;
  readonly from: From | undefined;
  /** Patterns of parameters, by dotted path, that keep their values. */
  readonly freeze: readonly string[] | undefined;
  /** What the learning rate of parameters is multiplied by, by pattern. */
  readonly rate: Readonly<Record<string, number>> | undefined;
  readonly decodeThreads: number | undefined;
  readonly negatives?: string | undefined;
  readonly negativeRatio?: number | undefined;
  readonly bias?: string | undefined;
  /** A plan that the options agree with. */
  readonly plan?: NamedPlan | undefined;
  readonly trace?: TraceOptions | undefined;
  /** Layers that are computed again in the backward pass. */
  readonly recompute?: readonly string[] | undefined;
}

/** Weights that a run begins with. */
export interface From {
  /** A checkpoint's or run's folder, or a weight file. */
  readonly path: string;
  /** Patterns of the parameters to take, by dotted path; all of the model's where undefined. */
  readonly layers: readonly string[] | undefined;
}

export const RUN_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  model: {
    value: 'NAME|FILE.json',
    about: `${MODEL_NAMES.join(', ')}; or a params file of Basenji, Baskerville or (model.name) one of the last six`,
  },
  data: {
    value: 'DIR|human=DIR,mouse=DIR',
    about:
      'data set of prepare, or of TFRecords: statistics.json, targets.txt, tfrecords/{split}-{i}.tfr; of several genomes each by name, for a model with a head for each',
  },
  negatives: {
    value: 'DIR',
    about: 'of the BPNet family: a data set of background, from which some training sequences are taken',
  },
  'negative-ratio': { value: 'X', about: 'so many of --negatives for each of --data (default 0.1)' },
  bias: {
    value: 'DIR|FILE',
    about:
      'of chrombpnet: its bias model, a run of --model chrombpnet-bias or a weight file; it stays as it is',
  },
  out: { value: 'DIR', about: 'where checkpoints and TensorBoard events go; a new folder, unless resumed' },
  plan: {
    value: 'FILE.json',
    about:
      'train on exactly this plan, of cohesin plan --out or of another run (OUT/plan.json), in place of the options for devices, stages, batch and parts',
  },
  ...DEVICE_OPTIONS,
  ...STAGE_OPTIONS,
  'shard-optimizer': {
    about: 'each device keeps the moments of its share of the parameters only, and moves these; same bits',
  },
  steps: { value: 'TOTAL', about: 'steps in all, counted from the start of the run (default: --epochs)' },
  epochs: {
    value: 'E',
    about: "passes over the training data (default: the params file's train_epochs_max, or 10)",
  },
  batch: {
    value: 'GLOBAL',
    about: "sequences a step, over all devices (default: the params file's batch_size)",
  },
  'batch-norm': {
    value: 'sequence|step',
    about: 'statistics over each leaf of the batch (default), or over the whole step',
  },
  precision: {
    value: 'f32|mixed',
    about: 'mixed: activations of products as f16, for less memory and matrix units (default f32)',
  },
  'kernel-table': {
    value: 'FILE',
    about: 'tiles of kernels as cohesin tune measured them, in place of the shipped ones; a part of the plan',
  },
  parts: {
    value: 'P',
    about: 'cut each sequence into P parts along its rows, which devices share (default 1: whole sequences)',
  },
  replicas: {
    value: 'D',
    about:
      'with --parts: groups of devices, or of those of each stage, that have sequences of their own (default: as few as give every device a part)',
  },
  'side-by-side': {
    value: 'N',
    about:
      'with --parts: sequences that a device takes through the model at once: fewer exchanges, more memory (default 1)',
  },
  seed: { value: 'N', about: 'seed of weights, order, augmentation and dropout (default 0)' },
  'checkpoint-every': {
    value: 'K',
    about: 'steps between checkpoints (default: every epoch, and at the end)',
  },
  patience: {
    value: 'N',
    about: "epochs without a better validation that end the run (default: the params file's patience, or 20)",
  },
  resume: { value: 'DIR', about: 'go on from the newest checkpoint of a run, on any number of devices' },
  from: {
    value: 'DIR|FILE',
    about: "weights to begin with: a run's folder, its best, a checkpoint, or a weight file",
  },
  'from-layers': {
    value: 'PATH*,…',
    about: 'which of them, by dotted path, as trunk.*; the rest begins anew (default: all of the model)',
  },
  freeze: { value: 'PATH*,…', about: 'parameters that keep their values, as trunk.0.*,trunk.1.*' },
  rate: {
    value: 'PATH*=X,…',
    about: 'what the learning rate of parameters is multiplied by, as trunk.*=0.1',
  },
  'decode-threads': {
    value: 'N',
    about:
      'that read and decode records, for data larger than memory (default 0: this one, and 512 MiB kept)',
  },
  trace: {
    value: 'FILE.json',
    about:
      'write what each rank did when, for ui.perfetto.dev; ranks then wait for their devices, which costs some time',
  },
  'trace-steps': { value: 'N', about: 'of so many steps, the first (default 20)' },
  json: { about: 'one JSON object a line instead of text' },
};

/** @throws UsageError when options exclude each other, or contradict the plan. */
export function readRunOptions(
  options: Options,
  {
    plan,
    out = options.required('out'),
  }: { readonly plan?: NamedPlan | undefined; readonly out?: string } = {},
): RunOptions {
  const given = givenOptions(options, out);
  return plan === undefined ? given : plannedOptions(given, plan, options.text('devices') !== undefined);
}

function givenOptions(options: Options, out: string): RunOptions {
  const pipeline = readStages(options);
  const isOpen = pipeline !== undefined && options.text('devices') === undefined;
  return {
    model: options.required('model'),
    data: options.required('data'),
    out,
    devices: isOpen ? stageDevices(pipeline) : deviceChoice(options),
    pipeline,
    shareDevices: options.flag('share-devices'),
    shardOptimizer: options.flag('shard-optimizer'),
    steps: options.count('steps'),
    epochs: options.count('epochs'),
    batch: options.count('batch'),
    batchNorm: options.choice('batch-norm', ['sequence', 'step']),
    precision: options.choice('precision', ['f32', 'mixed']),
    kernelTable: options.text('kernel-table'),
    parts: options.count('parts'),
    replicas: options.count('replicas'),
    sideBySide: readSideBySide(options, pipeline),
    seed: options.count('seed', 0),
    checkpointEvery: options.count('checkpoint-every'),
    patience: options.count('patience', 0),
    resume: options.text('resume'),
    from: readFrom(options),
    freeze: options.list('freeze'),
    rate: readRates(options),
    decodeThreads: options.count('decode-threads', 0),
    negatives: options.text('negatives'),
    negativeRatio: options.number('negative-ratio'),
    bias: options.text('bias'),
    trace: readTrace(options),
  };
}

function readSideBySide(options: Options, pipeline: StagesOptions | undefined): number | undefined {
  const sequences = options.count('side-by-side');
  if (sequences === undefined) return undefined;
  if (['parts', 'plan', 'resume'].every((name) => options.text(name) === undefined))
    throw new UsageError(
      `--side-by-side ${sequences} is for sequences in parts; add --parts, or leave it out`,
    );
  if (pipeline !== undefined)
    throw new UsageError(
      '--side-by-side and --stages do not go together: stages take sequences one after another; leave one of them out',
    );
  return sequences;
}

function readTrace(options: Options): TraceOptions | undefined {
  const [path, steps] = [options.text('trace'), options.count('trace-steps')];
  if (path === undefined && steps !== undefined)
    throw new UsageError('--trace-steps goes with --trace, which says where the times are written');
  return path === undefined ? undefined : { path, steps: steps ?? TRACE_STEPS };
}

const TRACE_STEPS = 20;

function readFrom(options: Options): From | undefined {
  const [path, layers] = [options.text('from'), options.list('from-layers')];
  if (path === undefined && layers !== undefined)
    throw new UsageError('--from-layers goes with --from, which says where they come from');
  if (path !== undefined && options.text('resume') !== undefined)
    throw new UsageError('--from and --resume exclude each other: a resumed run has its weights already');
  return path === undefined ? undefined : { path, layers };
}

function readRates(options: Options): Readonly<Record<string, number>> | undefined {
  const rates = options.list('rate')?.map((text) => {
    const at = text.lastIndexOf('=');
    const factor = Number(text.slice(at + 1));
    if (at < 1 || !(factor > 0) || factor === Number.POSITIVE_INFINITY)
      throw new UsageError(
        `--rate has '${text}'; it must be PATH*=X with X above 0, as trunk.*=0.1 (to train none of them, --freeze)`,
      );
    return [text.slice(0, at), factor] as const;
  });
  return rates && Object.fromEntries(rates);
}
