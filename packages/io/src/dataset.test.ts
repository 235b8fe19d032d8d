import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDataset, openShards } from './dataset.ts';
import { TfRecordError } from './errors.ts';
import { f16ToF32, f32ToF16 } from './float16.ts';
import { encodeRecord } from './record.ts';
import { writeRecords } from './record-writer.ts';
import type { BatchOptions, ShardSet } from './shard-set.ts';
import type { StreamOptions, StreamPosition } from './shards.ts';
import { type DatasetExample, type WriteDatasetOptions, writeDataset } from './write-dataset.ts';

let folder: string;
let dir: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dataset-'));
  dir = join(folder, 'tiny');
  await writeDataset(dir, sized(examples(23, 6)));
});
afterAll(() => rm(folder, { recursive: true }));

function sized(list: WriteDatasetOptions['examples']): WriteDatasetOptions {
  const targets = [
    { identifier: 'plus', description: 'CAGE: plus', strandPair: 1 },
    { identifier: 'minus', description: 'CAGE: minus', strandPair: 0 },
  ];
  const sizes = { sequenceLengthBp: 16, targetLength: 3, poolWidthBp: 4, cropBp: 2 };
  return { ...sizes, targets, examples: list, recordsPerShard: 3 };
}

/** Example number i of its split holds i in its target, so records can be told apart. */
function example(split: string, i: number): DatasetExample {
  const sequence = Uint8Array.from({ length: 16 }, (_, bp) => (bp + i) % 5);
  const targets = { dtype: 'f32' as const, data: Float32Array.of(i, 0.5, -i, 1, 2, 3) };
  return { split, chrom: 'chr1', startBp: 16 * i, endBp: 16 * i + 12, sequence, targets };
}

function* examples(train: number, valid: number): Generator<DatasetExample> {
  for (let i = 0; i < train; i++) yield example('train', i);
  for (let i = 0; i < valid; i++) yield example('valid', i);
}

async function ids(
  set: ShardSet,
  options: StreamOptions,
  limit = Number.POSITIVE_INFINITY,
): Promise<number[]> {
  const found: number[] = [];
  for await (const { id, record } of set.stream('train', options)) {
    expect(f16ToF32(record.targets.data as Uint16Array)[0]).toBe(id);
    if (found.push(id) >= limit) break;
  }
  return found;
}

const naturals = (length: number) => Array.from({ length }, (_, i) => i);
const shuffle = { seed: 11, buffer: 5 };

