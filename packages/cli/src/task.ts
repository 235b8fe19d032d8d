import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Dataset } from '@cohesin/io';
import { type BuiltModel, checkData, modelFromParams, namedModel } from '@cohesin/models';
import type { Augmentation, Shapes, TargetView } from './batch.ts';
import { UsageError } from './command-line.ts';

/** A model, a data set that fits it, and how the two meet. */
export interface Task {
  readonly name: string;
  /** Hash of everything that defines the model: a run resumes only with the same. */
  readonly id: string;
  /** What rebuilds the model: a published name, or the content of its file. */
  readonly params: unknown;
  readonly built: BuiltModel;
  readonly dataset: Dataset;
  readonly shapes: Shapes;
  readonly view: TargetView;
  readonly augment: Augmentation;
  /** Validation metric. */
  readonly metric: 'pearson' | 'auroc';
}

/** The norm each parameter's gradient is clipped to where the file states none: the value Basenji2 was trained with. */
export const DEFAULT_CLIP_NORM = 2;

/**
 * Builds a model and fits it to a data set.
 *
 * @throws UsageError when the model is unknown or the sizes differ, with both sides.
 */
export async function openTask(model: string, dataset: Dataset): Promise<Task> {
  return usage(async () => {
    const { params, built } = await openModel(model);
    return taskOf(params, model, dataset, built);
  });
}

/** A published model by name, or that of a parameter file. @throws when the model is unknown. */
export async function openModel(
  model: string,
): Promise<{ readonly params: unknown; readonly built: BuiltModel }> {
  const params: unknown = model.endsWith('.json') ? JSON.parse(await readParams(model)) : model;
  return { params, built: await buildModel(params, model) };
}

/** The task of a checkpoint: the model is rebuilt from what the checkpoint says. */
export async function reopenTask(
  saved: { readonly name: string; readonly params: unknown },
  dataset: Dataset,
): Promise<Task> {
  return usage(async () =>
    taskOf(saved.params, saved.name, dataset, await buildModel(saved.params, saved.name)),
  );
}

async function buildModel(params: unknown, name: string): Promise<BuiltModel> {
  if (typeof params === 'string') return namedModel(params);
  try {
    return modelFromParams(params);
  } catch (cause) {
    throw new Error(`${name}: ${(cause as Error).message}`, { cause });
  }
}

function taskOf(params: unknown, name: string, dataset: Dataset, built: BuiltModel): Task {
  const { cropBins } = checkData(built.config, dataset);
  const { config, train } = built;
  const tracks = config.targets;
  const strandPair = Array.from(
    { length: tracks },
    (_, track) => config.strandPair?.[track] ?? dataset.targets[track]?.strandPair ?? track,
  );
  return {
    name,
    id: createHash('sha256').update(JSON.stringify(params)).digest('hex'),
    params,
    built,
    dataset,
    shapes: {
      sequenceLengthBp: config.sequenceLengthBp,
      targetLength: dataset.targetLength,
      tracks,
      targetDType: 'f16',
    },
    view: {
      tracks,
      strandPair,
      cropBins,
      outputShape: config.outputShape,
      isTriangle: config.triangle !== undefined,
    },
    augment: config.augment,
    metric: train.loss.startsWith('bce') ? 'auroc' : 'pearson',
  };
}

async function readParams(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw new Error(
      `${path}: cannot read the parameter file; give its path, or one of basset, basenji2, basenji1, akita`,
      {
        cause,
      },
    );
  });
}

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
