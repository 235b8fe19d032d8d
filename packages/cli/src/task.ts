import type { nn, Optimizer, Traceable } from '@cohesin/core';
import type { Dataset, SequenceRecord } from '@cohesin/io';
import type { Ensemble, GeneMetrics, ProfileMetrics } from '@cohesin/models';
import type { Augmentation, StepInputs } from './batch.ts';
import { UsageError } from './command-line.ts';
import type { Turn } from './ensemble.ts';
import type { GeneComparison } from './genes.ts';
import type { Measure, Rows } from './measures.ts';

/** How a model and the data of one genome meet: what its steps are given, and what their outcome is compared with. */
export interface Task {
  /** As named in `--data human=DIR,mouse=DIR`. */
  readonly genome: string | undefined;
  readonly dataset: Dataset;
  /** A data set of background that some of the training sequences are taken from, so many for one of `dataset`. */
  readonly negatives?: { readonly dataset: Dataset; readonly ratio: number };
  /** The model that ends in this genome's head. */
  readonly model: nn.AnyLayer;
  readonly sequenceLengthBp: number;
  readonly tracks: number;
  /** What the model reads. */
  readonly inputs: StepInputs;
  /** What it is trained on. */
  readonly targets: StepInputs;
  readonly augment: Augmentation;
  readonly trainStep: (options: StepOptions) => Traceable;
  readonly predictStep: () => Traceable;
  readonly comparison: (options?: ComparisonOptions) => Comparison;
  /** Targets of a record at the places that are predicted, [rows, tracks]. */
  readonly targetsOf: (record: SequenceRecord) => Float32Array;
  /** How predictions can be averaged over strands and shifts, where they can. */
  readonly averaging?: { readonly turn: Turn; readonly stated: Ensemble };
}

export interface StepOptions {
  readonly optimizer: Optimizer;
  /** Patterns of parameters that keep their values, beside those that the model itself keeps. */
  readonly frozen: readonly string[];
  readonly batchNorm: nn.BatchNormGroup;
}

/** Outputs of one sequence by name. */
export type Prediction = Readonly<Record<string, Float32Array>>;

export interface ComparisonOptions {
  /** Spearman's ρ of tracks too, for which all predictions are kept. */
  readonly ranks?: boolean;
  /** Genes to be compared too. */
  readonly genes?: GeneComparison | undefined;
}

/** Compares predictions with targets, sequence by sequence in the order of the data set. */
export interface Comparison {
  add(prediction: Prediction, record: SequenceRecord): void;
  result(): Evaluation;
}

interface Compared {
  /** The number that validation looks at. */
  readonly value: number;
  readonly better: 'higher' | 'lower';
  readonly sequences: number;
}

export interface TrackEvaluation extends Compared {
  readonly kind: 'tracks';
  readonly rows: Rows;
  /** The one to judge by comes first. */
  readonly measures: readonly [Measure, ...Measure[]];
  readonly genes?: GeneMetrics;
}

export interface ProfileEvaluation extends Compared {
  readonly kind: 'profiles';
  readonly profiles: ProfileMetrics;
}

export type Evaluation = TrackEvaluation | ProfileEvaluation;

/** The norm each parameter's gradient is clipped to where the file states none: the value Basenji2 was trained with. */
export const DEFAULT_CLIP_NORM = 2;

/** Errors before work starts are the user's to mend. */
export async function usage<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/**
 * How a batch is cut into leaves. Long sequences are a leaf each; short ones go together, eight leaves a batch if it
 * divides, since a leaf is the least that one device works on. Devices play no part: leaves decide bits.
 */
export function leavesOf(batch: number, sequenceLengthBp: number): number {
  if (sequenceLengthBp >= LONG_BP) return batch;
  for (let leaves = Math.min(8, batch); leaves > 1; leaves--) if (batch % leaves === 0) return leaves;
  return 1;
}

const LONG_BP = 8192;
