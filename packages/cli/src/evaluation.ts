import { type HostTensor, predictStep } from '@cohesin/core';
import { type Distributed, type DistributedState, distribute, type Mesh } from '@cohesin/distributed';
import { f16ToF32, type SequenceRecord } from '@cohesin/io';
import { auroc, foldSums, pearson, sequenceSums, type TrackMetric, type TrackSums } from '@cohesin/models';
import { packRecords, predictionInputs, preparePrediction } from './batch.ts';
import { leavesOfPlan } from './run-plan.ts';
import { leavesOf, type Task } from './task.ts';

/** A model in inference mode on a mesh. */
export interface Evaluator {
  /** The metric over a split. `onBatch` is told how many sequences are done. */
  run(split: string, onBatch?: (sequences: number) => void): Promise<Evaluation>;
  /** Prediction of one sequence, [bins, tracks]. */
  predict(record: SequenceRecord): Promise<Float32Array>;
  /** Its targets in the same bins. */
  targets(record: SequenceRecord): Float32Array;
  readonly state: DistributedState;
  close(): Promise<void>;
}

export interface Evaluation {
  readonly metric: 'pearson' | 'auroc';
  readonly sequences: number;
  readonly tracks: TrackMetric;
}

export interface EvaluatorOptions {
  readonly mesh: Mesh;
  readonly state: DistributedState | undefined;
  /** Sequences in a leaf: part of what decides the bits, as in training. */
  readonly sequencesPerLeaf: number;
  /** Parts of each sequence, which devices share; 1 by default. */
  readonly parts?: number;
}

/** Compiles inference: every device works on one leaf at a time, or on its parts of one sequence. */
export async function openEvaluator(
  task: Task,
  { mesh, state, sequencesPerLeaf, parts = 1 }: EvaluatorOptions,
): Promise<Evaluator> {
  const leaves = parts > 1 ? 1 : mesh.ranks.length;
  const batch = leaves * sequencesPerLeaf;
  const step = predictStep({
    model: task.built.predict,
    trained: task.built.model,
    prepare: preparePrediction,
  });
  const predict = await distribute(step, {
    mesh,
    ...leavesOfPlan({ leaves, parts }),
    inputs: predictionInputs(batch, task.shapes),
    ...(state === undefined ? {} : { state }),
  });
  return {
    run: (split, onBatch) => evaluate(task, predict, batch, split, onBatch),
    predict: async (record) => {
      const { codes } = packRecords([record], batch, task.shapes);
      return rowsOf((await predict({ codes: codes! })).prediction!, 0);
    },
    targets: (record) => targetsOf(task, record),
    state: predict.state,
    close: () => predict.close(),
  };
}

/** Sequences in a leaf of an evaluation that belongs to no training run. */
export function evaluationLeaf({ built, shapes }: Task): number {
  const { batchSize } = built.train;
  return batchSize / leavesOf(batchSize, shapes.sequenceLengthBp);
}

async function evaluate(
  task: Task,
  predict: Distributed,
  batch: number,
  split: string,
  onBatch?: (sequences: number) => void,
): Promise<Evaluation> {
  const sums: TrackSums[] = [];
  const pairs: { predicted: Float32Array; target: Float32Array }[] = [];
  let sequences = 0;
  for await (const { records } of task.dataset.batches(split, { batch })) {
    const { codes } = packRecords(records, batch, task.shapes);
    const { prediction } = await predict({ codes: codes! });
    for (const [i, record] of records.entries()) {
      const predicted = rowsOf(prediction!, i);
      const target = targetsOf(task, record);
      if (task.metric === 'pearson') sums.push(sequenceSums(predicted, target, { tracks: task.view.tracks }));
      else pairs.push({ predicted: predicted.slice(), target });
    }
    sequences += records.length;
    onBatch?.(sequences);
  }
  if (sequences === 0) throw new Error(`the data set has no sequences in its split '${split}'`);
  const tracks = task.metric === 'pearson' ? pearson(foldSums(sums)) : areas(pairs, task.view.tracks);
  return { metric: task.metric, sequences, tracks };
}

function rowsOf({ data, shape }: HostTensor, sequence: number): Float32Array {
  const size = data.length / shape[0]!;
  return (data as Float32Array).subarray(sequence * size, (sequence + 1) * size);
}

/** Targets of one sequence in the bins that the model predicts. */
function targetsOf({ view, shapes }: Task, { targets }: SequenceRecord): Float32Array {
  const values = targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data;
  return values.subarray(view.cropBins * view.tracks, (shapes.targetLength - view.cropBins) * view.tracks);
}

function areas(
  pairs: readonly { predicted: Float32Array; target: Float32Array }[],
  tracks: number,
): TrackMetric {
  const join = (pick: (pair: (typeof pairs)[number]) => Float32Array): Float32Array => {
    const all = new Float32Array(pairs.length * tracks);
    for (const [i, pair] of pairs.entries()) all.set(pick(pair), i * tracks);
    return all;
  };
  return auroc(
    join(({ predicted }) => predicted),
    join(({ target }) => target),
    { tracks },
  );
}
