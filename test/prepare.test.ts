/** `prepare` on a toy genome against plain loops, by its command, and on real tracks against a reference where it is at hand. */
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  decodeExample,
  f16ToF32,
  f32ToF16,
  openDataset,
  openIntervals,
  PREPARE_DEFAULTS,
  planPrepare,
  readRecords,
  readTrackTable,
  type StreamPosition,
} from '@cohesin/io';
import type { WigValue } from '@cohesin/io/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cohesin } from './cohesin.ts';
import { TOY_LENGTHS, writeToy } from './toy-genome.ts';
import { toyPrepare } from './toy-prepare.ts';

const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const YEAST = join(SHARED, 'data/yeast');
const GOLDEN = join(SHARED, 'golden/io');
const real = existsSync(YEAST) && existsSync(GOLDEN);

let folder: string;
let toy: ReturnType<typeof writeToy>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'prepare-'));
  toy = writeToy(folder);
});
afterAll(() => rm(folder, { recursive: true }));

const { inToy, track, options, run, problems } = toyPrepare(() => folder);

/** The value of each bp, 0 where there is none. */
function coverage(values: readonly WigValue[], chrom: string): Float64Array {
  const found = new Float64Array(TOY_LENGTHS[`chr${chrom.replace('chr', '')}` as keyof typeof TOY_LENGTHS]);
  for (const { chrom: on, start, end, value } of values) if (on === chrom) found.fill(value, start, end);
  return found;
}

