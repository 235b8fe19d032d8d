import type { HostTensor } from '@cohesin/core';
import type { SequenceRecord } from '@cohesin/io';
import { openEvaluator } from '../evaluation.ts';
import type { Task } from '../task.ts';
import type { Training } from '../training.ts';
import { MOTIFS } from './motifs.ts';
import { type FirstLayer, recoverMotifs } from './recovery.ts';
import { motifTable, trackPlots } from './report.ts';

/** Looks at a trained model and gives lines to show. */
export type Findings = (training: Training) => Promise<readonly string[]>;

/** Pearson r on the test split, and measured against predicted tracks of its first sequence. */
export const heldOut: Findings = async ({ study, mesh, weights, plan }) => {
  const [task] = study.tasks as [Task];
  const { dataset } = task;
  if (dataset.splits.test === undefined) return [];
  const evaluator = await openEvaluator(task, {
    mesh,
    state: weights,
    sequencesPerLeaf: plan.batch / plan.leaves,
  });
  const { value, sequences } = await evaluator.run('test');
  const [record] = await firstRecords(dataset.stream('test'), 1);
  const { prediction } = await evaluator.predict(record!);
  const count = task.tracks;
  const shown = Math.min(count, 4);
  const column = (values: Float32Array, track: number): Float32Array =>
    values.filter((_, i) => i % count === track);
  const measured = task.targetsOf(record!);
  const plots = Array.from({ length: shown }, (_, track) => ({
    name: dataset.targets[track]?.identifier ?? `track ${track}`,
    measured: column(measured, track),
    predicted: column(prediction!, track),
  }));
  return [
    `test: mean Pearson r ${value.toFixed(4)} over ${count} tracks and ${sequences} sequences; the first of them:`,
    trackPlots(plots),
  ];
};

/** First-layer filters against the planted motifs, by the sites that make them fire in test sequences. */
export const motifsFound: Findings = async (training) => {
  const records = await firstRecords(
    training.study.tasks[0]!.dataset.stream('test'),
    Number.POSITIVE_INFINITY,
  );
  const recoveries = recoverMotifs({
    layer: firstLayer(await training.state()),
    sequences: records.map(({ sequence }) => sequence),
    motifs: MOTIFS,
  });
  return ['Planted motifs and the first-layer filters that match them:', motifTable(recoveries)];
};

async function firstRecords(
  stream: AsyncIterable<{ readonly record: SequenceRecord }>,
  count: number,
): Promise<SequenceRecord[]> {
  const records: SequenceRecord[] = [];
  for await (const { record } of stream) {
    records.push(record);
    if (records.length >= count) break;
  }
  return records;
}

const EPSILON = 1e-3; // of batch norm, as in Keras

/** The first convolution and its batch norm in inference mode; the GELU before it scales one-hot input by a constant. */
function firstLayer(state: ReadonlyMap<string, HostTensor>): FirstLayer {
  const values = (name: string): Float32Array => state.get(`trunk.0.${name}`)!.data as Float32Array;
  const { shape, data } = state.get('trunk.0.conv.weight')!;
  const [gamma, beta, mean, variance] = [
    'norm.weight',
    'norm.bias',
    'norm.running_mean',
    'norm.running_var',
  ].map(values);
  const gelu = 1 / (1 + Math.exp(-1.702)); // of 1, in the sigmoid form
  const scale = gamma!.map((g, i) => g / Math.sqrt(variance![i]! + EPSILON));
  const shift = beta!.map((b, i) => b - mean![i]! * scale[i]!);
  return {
    weight: (data as Float32Array).map((w) => w * gelu),
    size: shape[0]!,
    filters: shape[2]!,
    scale,
    shift,
  };
}
