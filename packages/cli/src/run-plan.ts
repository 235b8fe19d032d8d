import { type KernelTable, kernelTableHash, nn, type Precision, readKernelTable } from '@cohesin/core';
import {
  type Checkpoint,
  type DeviceChoice,
  dealLeaves,
  deviceCount,
  pipelineOf,
  type StagesOptions,
} from '@cohesin/distributed';
import type { TrainConfig } from '@cohesin/models';
import { UsageError } from './command-line.ts';
import type { Stopping } from './early-stopping.ts';
import type { NamedPlan } from './plan-file.ts';
import type { RunOptions } from './run-options.ts';
import { recordsPerEpoch } from './source.ts';
import type { Study } from './study.ts';
import { DEFAULT_CLIP_NORM, leavesOf, type Task, usage } from './task.ts';

/** Everything a run does that its command line leaves open. */
export interface RunPlan {
  readonly batch: number;
  /** Leaves of the batch; of whole sequences unless these are cut into parts. */
  readonly leaves: number;
  /** Parts of each sequence; 1 for leaves of whole sequences. */
  readonly parts: number;
  /** Groups of devices with sequences of their own, where sequences are cut into parts. */
  readonly replicas: number | undefined;
  /** Sequences in parts that a device takes through the model at once. */
  readonly sideBySide: number | undefined;
  readonly batchNorm: 'sequence' | 'step';
  readonly precision: Precision;
  /** In place of the shipped one. */
  readonly kernelTable: KernelTable | undefined;
  readonly seed: number;
  readonly steps: number;
  readonly stepsPerEpoch: number;
  /** Of each genome. */
  readonly batchesPerEpoch: readonly number[];
  readonly checkpointEvery: number;
  readonly stopping: Stopping;
  readonly devices: DeviceChoice;
  readonly shareDevices: boolean;
  readonly pipeline: StagesOptions | undefined;
  /** Layers that are computed again in the backward pass; what is large and cheap always is. */
  readonly recompute: readonly string[] | undefined;
  readonly shardOptimizer: boolean;
  readonly shuffleBuffer: number;
  readonly train: TrainConfig;
  /** Patterns of the parameters that keep their values. */
  readonly frozen: readonly string[];
  /** What learning rates are multiplied by, by pattern of parameters. */
  readonly rateFactors: Readonly<Record<string, number>>;
}

const SHUFFLE_BUFFER = 128; // Basenji's
const EPOCHS = 10;

/**
 * Decides what the options leave open: from the checkpoint when resuming, else from the model's file and the data.
 *
 * @throws UsageError when an option contradicts the checkpoint or the batch cannot be dealt to the devices.
 */
export async function planRun(
  study: Study,
  options: RunOptions,
  resumed: Checkpoint | undefined,
): Promise<RunPlan> {
  const { train, tasks } = study;
  const batch = agree('batch', options.batch, resumed?.plan.batch) ?? train.batchSize;
  const parts = agree('parts', options.parts, resumed?.plan.parts) ?? 1;
  const leaves =
    plannedLeaves(options.plan, resumed) ?? (parts > 1 ? batch : leavesOf(batch, tasks[0]!.sequenceLengthBp));
  const { replicas, pipeline } = options;
  await checkDevices(deviceCount(options.devices), { batch, leaves, parts, replicas }, pipeline);
  const batchesPerEpoch = await Promise.all(tasks.map((task) => countBatches(task, batch)));
  const stepsPerEpoch = batchesPerEpoch.reduce((a, b) => a + b, 0);
  return {
    batch,
    leaves,
    parts,
    replicas: options.replicas,
    sideBySide: options.sideBySide,
    batchNorm:
      agree('batch-norm', options.batchNorm, resumed?.plan.batchNorm as RunOptions['batchNorm']) ??
      'sequence',
    precision:
      agree('precision', options.precision, resumed?.plan.precision as RunOptions['precision']) ?? 'f32',
    kernelTable: checkTable(await kernelTableOf(options.kernelTable, resumed), options.plan),
    seed: agree('seed', options.seed, resumed?.seed) ?? 0,
    steps: options.steps ?? (options.epochs ?? train.maxEpochs ?? EPOCHS) * stepsPerEpoch,
    stepsPerEpoch,
    batchesPerEpoch,
    checkpointEvery: options.checkpointEvery ?? stepsPerEpoch,
    stopping: {
      patience: options.patience ?? resumed?.validations.patience ?? train.patience,
      minEpochs: train.minEpochs,
    },
    devices: options.devices,
    shareDevices: options.shareDevices,
    pipeline: options.pipeline,
    recompute: options.recompute,
    shardOptimizer: options.shardOptimizer ?? false,
    shuffleBuffer: train.shuffleBuffer ?? SHUFFLE_BUFFER,
    train: clipped(train),
    ...layersOf(study, options, resumed),
  };
}

/** @throws UsageError when the plan and the checkpoint differ. */
function plannedLeaves(plan: NamedPlan | undefined, resumed: Checkpoint | undefined): number | undefined {
  const [planned, saved] = [plan?.logical.leaves, resumed?.plan.leaves];
  if (planned === undefined || saved === undefined || planned === saved) return planned ?? saved;
  throw new UsageError(
    `${plan!.path} has ${planned} leaves but the run was started with ${saved}; leave --plan out, or start a new run`,
  );
}