describe('data sets', () => {
  it('say what they hold', async () => {
    const { splits, targets, count, stream, batches, ...sizes } = await openDataset(dir);
    expect(sizes).toEqual({
      dir,
      ...{ sequenceLengthBp: 16, targetLength: 3, numTargets: 2, poolWidthBp: 4, cropBp: 2 },
      sequenceCoded: true,
    });
    expect(Object.keys(splits)).toEqual(['train', 'valid']);
    expect(splits.train?.files.map((file) => file.slice(dir.length))).toEqual(
      naturals(8).map((i) => `/tfrecords/train-${i}.tfr`),
    );
    expect([splits.train?.records, await count('train'), await count('valid')]).toEqual([23, 23, 6]);
    expect(
      targets.map(({ identifier, description, strandPair }) => [identifier, description, strandPair]),
    ).toEqual([
      ['plus', 'CAGE: plus', 1],
      ['minus', 'CAGE: minus', 0],
    ]);
  });

  it('hold what was written', async () => {
    const set = await openDataset(dir);
    for await (const { id, record } of set.stream('valid')) {
      const { sequence, targets } = example('valid', id);
      expect(record).toEqual({
        sequence,
        targets: { dtype: 'f16', data: f32ToF16(targets.data as Float32Array) },
      });
    }
    const bed = (await readFile(join(dir, 'sequences.bed'), 'utf8')).trim().split('\n');
    expect(bed.length).toBe(29);
    expect([bed[1], bed[23]]).toEqual(['chr1\t16\t28\ttrain', 'chr1\t0\t12\tvalid']);
    expect(await readFile(join(dir, 'targets.txt'), 'utf8')).toBe(
      '\tidentifier\tstrand_pair\tdescription\n0\tplus\t1\tCAGE: plus\n1\tminus\t0\tCAGE: minus\n',
    );
    expect(JSON.parse(await readFile(join(dir, 'statistics.json'), 'utf8'))).toMatchObject({
      ...{ num_targets: 2, seq_length: 16, seq_1hot: true, pool_width: 4, crop_bp: 2, target_length: 3 },
      ...{ train_seqs: 23, valid_seqs: 6 },
    });
  });

  it('read shards in natural order, so record 10 does not come before record 2', async () => {
    const long = join(folder, 'long');
    await writeDataset(long, { ...sized(examples(35, 0)), recordsPerShard: 3 });
    expect(await ids(await openDataset(long), {})).toEqual(naturals(35));
  });

  it('hand out every record once an epoch, in another order each epoch', async () => {
    const set = await openDataset(dir);
    const three = await ids(set, { shuffle, repeat: true }, 69);
    const epochs = [three.slice(0, 23), three.slice(23, 46), three.slice(46)];
    for (const epoch of epochs) expect(epoch.toSorted((a, b) => a - b)).toEqual(naturals(23));
    expect(new Set(epochs.map(String)).size).toBe(3);
  });

  it('come in the same order from memory, from disk and from threads', async () => {
    const cached = await openDataset(dir);
    const streamed = await openDataset(dir, { cacheBytes: 0 });
    const partly = await openDataset(dir, { cacheBytes: 300 });
    const threads = await openDataset(dir, { workers: 2 });
    for (const options of [
      {},
      { shuffle, repeat: true },
      { shuffle: { seed: 2, buffer: 99 }, repeat: true },
    ]) {
      const expected = await ids(cached, options, 50);
      expect(await ids(streamed, options, 50)).toEqual(expected);
      expect(await ids(partly, options, 50)).toEqual(expected);
    }
    expect(await ids(threads, { shuffle, repeat: true }, 50)).toEqual(
      await ids(cached, { shuffle, repeat: true }, 50),
    );
  });

  it.each([0, 2 ** 20])(
    'go on from any position as if never stopped, with %i bytes of cache',
    async (cacheBytes) => {
      const set = await openDataset(dir, { cacheBytes });
      const positions: StreamPosition[] = [];
      const whole: number[] = [];
      for await (const { id, position } of set.stream('train', { shuffle, repeat: true })) {
        whole.push(id);
        positions.push(JSON.parse(JSON.stringify(position)));
        if (whole.length === 60) break;
      }
      for (const [i, position] of positions.slice(0, 50).entries()) {
        const rest = await ids(set, { shuffle, repeat: true, position }, 9);
        expect(rest).toEqual(whole.slice(i + 1, i + 10));
      }
    },
  );

  it('are the same batches with any number of threads, and go on from any record with another', async () => {
    const sequences = async (workers: number, position?: StreamPosition) => {
      const set = await openDataset(dir, { workers, cacheBytes: 0 });
      const found: unknown[] = [];
      const options = { batch: 4, shuffle, repeat: true, ...(position && { position }) };
      for await (const { ids: names, records, position: at } of set.batches('train', options)) {
        const values = records.map(({ sequence, targets }) => [[...sequence], [...targets.data]]);
        found.push({ names, at, values });
        if (found.length === 12) return found; // two epochs
      }
      return found;
    };
    const expected = await sequences(0);
    for (const workers of [1, 2, 3]) expect(await sequences(workers)).toEqual(expected);

    const whole = await ids(await openDataset(dir), { shuffle, repeat: true }, 60);
    const sets = await Promise.all(
      [0, 1, 2, 3].map((workers) => openDataset(dir, { workers, cacheBytes: 0 })),
    );
    for (let consumed = 0; consumed <= 23; consumed++) {
      const on = { shuffle, repeat: true, position: { epoch: 0, consumed } };
      expect(await ids(sets[consumed % 4]!, on, 30)).toEqual(whole.slice(consumed, consumed + 30));
    }
  });

  it('are counted by their index, which is made where there is none and believed where it fits the files', async () => {
    const copy = join(folder, 'counted');
    await writeDataset(copy, sized(examples(8, 0)));
    const path = join(copy, 'shards.json');
    const written = await readFile(path, 'utf8');
    expect(Object.values(JSON.parse(written)).map((shard) => (shard as { records: number }).records)).toEqual(
      [3, 3, 2],
    );
    await rm(path);
    expect(await (await openDataset(copy, { workers: 1 })).count('train')).toBe(8);
    expect(await readFile(path, 'utf8')).toBe(written);
    const read = async (change: object, workers = 1) => {
      const index = JSON.parse(written);
      Object.assign(index['train-1.tfr'], change);
      await writeFile(path, JSON.stringify(index));
      const set = await openDataset(copy, { workers, cacheBytes: 0 });
      return [await set.count('train'), await ids(set, {})] as const;
    };
    const expected = await read({});
    expect(expected[0]).toBe(8);
    for (const change of [{ bytes: 1, records: 9 }, { records: 10 ** 12 }, { records: '3' }]) {
      expect(await read(change)).toEqual(expected);
      expect(await readFile(path, 'utf8')).toBe(written);
    }
    for (const workers of [0, 1]) {
      const advice =
        "records than when they were counted; if it is meant to, delete shards.json in the data set's folder";
      await expect(read({ records: 2 }, workers)).rejects.toThrow(`train-1.tfr: has more ${advice}`);
      await expect(read({ records: 4 }, workers)).rejects.toThrow(`train-1.tfr: has fewer ${advice}`);
    }
    await writeFile(path, '[');
    await expect((await openDataset(copy)).count('train')).rejects.toThrow(
      'shards.json: not an index of shards; delete it',
    );
  });

  it('make batches that cross epochs, each with the position after it', async () => {
    const set = await openDataset(dir);
    const order = await ids(set, { shuffle, repeat: true }, 80);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 30 }), fc.nat(40), async (batch, start) => {
        const position = { epoch: start >= 23 ? 1 : 0, consumed: start % 23 };
        const options: BatchOptions = { batch, shuffle, repeat: true, position };
        const batches = set.batches('train', options);
        const first = (await batches.next()).value!;
        await batches.return();
        expect(first.ids).toEqual(order.slice(start, start + batch));
        expect([first.ids.length, first.records.length]).toEqual([batch, batch]);
        const again = set.batches('train', { ...options, batch: 1, position: first.position });
        expect((await again.next()).value!.ids).toEqual(
          await ids(set, { ...options, position: first.position }, 1),
        );
        await again.return();
      }),
      { numRuns: 40 },
    );
  });

  it('keep the short last batch of an epoch that is not repeated', async () => {
    const set = await openDataset(dir);
    const sizes: number[] = [];
    let last: StreamPosition | undefined;
    for await (const { ids, position } of set.batches('valid', { batch: 4 })) {
      sizes.push(ids.length);
      last = position;
    }
    expect(sizes).toEqual([4, 2]);
    expect(last).toEqual({ epoch: 0, consumed: 6 });
    const rest = set.batches('valid', { batch: 4, position: last! });
    expect((await rest.next()).done).toBe(true);
  });

  it('open bare files, empty shards among them', async () => {
    const files = ['b-0.tfr', 'b-1.tfr', 'b-2.tfr'].map((name) => join(folder, name));
    const record = (i: number) => {
      const { sequence, targets } = example('train', i);
      return encodeRecord({ sequence, targets }, { sequence: 'one-hot' });
    };
    await writeRecords(files[0]!, [record(0), record(1)]);
    await writeRecords(files[1]!, []);
    await writeRecords(files[2]!, [record(2)], { compression: 'gzip' });
    const set = openShards(files, { sequenceLengthBp: 16, targetLength: 3, numTargets: 2 });
    const values: number[] = [];
    for await (const { record } of set.stream('train')) values.push(record.targets.data[0] as number);
    expect(values).toEqual([0, 1, 2]);
  });

  it('let NaN targets through only when asked', async () => {
    const file = join(folder, 'nan.tfr');
    const { sequence } = example('train', 0);
    const data = Float32Array.of(1, NaN, 3, 4, 5, 6);
    await writeRecords(file, [encodeRecord({ sequence, targets: { dtype: 'f32', data } })]);
    const shape = { sequenceLengthBp: 16, targetLength: 3, numTargets: 2 };
    await expect(openShards([file], shape).count('train')).rejects.toThrow(
      /nan\.tfr: record 0 .*non-finite-target/,
    );
    const threads = openShards([file], shape, { workers: 1 });
    await expect(threads.stream('train').next()).rejects.toThrow(/nan\.tfr: record 0 .*non-finite-target/);
    const set = openShards([file], shape, { allowNonFinite: true });
    expect((await set.stream('train').next()).value!.record.targets.data).toEqual(data);
  });

  it('report damage in the shard it is in', async () => {
    for (const [i, options] of [{ cacheBytes: 0 }, { cacheBytes: 2 ** 20 }, { workers: 2 }].entries()) {
      const damaged = join(folder, `damaged-${i}`);
      await writeDataset(damaged, sized(examples(9, 0)));
      await writeFile(join(damaged, 'tfrecords', 'train-1.tfr'), '<html>404</html>');
      const set = await openDataset(damaged, options);
      const error = await set.count('train').catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(TfRecordError);
      expect(error).toMatchObject({ recordIndex: 0, file: expect.stringContaining('train-1.tfr') });
      expect((error as Error).message).toMatch(/train-1\.tfr: record 0 .*"<html>404<\/html>"/);
    }
  });

  it('refuse a split, a position or a batch that is not there', async () => {
    const set = await openDataset(dir);
    expect(() => set.stream('tset')).toThrow(/no split tset; this data set has train, valid/);
    const outside = set.stream('valid', { position: { epoch: 0, consumed: 7 } });
    await expect(outside.next()).rejects.toThrow(/position .*"consumed":7.* outside of its 6 records/);
    await expect(set.batches('valid', { batch: 0 }).next()).rejects.toThrow(
      /batch should be an integer >= 1, found 0/,
    );
    const empty = join(folder, 'empty.tfr');
    await writeRecords(empty, []);
    const none = openShards([empty], { sequenceLengthBp: 1, targetLength: 1, numTargets: 1 });
    await expect(none.stream('train', { repeat: true }).next()).rejects.toThrow(
      /split train holds no records/,
    );
  });
});

