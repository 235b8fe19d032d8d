/** What has to be known of a model to plan its training: the step, its inputs, and into how many leaves it may be cut. */
import { type BuildOptions, type Traceable, trainStep } from '@cohesin/core';
import type { Placement } from '@cohesin/distributed';
import type { BuiltModel } from './model.ts';
import { lossOf, optimizerOf } from './training.ts';

/** Sequences that share batch-norm statistics: each alone, or all of a step. */
export type NormGroup = 'sequence' | 'step';

export interface ModelPlan {
  readonly title: string;
  readonly step: (batchNorm: { readonly group: NormGroup; readonly sequences: number }) => Traceable;
  readonly inputs: (sequences: number) => BuildOptions['inputs'];
  /** Leaves of a sequence to consider; 1 is the whole sequence. They decide bits, so a run keeps its own. */
  readonly leaves: readonly number[];
  /**
   * The best plans in stages by number of devices, for when a whole model does not fit one: as the partitioner chose them
   * for GPUs of 24 GB and 8 TFLOP/s with links of 8 GB/s (`cohesin plan`).
   */
  readonly placements: Readonly<Record<number, Placement>>;
}

/** The plan of a model from a parameter file. */
export function builtPlan(
  { model, config, train }: BuiltModel,
  rest: Pick<ModelPlan, 'title' | 'leaves' | 'placements'>,
): ModelPlan {
  const { sequenceLengthBp, outputShape } = config;
  return {
    ...rest,
    title: `${rest.title}, ${sequenceLengthBp.toLocaleString('en')} bp`,
    step: (batchNorm) => trainStep({ model, loss: lossOf(train), optimizer: optimizerOf(train), batchNorm }),
    inputs: (sequences) => ({ x: [sequences, sequenceLengthBp, 4], y: [sequences, ...outputShape] }),
  };
}

/** A placement in stages, as `[layers, devices]`: devices of a stage take sequences in turn, weight gradients fill idle time. */
export function inStages(
  ...stages: readonly (readonly [layers: readonly string[], devices: number])[]
): Placement {
  return {
    leavesPerSequence: 1,
    stages: stages.map(([layers, devices]) => ({ layers, devices })),
    within: 'data',
    schedule: stages.length === 1 ? '1f1b' : 'zero-bubble',
    ahead: stages.length === 1 ? 0 : 1,
  };
}