describe('prepare on a toy genome', () => {
  it('writes every sequence and target of the plan, equal to plain loops', async () => {
    const { result, plan } = await run('loops', options({ memoryBytes: 999 }));
    expect(plan.memory.groupSize).toBeLessThan(20);
    const set = await openDataset(inToy('loops'));
    expect(set).toMatchObject({
      sequenceLengthBp: 300,
      targetLength: 15,
      numTargets: 2,
      cropBp: 30,
      poolWidthBp: 16,
    });
    const rows = (await readFile(join(inToy('loops'), 'sequences.bed'), 'utf8')).trim().split('\n');
    const places = rows.map((row) => row.split('\t'));
    expect(result.records).toEqual({ train: 34, valid: 13, test: 16 });
    let row = 0;
    for (const split of ['train', 'valid', 'test']) {
      for await (const { record } of set.stream(split)) {
        const [chrom, from, to, named] = places[row++]!;
        const [start, end] = [Number(from), Number(to)];
        expect([named, end - start]).toEqual([split, 240]);
        const letters = toy.letters[chrom!]!.toUpperCase();
        const sequence = Array.from({ length: 300 }, (_, i) =>
          'ACGT'.indexOf(letters[start - 30 + i] ?? 'N'),
        );
        expect([...record.sequence]).toEqual(sequence.map((code) => (code < 0 ? 4 : code)));
        const [a, b] = [coverage(toy.values[0]!, chrom!), coverage(toy.values[1]!, chrom!.slice(3))];
        const expected = Array.from({ length: 15 }, (_, bin) => {
          const sum = (values: Float64Array): number =>
            values.subarray(start + 16 * bin, start + 16 * (bin + 1)).reduce((x, y) => x + y, 0);
          const root = Math.sqrt(1 + 0.5 * sum(b)) - 1;
          return [Math.min(sum(a) / 16, 12), root > 4 ? 3 + Math.sqrt(root - 3) : root];
        });
        expect(record.targets).toEqual({ dtype: 'f16', data: f32ToF16(expected.flat()) });
      }
    }
    expect(row).toBe(places.length);
  });

  it('is the same for any memory and threads, and another order for another seed', async () => {
    const shards = async (name: string): Promise<Buffer[]> => {
      const dir = join(inToy(name), 'tfrecords');
      const names = (await readdir(dir)).toSorted();
      expect(names).toEqual(
        [
          'test-0.tfr',
          'test-1.tfr',
          'train-0.tfr',
          'train-1.tfr',
          'train-2.tfr',
          'valid-0.tfr',
          'valid-1.tfr',
        ].filter((file) => names.includes(file)),
      );
      return await Promise.all(names.map((file) => readFile(join(dir, file))));
    };
    const few = { recordsPerShard: 12 };
    await run('whole', options(few));
    await run('small', options({ ...few, memoryBytes: 300 }));
    await run('threads', options({ ...few, memoryBytes: 2000 }), 3);
    await run('other', options({ ...few, seed: 45 }));
    expect(await shards('small')).toEqual(await shards('whole'));
    expect(await shards('threads')).toEqual(await shards('whole'));
    const accounts = ['whole', 'threads'].map(async (name) =>
      JSON.parse(await readFile(join(inToy(name), 'provenance.json'), 'utf8')),
    );
    const [whole, threads] = await Promise.all(accounts);
    expect(threads.tracks).toEqual(whole.tracks);
    expect(await shards('other')).not.toEqual(await shards('whole'));
    const beds = await Promise.all(
      ['whole', 'other'].map((name) => readFile(join(inToy(name), 'sequences.bed'), 'utf8')),
    );
    expect(beds[0]).not.toBe(beds[1]);
    expect(beds[0]!.split('\n').toSorted()).toEqual(beds[1]!.split('\n').toSorted());
  });

  it('avoids gaps and what cannot be mapped to, and holds the rest of that to a quantile', async () => {
    await writeFile(inToy('gaps.bed'), 'chrI\t2000\t2100\nchrI\t0\t10\n');
    await writeFile(inToy('unmappable.bed'), 'II\t0\t700\nchrIII\t100\t140\n');
    const { plan, result } = await run(
      'masked',
      options({
        ...{
          gaps: inToy('gaps.bed'),
          unmappable: inToy('unmappable.bed'),
          storeUnmappable: true,
          unmappableClip: 0,
          shuffle: false,
        },
        tracks: [track('a')],
      }),
    );
    expect(plan.contigs[0]).toEqual({ chrom: 'chrI', startBp: 10, endBp: 2000, split: 'train' });
    expect(plan.dropped).toEqual({ unmappable: 2, filtered: 0, sampled: 0 });
    expect(result.records).toEqual({ train: 33, valid: 11, test: 16 });
    const set = await openDataset(inToy('masked'));
    const { value } = await set.stream('test').next();
    const targets = f16ToF32(value!.record.targets.data as Uint16Array);
    const least = Math.min(...targets);
    expect([...targets.subarray(6, 9)]).toEqual([least, least, least]);
    expect(targets[5]).toBeGreaterThan(least);
    const bins = [...plan.sequences].map(({ unmappable }) => unmappable!);
    const npy = await readFile(join(inToy('masked'), 'mseqs_unmap.npy'));
    expect(npy.toString('latin1', 0, 10)).toBe('\u0093NUMPY\u0001\0v\0');
    expect(npy.toString('latin1', 10, 128).trimEnd()).toBe(
      "{'descr': '|b1', 'fortran_order': False, 'shape': (60, 15), }",
    );
    expect([...npy.subarray(128)]).toEqual(bins.flatMap((row) => [...row]));
    expect(npy.subarray(128).filter((bin) => bin === 1).length).toBe(7 + 3); // of chrII from 600, and of chrIII from 0
    const stored: number[][] = [];
    for (const split of ['train', 'valid', 'test'])
      for await (const { data } of readRecords(join(inToy('masked'), `tfrecords/${split}-0.tfr`))) {
        const found = decodeExample(data).get('umap');
        stored.push(found?.kind === 'bytes' ? [...found.values[0]!] : []);
      }
    expect(stored).toEqual(bins.map((row) => [...row]));
    expect(await problems({ storeUnmappable: true })).toContain('there is no BED of unmappable stretches');
  });

  it('holds each track to a quantile of all its targets', async () => {
    const tracks = [track('a'), track('b', { statistic: 'sum' })];
    await run('free', options({ tracks }));
    const { result } = await run('held', options({ tracks, extremeQuantile: 0.95 }), 2);
    const values = async (name: string): Promise<Float32Array[]> => {
      const all: number[][] = [[], []];
      const set = await openDataset(inToy(name));
      for (const split of ['train', 'valid', 'test'])
        for await (const { record } of set.stream(split))
          for (const [i, value] of f16ToF32(record.targets.data as Uint16Array).entries())
            all[i % 2]!.push(value);
      return all.map((list) => Float32Array.from(list));
    };
    const [free, held] = [await values('free'), await values('held')];
    for (const column of [0, 1]) {
      const sorted = free[column]!.toSorted();
      const place = 0.95 * (sorted.length - 1);
      const low = sorted[Math.floor(place)]!;
      const limit = low + (sorted[Math.ceil(place)]! - low) * (place % 1);
      const most = f16ToF32(f32ToF16([limit]))[0]!;
      expect(held[column]).toEqual(free[column]!.map((value) => (value > limit ? most : value)));
      expect(result.tracks[column]!.clippedFraction).toBe(
        free[column]!.filter((value) => value > limit).length / sorted.length,
      );
    }
  });

  it('takes places and splits from a published sequences.bed, and centres longer sequences on them', async () => {
    await run('first', options());
    const bed = join(inToy('first'), 'sequences.bed');
    const chosen = { split: { kind: 'sequences', path: bed } as const, shuffle: false };
    await run('again', options(chosen));
    for (const file of ['sequences.bed', 'targets.txt', 'statistics.json', 'tfrecords/train-0.tfr'])
      expect(await readFile(join(inToy('again'), file))).toEqual(await readFile(join(inToy('first'), file)));
    await writeFile(inToy('bare.bed'), (await readFile(bed, 'utf8')).replaceAll('chr', ''));
    const bare = await run(
      'bare',
      options({ ...chosen, split: { kind: 'sequences', path: inToy('bare.bed') } }),
    );
    expect(await readFile(join(inToy('bare'), 'sequences.bed'))).toEqual(await readFile(bed));
    expect(bare.plan.notes).toContainEqual(expect.stringMatching(/bare\.bed: I+ is taken for chrI+, /));
    const { plan } = await run('longer', options({ ...chosen, sequenceLengthBp: 800, cropBp: 304 }));
    const [first] = (await readFile(bed, 'utf8')).split('\t');
    const start = Number((await readFile(bed, 'utf8')).split('\t')[1]);
    expect(plan.sequences.at(0)).toEqual({
      chrom: first,
      startBp: start + 24,
      endBp: start + 216,
      split: 'train',
    });
  });

  it('gives the same records, orders and positions without writing them', async () => {
    const { plan } = await run('written', options());
    const files = await openDataset(inToy('written'));
    const direct = await openIntervals(await planPrepare(options()));
    expect(await direct.count('valid')).toBe(13);
    const shuffled = { shuffle: { seed: 3, buffer: 5 }, repeat: true };
    const theirs = files.stream('valid', shuffled);
    let position: StreamPosition | undefined;
    let taken = 0;
    for await (const streamed of direct.stream('valid', shuffled)) {
      expect(streamed).toEqual((await theirs.next()).value);
      if (++taken === 17) position = streamed.position;
      if (taken === 30) break;
    }
    const on = { ...shuffled, position: position! };
    expect((await direct.stream('valid', on).next()).value).toEqual(
      (await files.stream('valid', on).next()).value,
    );
    const batch = (await direct.batches('train', { batch: 5 }).next()).value!;
    expect(batch.ids).toEqual([0, 1, 2, 3, 4]);
    expect(await direct.read(plan.sequences.at(4))).toEqual(batch.records[4]);
    const from = { chrom: 'chrIII', startBp: 4760, endBp: 5000 };
    const { sequence } = await direct.read(from);
    expect([...sequence.subarray(270)]).toEqual(new Array(30).fill(4));
    await expect(direct.read({ ...from, endBp: 4990 })).rejects.toThrow('has 230 bp; targets are of 240 bp');
    await expect(direct.read({ ...from, startBp: 4770, endBp: 5010 })).rejects.toThrow('not inside chrIII');
    await direct.close();
  });

  it('says where the data is from, in JSON and on a page', async () => {
    const { result } = await run('account', options({ tracks: [track('a', { clip: 5 })] }));
    const account = JSON.parse(await readFile(join(inToy('account'), 'provenance.json'), 'utf8'));
    expect(account).toMatchObject({ records: result.records, options: { sequenceLengthBp: 300, seed: 44 } });
    expect(
      account.inputs.map(({ path, sha256 }: { path: string; sha256: string }) => [
        basename(path),
        sha256.length,
      ]),
    ).toEqual([
      ['genome.fa', 64],
      ['a.bw', 64],
    ]);
    const set = await openDataset(inToy('account'));
    const values: number[] = [];
    for (const split of ['train', 'valid', 'test'])
      for await (const { record } of set.stream(split))
        values.push(...f16ToF32(record.targets.data as Uint16Array));
    const [summary] = account.tracks;
    expect(summary.mean).toBeCloseTo(values.reduce((a, b) => a + b, 0) / values.length, 10);
    expect([summary.min, summary.max]).toEqual([Math.min(...values), Math.max(...values)]);
    expect(summary.zeroFraction).toBe(values.filter((x) => x === 0).length / values.length);
    expect(summary.clippedFraction).toBe(values.filter((x) => x === 5).length / values.length);
    expect(summary.histogram.reduce((a: number, b: number) => a + b, 0)).toBe(values.length);
    expect(summary.missingFraction).toBeGreaterThan(0.05);
    expect(result.warnings.join()).toContain('bins clipped');
    const page = await readFile(join(inToy('account'), 'provenance.html'), 'utf8');
    expect(page).toContain(account.inputs[1].sha256);
    expect(page).not.toMatch(/(src|href)=/);
  });
});