describe('opening a data set', () => {
  const sound = { num_targets: 2, seq_length: 16, pool_width: 4, crop_bp: 2, target_length: 3 };
  let broken: string;
  beforeAll(async () => {
    broken = join(folder, 'broken');
    await mkdir(join(broken, 'tfrecords'), { recursive: true });
  });
  const open = async (statistics: unknown, targets?: string) => {
    const text = typeof statistics === 'string' ? statistics : JSON.stringify(statistics);
    await writeFile(join(broken, 'statistics.json'), text);
    if (targets !== undefined) await writeFile(join(broken, 'targets.txt'), targets);
    return await openDataset(broken);
  };

  it('says what a folder should hold when it is none', async () => {
    await expect(openDataset(folder)).rejects.toThrow(
      /dataset-.*: cannot read statistics\.json: a data set folder holds statistics\.json .* give the folder/,
    );
    await expect(open('{"num_targets": ')).rejects.toThrow(/broken\/statistics\.json: not JSON/);
    await expect(open({ ...sound, seq_length: '16' })).rejects.toThrow(/seq_length should be .* found "16"/);
    const { num_targets: _, ...missing } = sound;
    await expect(open(missing)).rejects.toThrow(/num_targets should be an integer >= 1, found nothing/);
    await expect(open({ ...sound, target_length: 4 })).rejects.toThrow(/target_length is 4 but .* make 3;/);
    await expect(open(sound)).rejects.toThrow(
      /tfrecords: expected files named \{split\}-\{i\}\.tfr, found 0 other/,
    );
  });

  it('counts the upper triangle of contact maps', async () => {
    await writeRecords(join(broken, 'tfrecords', 'train-0.tfr'), []);
    const maps = { ...sound, seq_length: 1_048_576, pool_width: 2048, crop_bp: 65_536, diagonal_offset: 2 };
    await expect(open({ ...maps, target_length: 99_681 })).resolves.toMatchObject({ diagonalOffset: 2 });
    await expect(open({ ...maps, target_length: 448 })).rejects.toThrow(/make 99681/);
  });

  it('checks the table of targets', async () => {
    await writeRecords(join(broken, 'tfrecords', 'train-0.tfr'), []);
    const table = (...rows: string[]) => ['\tidentifier\tstrand_pair\tdescription', ...rows, ''].join('\n');
    const { targets } = await open(sound, table('34\ta\t35\tA', '35\tb\t34\tB'));
    expect(targets.map(({ strandPair }) => strandPair)).toEqual([1, 0]);
    await expect(open(sound, table('0\ta\t0\tA'))).rejects.toThrow(
      /targets\.txt: 1 tracks but .* num_targets 2/,
    );
    await expect(open(sound, table('0\ta\t0', '1\tb\t1\tB'))).rejects.toThrow(
      /line 2: 3 columns but the header has 4/,
    );
    await expect(open(sound, table('0\ta\t7\tA', '1\tb\t1\tB'))).rejects.toThrow(
      /line 2: strand_pair 7 names no track/,
    );
  });
});