async function countBatches(task: Task, batch: number): Promise<number> {
  const sequences = await recordsPerEpoch(task);
  if (sequences === 0) throw new UsageError(`${task.dataset.dir}: the data set has no training sequences`);
  return Math.max(1, Math.floor(sequences / batch));
}

/** @throws UsageError when some devices would have nothing to do. */
async function checkDevices(
  devices: number,
  { batch, leaves, parts, replicas }: Pick<RunPlan, 'batch' | 'leaves' | 'parts' | 'replicas'>,
  pipeline: StagesOptions | undefined,
): Promise<void> {
  if (pipeline !== undefined) {
    const cut = { leaves: parts > 1 ? batch * parts : leaves, leavesPerSequence: parts };
    await usage(async () => pipelineOf(pipeline, devices, cut, replicas));
    return;
  }
  if (parts > 1 || replicas !== undefined) {
    await usage(async () =>
      dealLeaves({ leaves: batch * parts, leavesPerSequence: parts }, devices, replicas),
    );
    return;
  }
  if (devices <= leaves) return;
  throw new UsageError(
    `--devices is ${devices} but a batch of ${batch} is ${leaves} ${leaves === 1 ? 'leaf' : 'leaves'}; use at most ${leaves} devices, a larger --batch, or --parts to share sequences`,
  );
}

/** @throws UsageError when a pattern fits no parameter of the model, or contradicts the checkpoint. */
function layersOf(
  { weights }: Study,
  { freeze, rate }: RunOptions,
  resumed: Checkpoint | undefined,
): Pick<RunPlan, 'frozen' | 'rateFactors'> {
  const { frozen = [], rateFactors = {} } = resumed?.plan ?? {};
  if (resumed !== undefined) {
    agree('freeze', freeze?.join(), frozen.join());
    agree('rate', rate && ratesText(rate), ratesText(rateFactors));
  }
  const plan = { frozen: freeze ?? frozen, rateFactors: rate ?? rateFactors };
  const kept = new Set(plan.frozen.flatMap((pattern) => nn.matching(weights.model, pattern)));
  for (const pattern of Object.keys(plan.rateFactors)) {
    if (nn.matching(weights.model, pattern).some((parameter) => parameter.trainable && !kept.has(parameter)))
      continue;
    throw new UsageError(`--rate ${pattern}: all that it fits is frozen; leave it out, or freeze less`);
  }
  return plan;
}

const ratesText = (rates: Readonly<Record<string, number>>): string =>
  Object.entries(rates)
    .map(([pattern, factor]) => `${pattern}=${factor}`)
    .join();

/** How a batch is cut into leaves, as `distribute` takes it. */
export function leavesOfPlan({
  leaves,
  parts,
}: Pick<RunPlan, 'leaves' | 'parts'>): { readonly leaves: number } | { readonly leavesPerSequence: number } {
  return parts > 1 ? { leavesPerSequence: parts } : { leaves };
}

/** Real tracks seldom have mean 1, so gradients are clipped unless the file says how. */
function clipped(train: TrainConfig): TrainConfig {
  const stated = train.clipNorm !== undefined || train.globalClipNorm !== undefined;
  return stated ? train : { ...train, clipNorm: DEFAULT_CLIP_NORM };
}

/** @throws UsageError when the file is no kernel table, or not the one the run was started with. */
async function kernelTableOf(
  path: string | undefined,
  resumed: Checkpoint | undefined,
): Promise<KernelTable | undefined> {
  if (path === undefined) return resumed?.plan.kernelTable;
  const given = await usage(() => readKernelTable(path));
  if (resumed === undefined) return given;
  const saved = resumed.plan.kernelTable;
  const [own, other] = [given, saved].map((table) => table && kernelTableHash(table).slice(0, 12));
  if (own === other) return given;
  throw new UsageError(
    `--kernel-table is ${path} (${own}) but the run was started with ${other ?? 'the shipped table'}; leave --kernel-table out, or start a new run`,
  );
}

/** @throws UsageError when a plan was made with another table. */
function checkTable(table: KernelTable | undefined, plan: NamedPlan | undefined): KernelTable | undefined {
  if (plan === undefined) return table;
  const [own, planned] = [table && kernelTableHash(table), plan.logical.kernelTable];
  if (own === planned) return table;
  const text = (hash: string | undefined): string => hash?.slice(0, 12) ?? 'the shipped one';
  throw new UsageError(
    `${plan.path} is for the kernel table ${text(planned)} but this run has ${text(own)}; ${planned === undefined ? 'leave --kernel-table out' : 'give that one with --kernel-table'}`,
  );
}

function agree<T>(name: string, given: T | undefined, saved: T | undefined): T | undefined {
  if (given === undefined || saved === undefined || given === saved) return given ?? saved;
  throw new UsageError(
    `--${name} is ${given} but the run was started with ${saved === '' ? 'none' : saved}; leave --${name} out, or start a new run`,
  );
}

/** @throws UsageError when a checkpoint belongs to another model. */
export function checkSameModel(study: Study, { model, dir }: Checkpoint): void {
  if (model.id === study.id) return;
  throw new UsageError(
    `${dir} holds ${model.name} (${model.id.slice(0, 12)}) but --model is ${study.name} (${study.id.slice(0, 12)}); give the same model, or start a new run`,
  );
}
