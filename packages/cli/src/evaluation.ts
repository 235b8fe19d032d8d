import { predictStep } from '@cohesin/core';
import {
  type Distributed,
  type DistributedState,
  distribute,
  type Mesh,
  type StagesOptions,
} from '@cohesin/distributed';
import { f16ToF32, type SequenceRecord } from '@cohesin/io';
import type { Ensemble } from '@cohesin/models';
import { packCodes, predictionInputs, preparePrediction } from './batch.ts';
import { averaged, turnOf, variantsOf } from './ensemble.ts';
import { labelCollector, type Measure, type Rows, valueCollector } from './measures.ts';
import { leavesOfPlan } from './run-plan.ts';
import { leavesOf, type Task } from './task.ts';

/** A model in inference mode on a mesh. */
export interface Evaluator {
  /** The metrics over a split. */
  run(split: string, options?: RunOverSplit): Promise<Evaluation>;
  /** Prediction of one sequence, [bins, tracks]. */
  predict(record: SequenceRecord): Promise<Float32Array>;
  /** Its targets in the same bins. */
  targets(record: SequenceRecord): Float32Array;
  readonly state: DistributedState;
  close(): Promise<void>;
}

export interface RunOverSplit {
  /** Is told how many sequences are done. */
  readonly onBatch?: (sequences: number) => void;
  /** Spearman's ρ too, for which all predictions are kept. */
  readonly ranks?: boolean;
}

export interface Evaluation {
  readonly sequences: number;
  readonly rows: Rows;
  /** The one to judge by comes first. */
  readonly measures: readonly [Measure, ...Measure[]];
}

export interface EvaluatorOptions {
  readonly mesh: Mesh;
  readonly state: DistributedState | undefined;
  /** Sequences in a leaf: part of what decides the bits, as in training. */
  readonly sequencesPerLeaf: number;
  /** Parts of each sequence, which devices share; 1 by default. */
  readonly parts?: number;
  /** Stages that the layers are cut into, as in training; none by default. */
  readonly pipeline?: StagesOptions | undefined;
  /** What predictions are averaged over; nothing by default. */
  readonly ensemble?: Ensemble;
}

/** Compiles inference: every device works on one leaf at a time, or on its parts of one sequence. */
export async function openEvaluator(
  task: Task,
  { mesh, state, sequencesPerLeaf, parts = 1, pipeline, ensemble = NO_ENSEMBLE }: EvaluatorOptions,
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
    ...(pipeline === undefined ? {} : { pipeline }),
  });
  const predictor = predictorOf(task, predict, batch, ensemble);
  return {
    run: (split, options) => evaluate(task, predictor, batch, split, options),
    predict: async (record) => (await predictor([record]))[0]!,
    targets: (record) => targetsOf(task, record),
    state: predict.state,
    close: () => predict.close(),
  };
}

const NO_ENSEMBLE: Ensemble = { reverseComplement: false, shiftsBp: [0] };

/** Predictions of up to a batch of records, each [bins, tracks]. */
type Predictor = (records: readonly SequenceRecord[]) => Promise<readonly Float32Array[]>;

function predictorOf(
  { built, shapes, view }: Task,
  predict: Distributed,
  batch: number,
  ensemble: Ensemble,
): Predictor {
  const variants = variantsOf(ensemble);
  const turn = turnOf(built.config, view);
  const predictCodes = async (codes: Uint8Array): Promise<Float32Array> =>
    (await predict({ codes })).prediction!.data as Float32Array;
  return async (records) => {
    const codes = packCodes(records, batch, shapes);
    const sequences = { codes, lengthBp: shapes.sequenceLengthBp, tracks: view.tracks, turn };
    const prediction = await averaged(predictCodes, variants, sequences);
    const size = prediction.length / batch;
    return records.map((_, i) => prediction.subarray(i * size, (i + 1) * size));
  };
}

/** Sequences in a leaf of an evaluation that belongs to no training run. */
export function evaluationLeaf({ built, shapes }: Task): number {
  const { batchSize } = built.train;
  return batchSize / leavesOf(batchSize, shapes.sequenceLengthBp);
}

async function evaluate(
  task: Task,
  predict: Predictor,
  batch: number,
  split: string,
  { onBatch, ranks = false }: RunOverSplit = {},
): Promise<Evaluation> {
  const { metric, view } = task;
  const collector =
    metric === 'pearson' ? valueCollector(view.tracks, { ranks }) : labelCollector(view.tracks);
  let sequences = 0;
  for await (const { records } of task.dataset.batches(split, { batch })) {
    const predictions = await predict(records);
    for (const [i, record] of records.entries()) collector.add(predictions[i]!, targetsOf(task, record));
    sequences += records.length;
    onBatch?.(sequences);
  }
  if (sequences === 0) throw new Error(`the data set has no sequences in its split '${split}'`);
  return { sequences, rows: rowsOf(task), measures: collector.measures() };
}

function rowsOf({ view, shapes }: Task): Rows {
  if (view.isTriangle) return 'pairs of bins';
  return shapes.targetLength === 1 ? 'sequences' : 'positions';
}

/** Targets of one sequence in the bins that the model predicts. */
function targetsOf({ view, shapes }: Task, { targets }: SequenceRecord): Float32Array {
  const values = targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data;
  return values.slice(view.cropBins * view.tracks, (shapes.targetLength - view.cropBins) * view.tracks);
}