describe('cohesin prepare', () => {
  const SIZES = ['--length', '300', '--crop', '30', '--bin', '16', '--valid', 'chrII', '--test', 'chrIII'];

  it('makes the data set of a table of tracks, and says what it did', async () => {
    await writeFile(
      inToy('table.txt'),
      '\tidentifier\tfile\tclip\tclip_soft\tscale\tsum_stat\tdescription\n0\ta\ta.bw\t12\t\t1.0\tmean\ta\n1\tb\tb.bw\t\t4\t0.5\tsum_sqrt\tb\n',
    );
    const args = [
      'prepare',
      '--genome',
      inToy('genome.fa'),
      '--targets',
      inToy('table.txt'),
      ...SIZES,
      '--stride',
      '170',
    ];
    const { code, lines, errors } = await cohesin([...args, '--out', inToy('by-command')]);
    expect([code, errors]).toEqual([0, '']);
    expect(lines.join('\n')).toMatch(
      /note: .*b\.bw: I is taken for chrI[\s\S]*63 sequences \(34 train, 13 valid, 16 test; 0 dropped as unmappable\)[\s\S]*a: mean \d+\.\d+, max 12/,
    );
    await run('by-call', options());
    for (const file of ['sequences.bed', 'statistics.json', 'tfrecords/test-0.tfr'])
      expect(await readFile(join(inToy('by-command'), file))).toEqual(
        await readFile(join(inToy('by-call'), file)),
      );
    const json = await cohesin([...args, '--out', inToy('not-made'), '--check', '--json']);
    expect(json.lines.map((line) => JSON.parse(line))).toMatchObject([
      { event: 'plan', records: { train: 34, valid: 13, test: 16 } },
    ]);
    expect(existsSync(inToy('not-made'))).toBe(false);
  });

  it.each([
    [
      ['--targets', 'a', '--tracks', 'b'],
      'needs one of --targets FILE, --tracks A.bw,B.bw and --contacts A.cool,B.hic',
    ],
    [['--tracks', 'none.bw'], 'none.bw: ENOENT'],
  ])('%j is refused with code 78', async (args, message) => {
    const { code, errors } = await cohesin([
      'prepare',
      '--genome',
      inToy('genome.fa'),
      '--out',
      inToy('x'),
      ...SIZES,
      ...args,
    ]);
    expect(errors).toContain(message);
    expect(code).toBe(78);
  });
});

