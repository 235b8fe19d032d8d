/** Where the windows of profiles lie in their records, and which columns are read and predicted. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Dataset, f32ToF16, openDataset, type SequenceRecord, writeDataset } from '@cohesin/io';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packRecords } from './batch.ts';
import { fittedModel, profileTask } from './profile-task.ts';
import { type SourceBatch, sourceBatches } from './source.ts';

// Two layers see 53 bp beyond a profile, of which control tracks are read over 37.
const MODEL = {
  model: { name: 'bpnet-lite', seq_length: 120, filters: 2, dilated_layers: 2, augment_jitter: 9 },
};
const [LENGTH, CROP] = [130, 16];
const ROWS = LENGTH - 2 * CROP;
const COLUMNS = 4; // control, plus, control, minus

let dir: string;
let dataset: Dataset;
let background: Dataset;
let records: SequenceRecord[];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-profile-'));
  const make = async (name: string, count: number, base: number): Promise<Dataset> => {
    const roles = ['control', 'target', 'control', 'target'];
    await writeDataset(join(dir, name), {
      sequenceLengthBp: LENGTH,
      targetLength: ROWS,
      poolWidthBp: 1,
      cropBp: CROP,
      targets: roles.map((role, i) => ({ identifier: `t${i}`, description: '', columns: { role } })),
      examples: examples(count, base),
      recordsPerShard: 4,
    });
    return openDataset(join(dir, name));
  };
  dataset = await make('peaks', 6, 0);
  background = await make('background', 5, 3);
  records = [];
  for await (const { record } of dataset.stream('train')) records.push(record);
});
afterAll(() => rm(dir, { recursive: true }));

/** Row r of column c, which lies at place r + CROP of the sequence, holds 8 (r + CROP) + c. */
async function* examples(count: number, base: number) {
  const values = Array.from(
    { length: ROWS * COLUMNS },
    (_, i) => 8 * (Math.floor(i / COLUMNS) + CROP) + (i % COLUMNS),
  );
  for (let i = 0; i < count; i++) {
    const sequence = new Uint8Array(LENGTH).fill(base);
    yield {
      split: 'train',
      chrom: 'chr1',
      startBp: i * LENGTH,
      endBp: i * LENGTH + ROWS,
      sequence,
      targets: { dtype: 'f16' as const, data: f32ToF16(values) },
    };
  }
}

test('a window that is moved takes its sequence, reads and controls along, and counts weigh a tenth of their median', async () => {
  const built = await fittedModel(MODEL, dataset);
  const { targetLength, countWeight } = built.config;
  expect(targetLength).toBe(14);
  const middle = Array.from({ length: 14 }, (_, row) => 2 * 8 * (5 + 53 + row) + 1 + 3);
  expect(countWeight).toBeCloseTo(middle.reduce((a, b) => a + b) / 10, 9);
  const task = profileTask(built, dataset, {});
  expect(task.augment).toMatchObject({ jitterBp: 5 }); // what the records have room for
  const all = { ...task.inputs, ...task.targets };
  const { codes, control, targets } = packRecords(records.slice(0, 1), 2, all, 120, () => -4);
  expect([...codes!.subarray(0, 121)]).toEqual([...new Array<number>(120).fill(0), 4]); // the second is absent
  const place = (position: number): number => 8 * (1 + position); // the window begins at 1
  expect([...targets!.subarray(0, 4)]).toEqual([place(53) + 1, place(53) + 3, place(54) + 1, place(54) + 3]);
  expect([...control!.subarray(2 * 53, 2 * 54)]).toEqual([place(53), place(53) + 2]);
  expect([...control!.subarray(2 * 14, 2 * 16)]).toEqual([0, 0, place(15), place(15) + 2]); // stored from 16 on
  expect(control).toHaveLength(2 * 120 * 2);
});

test('windows that the records cannot hold are refused with what to prepare', async () => {
  const wide = { model: { ...MODEL.model, seq_length: 140 } };
  await expect(fittedModel(wide, dataset)).rejects.toThrow(
    /sequences of 130 bp; the model reads 140 bp[\s\S]*--length 140/,
  );
  const shallow = { model: { ...MODEL.model, seq_length: 130, trimming: 50 } };
  await expect(fittedModel(shallow, dataset)).rejects.toThrow(
    /no targets in the outer 16 bp[\s\S]*--crop 13/,
  );
  await expect(fittedModel('chrombpnet', dataset)).rejects.toThrow(
    /2 tracks and 2 control tracks; this model has one/,
  );
});

test('background is spread evenly, and a stream goes on where another stood', async () => {
  const sources = { dataset, negatives: { dataset: background, ratio: 0.5 } };
  const options = { batch: 5, shuffle: { seed: 3, buffer: 4 }, position: undefined };
  const take = async (stream: ReturnType<typeof sourceBatches>, count: number) => {
    const found: SourceBatch[] = [];
    for (let i = 0; i < count; i++) found.push((await stream.next()).value!);
    return found;
  };
  const whole = await take(sourceBatches(sources, options), 6);
  const kinds = whole.flatMap(({ records }) => records.map(({ sequence }) => (sequence[0] === 3 ? 1 : 0)));
  expect(kinds.slice(0, 6)).toEqual([0, 0, 1, 0, 0, 1]);
  expect(kinds.filter(Boolean)).toHaveLength(10);
  const rest = await take(sourceBatches(sources, { ...options, position: whole[2]!.position }), 3);
  expect(rest).toEqual(whole.slice(3));
});
