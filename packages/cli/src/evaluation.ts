import {
  type Distributed,
  type DistributedState,
  distribute,
  type Mesh,
  type StagesOptions,
} from '@cohesin/distributed';
import type { SequenceRecord } from '@cohesin/io';
import type { Ensemble } from '@cohesin/models';
import { batchInputs, packRecords } from './batch.ts';
import { averaged, variantsOf } from './ensemble.ts';
import { LABELS } from './measures.ts';
import { leavesOfPlan } from './run-plan.ts';
import { type ComparisonOptions, type Evaluation, leavesOf, type Prediction, type Task } from './task.ts';

/** A model in inference mode on a mesh. */
export interface Evaluator {
  /** The metrics over a split. */
  run(split: string, options?: RunOverSplit): Promise<Evaluation>;
  /** What is predicted of one sequence: of tracks `prediction` [bins, tracks]. */
  predict(record: SequenceRecord): Promise<Prediction>;
  readonly state: DistributedState;
  close(): Promise<void>;
}

export interface RunOverSplit extends ComparisonOptions {
  /** Is told how many sequences are done. */
  readonly onBatch?: (sequences: number) => void;
}

export interface EvaluatorOptions {
  readonly mesh: Mesh;
  readonly state: DistributedState | undefined;
  /** Sequences in a leaf: part of what decides the bits, as in training. */
  readonly sequencesPerLeaf: number;
  /** Parts of each sequence, which devices share; 1 by default. */
  readonly parts?: number;
  /** Groups of devices that share sequences of their own, as in training. */
  readonly replicas?: number | undefined;
  /** Stages that the layers are cut into, as in training; none by default. */
  readonly pipeline?: StagesOptions | undefined;
  /** What predictions are averaged over; nothing by default. */
  readonly ensemble?: Ensemble;
}

/** Compiles inference: every device works on one leaf at a time, or on its parts of one sequence. */
export async function openEvaluator(
  task: Task,
  { mesh, state, sequencesPerLeaf, parts = 1, replicas, pipeline, ensemble }: EvaluatorOptions,
): Promise<Evaluator> {
  const groups = replicas ?? Math.ceil(mesh.ranks.length / parts);
  const leaves = parts > 1 ? groups : mesh.ranks.length;
  const batch = leaves * sequencesPerLeaf;
  const predict = await distribute(task.predictStep(), {
    mesh,
    ...leavesOfPlan({ leaves, parts }),
    inputs: batchInputs(batch, task.inputs),
    ...(state === undefined ? {} : { state }),
    ...(replicas === undefined ? {} : { replicas }),
    ...(pipeline === undefined ? {} : { pipeline }),
  });
  const predictor = predictorOf(task, predict, batch, ensemble);
  return {
    run: (split, options) => evaluate(task, predictor, batch, split, options),
    predict: async (record) => (await predictor([record]))[0]!,
    state: predict.state,
    close: () => predict.close(),
  };
}

/** Predictions of up to a batch of records. */
type Predictor = (records: readonly SequenceRecord[]) => Promise<readonly Prediction[]>;

function predictorOf(
  task: Task,
  predict: Distributed,
  batch: number,
  ensemble: Ensemble | undefined,
): Predictor {
  const { inputs, sequenceLengthBp, tracks, averaging } = task;
  return async (records) => {
    const values = packRecords(records, batch, inputs, sequenceLengthBp);
    const outputs =
      ensemble === undefined || averaging === undefined
        ? namedValues(await predict(values))
        : {
            prediction: await averaged(
              async (codes) => (await predict({ ...values, codes })).prediction!.data as Float32Array,
              variantsOf(ensemble),
              { codes: values.codes as Uint8Array, lengthBp: sequenceLengthBp, tracks, turn: averaging.turn },
            ),
          };
    return records.map((_, i) =>
      Object.fromEntries(
        Object.entries(outputs).map(([name, all]) => {
          const size = all.length / batch;
          return [name, all.subarray(i * size, (i + 1) * size)];
        }),
      ),
    );
  };
}

function namedValues(outputs: Awaited<ReturnType<Distributed>>): Record<string, Float32Array> {
  return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data as Float32Array]));
}

/** Sequences in a leaf of an evaluation that belongs to no training run. */
export function evaluationLeaf(batchSize: number, { sequenceLengthBp }: Task): number {
  return batchSize / leavesOf(batchSize, sequenceLengthBp);
}

async function evaluate(
  task: Task,
  predict: Predictor,
  batch: number,
  split: string,
  { onBatch, ...options }: RunOverSplit = {},
): Promise<Evaluation> {
  const comparison = task.comparison(options);
  let sequences = 0;
  for await (const { records } of task.dataset.batches(split, { batch })) {
    const predictions = await predict(records);
    for (const [i, record] of records.entries()) comparison.add(predictions[i]!, record);
    sequences += records.length;
    onBatch?.(sequences);
  }
  if (sequences === 0) throw new Error(`the data set has no sequences in its split '${split}'`);
  return comparison.result();
}

/** The name of the number that validation looks at. */
export function headline(evaluation: Evaluation): string {
  return evaluation.kind === 'tracks' ? evaluation.measures[0].name : 'loss';
}

/** What an evaluation found, in words. */
export function inWords(evaluation: Evaluation): string {
  const { value, sequences } = evaluation;
  if (evaluation.kind === 'tracks') {
    const [{ name, tracks }] = evaluation.measures;
    return `${LABELS[name]} ${value.toFixed(4)} (mean of ${tracks.perTrack.length - tracks.undefinedTracks} tracks over ${sequences} sequences)`;
  }
  const { perTrack, perGroup } = evaluation.profiles;
  const mean = (values: readonly number[]): string =>
    (values.reduce((a, b) => a + b, 0) / values.length).toFixed(4);
  return `loss ${value.toPrecision(6)}: profile JSD ${mean(perTrack.map(({ jsd }) => jsd))}, profile Pearson ${mean(perTrack.map(({ pearson }) => pearson))}, counts Pearson ${mean(perGroup.map(({ countPearson }) => countPearson))}, Spearman ${mean(perGroup.map(({ countSpearman }) => countSpearman))} (over ${sequences} sequences)`;
}
