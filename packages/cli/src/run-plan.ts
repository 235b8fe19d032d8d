import type { Precision } from '@cohesin/core';
import type { Checkpoint } from '@cohesin/distributed';
import type { TrainConfig } from '@cohesin/models';
import { UsageError } from './command-line.ts';
import type { RunOptions } from './run-options.ts';
import { DEFAULT_CLIP_NORM, leavesOf, type Task } from './task.ts';

/** Everything a run does that its command line leaves open. */
export interface RunPlan {
  readonly batch: number;
  readonly leaves: number;
  readonly batchNorm: 'sequence' | 'step';
  readonly precision: Precision;
  readonly seed: number;
  readonly steps: number;
  readonly stepsPerEpoch: number;
  readonly checkpointEvery: number;
  readonly devices: number;
  readonly shareDevices: boolean;
  readonly shuffleBuffer: number;
  readonly train: TrainConfig;
}

const SHUFFLE_BUFFER = 128; // Basenji's
const EPOCHS = 10;

/**
 * Decides what the options leave open: from the checkpoint when resuming, else from the model's file and the data.
 *
 * @throws UsageError when an option contradicts the checkpoint or the batch cannot be dealt to the devices.
 */
export async function planRun(
  task: Task,
  options: RunOptions,
  resumed: Checkpoint | undefined,
): Promise<RunPlan> {
  const { train } = task.built;
  const batch = agree('batch', options.batch, resumed?.plan.batch) ?? train.batchSize;
  const leaves = resumed?.plan.leaves ?? leavesOf(batch, task.shapes.sequenceLengthBp);
  if (options.devices > leaves) {
    throw new UsageError(
      `--devices is ${options.devices} but a batch of ${batch} is ${leaves} ${leaves === 1 ? 'leaf' : 'leaves'}; use at most ${leaves} devices, or a larger --batch`,
    );
  }
  const sequences = await task.dataset.count('train');
  if (sequences === 0) throw new UsageError('the data set has no training sequences');
  const stepsPerEpoch = Math.max(1, Math.floor(sequences / batch));
  return {
    batch,
    leaves,
    batchNorm:
      agree('batch-norm', options.batchNorm, resumed?.plan.batchNorm as RunOptions['batchNorm']) ??
      'sequence',
    precision:
      agree('precision', options.precision, resumed?.plan.precision as RunOptions['precision']) ?? 'f32',
    seed: agree('seed', options.seed, resumed?.seed) ?? 0,
    steps: options.steps ?? (options.epochs ?? EPOCHS) * stepsPerEpoch,
    stepsPerEpoch,
    checkpointEvery: options.checkpointEvery ?? stepsPerEpoch,
    devices: options.devices,
    shareDevices: options.shareDevices,
    shuffleBuffer: train.shuffleBuffer ?? SHUFFLE_BUFFER,
    train: clipped(train),
  };
}

/** Real tracks seldom have mean 1, so gradients are clipped unless the file says how. */
function clipped(train: TrainConfig): TrainConfig {
  const stated = train.clipNorm !== undefined || train.globalClipNorm !== undefined;
  return stated ? train : { ...train, clipNorm: DEFAULT_CLIP_NORM };
}

function agree<T>(name: string, given: T | undefined, saved: T | undefined): T | undefined {
  if (given === undefined || saved === undefined || given === saved) return given ?? saved;
  throw new UsageError(
    `--${name} is ${given} but the run was started with ${saved}; leave --${name} out, or start a new run`,
  );
}

/** @throws UsageError when a checkpoint belongs to another model. */
export function checkSameModel(task: Task, { model, dir }: Checkpoint): void {
  if (model.id === task.id) return;
  throw new UsageError(
    `${dir} holds ${model.name} (${model.id.slice(0, 12)}) but --model is ${task.name} (${task.id.slice(0, 12)}); give the same model, or start a new run`,
  );
}
