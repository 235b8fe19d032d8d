import { openDataset } from './dataset.ts';
import { f16ToF32 } from './float16.ts';
import type { SequenceRecord } from './record.ts';

export interface BasenjiBatchOptions {
  /** Sequences in a batch; an incomplete last batch is left out. */
  readonly size: number;
  readonly split?: string;
  /** Order by this seed, through a buffer of `shuffle` records; without it the order of the files. */
  readonly shuffle?: number;
  readonly seed?: number;
  /** Pass over the data without end. */
  readonly repeat?: boolean;
}

/** A batch as a compiled function takes it: x one-hot [size, length, 4], y [size, bins, tracks], row-major. */
export interface BasenjiBatch {
  readonly [name: string]: Float32Array;
  readonly x: Float32Array;
  readonly y: Float32Array;
}

/**
 * Batches of a TFRecord data set in Basenji's layout, decoded to f32.
 *
 * @throws as `openDataset`, and at a damaged record, after the sound ones before it
 */
export async function* basenjiBatches(
  dir: string,
  options: BasenjiBatchOptions,
): AsyncGenerator<BasenjiBatch> {
  const { size, split = 'train', shuffle, seed = 0, repeat = false } = options;
  const dataset = await openDataset(dir);
  const order = shuffle === undefined ? {} : { shuffle: { seed, buffer: shuffle } };
  for await (const { records } of dataset.batches(split, { batch: size, repeat, ...order })) {
    if (records.length === size) yield decode(records);
  }
}

function decode(records: readonly SequenceRecord[]): BasenjiBatch {
  const [first] = records;
  const length = first!.sequence.length;
  const values = first!.targets.data.length;
  const x = new Float32Array(records.length * length * 4);
  const y = new Float32Array(records.length * values);
  for (const [i, { sequence, targets }] of records.entries()) {
    for (const [row, code] of sequence.entries()) if (code < 4) x[(i * length + row) * 4 + code] = 1;
    y.set(targets.dtype === 'f16' ? f16ToF32(targets.data) : targets.data, i * values);
  }
  return { x, y };
}