describe('writing a data set', () => {
  it.each([
    ['a short sequence', { sequence: new Uint8Array(15) }, /chr1:0-12 \(train\): 15 bases but .* is 16/],
    ['a bad code', { sequence: new Uint8Array(16).fill(9, 3) }, /base 3 has code 9/],
    [
      'too few targets',
      { targets: { dtype: 'f32', data: new Float32Array(5) } },
      /5 target values but .* make 6/,
    ],
    [
      'an overflow',
      { targets: { dtype: 'f32', data: Float32Array.of(1, 2, 3, 7e4, 5, 6) } },
      /bin 1 of track 1 .*70000/,
    ],
  ] as const)('refuses %s and leaves nothing behind', async (_, wrong, message) => {
    const target = join(folder, 'refused');
    const list = [{ ...example('train', 0), ...wrong }];
    await expect(writeDataset(target, sized(list))).rejects.toThrow(message);
    expect((await readdir(folder)).filter((name) => name.startsWith('refused'))).toEqual([]);
  });

  it('refuses a folder that is in use before it reads a single example', async () => {
    const unread = {
      [Symbol.iterator]: () => {
        throw new Error('read');
      },
    };
    await expect(writeDataset(dir, sized(unread))).rejects.toThrow(/tiny: the folder is not empty/);
    await expect(writeDataset(join(folder, 'no'), sized([]))).rejects.toThrow(/no examples to write/);
  });
});