describe(`prepare on yeast${real ? '' : ` (skipped: ${YEAST} or ${GOLDEN} is absent; set COHESIN_SHARED)`}`, () => {
  const SETS = {
    basenji_index: {
      sequenceLengthBp: 16_384,
      cropBp: 2048,
      strideTrainBp: 12_288,
      strideTestBp: 12_288,
      sequence: 'codes',
    },
    basenji_onehot: {
      sequenceLengthBp: 2048,
      cropBp: 0,
      strideTrainBp: 131_072,
      strideTestBp: 131_072,
      sequence: 'one-hot',
    },
  } as const;

  it.runIf(real).each([
    ['basenji_index', 'f16', 'f16nt', 0],
    ['basenji_index', 'f32', 'f32nt', 0],
    ['basenji_index', 'f64', 'f32nt', 14], // of 127,680, where the sum in f32 falls on the other side of a rounding to f16
    ['basenji_onehot', 'f16', 'f16nt', 0],
    ['basenji_onehot', 'f32', 'f32nt', 0],
    ['basenji_onehot', 'f64', 'f32nt', 0],
  ] as const)(
    '%s in %s gives the sequences and the targets of %s',
    { timeout: 60_000 },
    async (name, precision, reference, others) => {
      const golden = join(GOLDEN, name);
      const table = await readTrackTable(join(golden, 'targets.txt'));
      const beds = Object.fromEntries(
        ['gaps', 'blacklist', 'unmappable'].map((bed) => [bed, join(golden, `${bed}.bed`)]),
      );
      const dir = `${name}-${precision}`;
      const { plan } = await run(dir, {
        ...PREPARE_DEFAULTS,
        ...SETS[name],
        ...beds,
        genome: join(YEAST, 'sacCer3.2bit'),
        tracks: table.map((row) => ({ ...row, file: join(YEAST, basename(row.file)) })),
        chromosomes: ['chrII', 'chrIV', 'chrXVI'],
        split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrXVI'] },
        ...{ breakAboveBp: 262_144, shuffle: false, precision },
      });
      for (const file of ['sequences.bed', 'contigs.bed'])
        expect(await readFile(join(inToy(dir), file), 'utf8')).toBe(
          await readFile(join(golden, file), 'utf8'),
        );
      for (const file of ['statistics.json'])
        expect(JSON.parse(await readFile(join(inToy(dir), file), 'utf8'))).toEqual(
          JSON.parse(await readFile(join(golden, file), 'utf8')),
        );
      expect(plan.dropped.unmappable).toBe(name === 'basenji_index' ? 1 : 0);
      const npy = await readFile(join(golden, `expected_targets_${reference}.npy`));
      const expected = new Uint16Array(new Uint8Array(npy.subarray(128)).buffer);
      const [made, published] = [await openDataset(inToy(dir)), await openDataset(golden)];
      let [at, differing, furthest] = [0, 0, 0];
      for (const split of ['train', 'valid', 'test']) {
        const theirs = published.stream(split);
        for await (const { record } of made.stream(split)) {
          expect(Buffer.compare(record.sequence, (await theirs.next()).value!.record.sequence)).toBe(0);
          for (const bits of record.targets.data) {
            const distance = Math.abs(bits - expected[at++]!);
            furthest = Math.max(furthest, distance);
            differing += distance;
          }
        }
      }
      expect([at, differing]).toEqual([expected.length, others]);
      expect(furthest).toBeLessThanOrEqual(1); // the last bit of f16
    },
  );
});
