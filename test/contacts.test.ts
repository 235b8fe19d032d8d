/** Cooler files, and data sets of contact maps made of them. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  contactTargets,
  describeDataset,
  f16ToF32,
  f32ToF16,
  inspect,
  openContacts,
  openDataset,
  openIntervals,
  PREPARE_DEFAULTS,
  type PrepareOptions,
  planPrepare,
  runPrepare,
} from '@cohesin/io';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cohesin } from './cohesin.ts';
import { type ToyCooler, toyContacts, writeCooler } from './toy-cooler.ts';
import { TOY_LENGTHS, writeToy } from './toy-genome.ts';

const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const YEAST = join(SHARED, 'data/yeast');
const GOLDEN = join(SHARED, 'golden/io/akita');
const real = existsSync(YEAST) && existsSync(GOLDEN);

const BIN = 100;
let folder: string;
let toy: ToyCooler;
const inFolder = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'contacts-'));
  writeToy(folder);
  toy = toyContacts(BIN, { I: 6000, II: 4001, III: 5000 }, 6);
  await writeCooler(inFolder('toy.cool'), toy);
  await writeCooler(inFolder('toy.mcool'), toy, 'resolutions/100');
  await writeCooler(inFolder('raw.cool'), { ...toy, weights: [] });
});
afterAll(() => rm(folder, { recursive: true }));

/** The window of a chromosome whose first bin is `first`, by plain loops. */
function expectedWindow(first: number, bins: number): { counts: Float64Array; balanced: Float64Array } {
  const [counts, balanced] = [new Float64Array(bins * bins), new Float64Array(bins * bins)];
  for (let row = 0; row < bins; row++) {
    for (let column = 0; column < bins; column++) {
      const [low, high] = [Math.min(row, column) + first, Math.max(row, column) + first];
      const count = toy.counts.get(`${low} ${high}`) ?? 0;
      counts[row * bins + column] = count;
      balanced[row * bins + column] = count * toy.weights[row + first]! * toy.weights[column + first]!;
    }
  }
  return { counts, balanced };
}

describe('a cooler', () => {
  it.each(['toy.cool', 'toy.mcool'])('%s gives counts and balanced contacts of any window', async (name) => {
    const map = await openContacts(inFolder(name), name === 'toy.mcool' ? { binBp: BIN } : {});
    expect([map.binBp, ...map.chromosomes]).toEqual([BIN, ['I', 6000], ['II', 4001], ['III', 5000]]);
    expect(await map.read('I', 0, 2000)).toEqual({ bins: 20, ...expectedWindow(0, 20) });
    expect(await map.read('III', 1300, 2500)).toEqual({ bins: 12, ...expectedWindow(60 + 41 + 13, 12) });
    expect(await map.read('II', 700, 700)).toEqual({ bins: 0, ...expectedWindow(0, 0) });
  });

  it('says which bins balancing has filtered', async () => {
    const map = await openContacts(inFolder('toy.cool'));
    expect([...(await map.filtered('II'))]).toEqual(
      toy.weights.slice(60, 60 + 40).map((weight) => (Number.isNaN(weight) ? 1 : 0)), // of 41 the last is no whole bin
    );
  });

  it('with more contacts than are read at a time gives all of them', async () => {
    const many = toyContacts(BIN, { I: 40_000 }, 8);
    const filled = Array.from({ length: 400 }, (_, row) => row).flatMap((row) =>
      Array.from({ length: 400 - row }, (_, i) => [`${row} ${row + i}`, 1 + ((row * i) % 7)] as const),
    );
    expect(filled.length).toBeGreaterThan(2 ** 16);
    await writeCooler(inFolder('many.cool'), { ...many, counts: new Map(filled) });
    const { counts } = await (await openContacts(inFolder('many.cool'))).read('I', 0, 40_000);
    for (const [key, count] of filled) {
      const [row, column] = key.split(' ').map(Number);
      if (counts[row! * 400 + column!] !== count || counts[column! * 400 + row!] !== count)
        expect([key, counts[row! * 400 + column!]]).toEqual([key, count]);
    }
  });

  it('refuses other places, other files, and files that are not balanced', async () => {
    const map = await openContacts(inFolder('toy.cool'));
    await expect(map.read('I', 50, 1050)).rejects.toThrow('does not begin and end with bins of 100 bp');
    await expect(map.read('chrI', 0, 1000)).rejects.toThrow('no chromosome chrI; it has I, II, III');
    await expect(map.read('II', 3000, 4100)).rejects.toThrow('not inside II, which has 4001 bp');
    await expect(openContacts(inFolder('toy.mcool'))).rejects.toThrow('has bins of 100 bp; choose one');
    await expect(openContacts(inFolder('toy.cool'), { binBp: 200 })).rejects.toThrow(
      'bins are of 100 bp, not 200',
    );
    await expect(openContacts(inFolder('raw.cool'))).rejects.toThrow('raw.cool: is not balanced');
    const bytes = await readFile(inFolder('toy.cool'));
    await writeFile(inFolder('cut.cool'), bytes.subarray(0, bytes.length - 5000));
    await expect(openContacts(inFolder('cut.cool'))).rejects.toThrow(/cut\.cool: HDF5: .*cut short/);
    await expect(openContacts(inFolder('none.cool'))).rejects.toThrow(/none\.cool/);
  });

  it('is known to inspect', async () => {
    const found = await inspect(inFolder('toy.cool'));
    expect(found).toMatchObject({
      what: 'contact map (cooler): 3 chromosomes, looked at in bins of 100 bp',
      problems: [],
    });
    expect(found.tables[0]!.rows[0]!.slice(0, 4)).toEqual(['I', '6,000', '60', '6']);
  });
});

describe('prepare on contact maps', () => {
  const options = (more: Partial<PrepareOptions> = {}): PrepareOptions => ({
    ...PREPARE_DEFAULTS,
    genome: inFolder('genome.fa'),
    tracks: [
      { file: inFolder('toy.cool'), identifier: 'toy', description: 'toy', statistic: 'mean', scale: 1 },
    ],
    contacts: { diagonalOffset: 2, clip: 2, smoothing: 1 },
    split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrIII'] },
    ...{
      sequenceLengthBp: 2000,
      cropBp: 200,
      poolWidthBp: BIN,
      snapBp: BIN,
      strideTrainBp: 500,
      strideTestBp: 1000,
    },
    ...{ shuffle: false, ...more },
  });

  it('writes the upper triangles of whole sequences', async () => {
    const plan = await planPrepare(options());
    const { records, warnings } = await runPrepare(inFolder('maps'), plan);
    expect([records, warnings]).toEqual([{ train: 9, valid: 3, test: 4 }, []]);
    const set = await openDataset(inFolder('maps'));
    expect(set).toMatchObject({
      diagonalOffset: 2,
      targetLength: (14 * 15) / 2,
      cropBp: 200,
      poolWidthBp: BIN,
    });
    const direct = await openIntervals(plan);
    let at = 0;
    for (const [split, offset] of [
      ['train', 0],
      ['valid', 60],
      ['test', 101],
    ] as const) {
      for await (const { record } of set.stream(split)) {
        const { startBp } = plan.sequences.at(at);
        expect(await direct.read(plan.sequences.at(at++))).toEqual(record);
        const window = { bins: 20, ...expectedWindow(offset + startBp / BIN, 20) };
        const transform = { diagonalOffset: 2, clip: 2, smoothing: 1, cropBins: 2 };
        expect(record.targets.data).toEqual(f32ToF16(contactTargets(window, transform)));
      }
    }
    expect(at).toBe(16);
    await direct.close();
  });

  it('counts the logarithms that end at the clip', async () => {
    const plan = await planPrepare(options({ contacts: { diagonalOffset: 2, clip: 0.25, smoothing: 0 } }));
    const { tracks } = await runPrepare(inFolder('clipped'), plan).finally(() => plan.close());
    const set = await openDataset(inFolder('clipped'));
    let [ends, all] = [0, 0];
    for (const split of ['train', 'valid', 'test'])
      for await (const { record } of set.stream(split))
        for (const value of f16ToF32(record.targets.data as Uint16Array)) {
          if (Math.abs(value) === 0.25) ends++;
          all++;
        }
    const share = tracks[0]!.clippedFraction;
    expect(ends / all).toBeGreaterThan(0.1);
    // Values between two of the filled bins that are both at the clip are there too, but were not clipped themselves.
    expect(share).toBeLessThanOrEqual(ends / all);
    expect(share).toBeGreaterThan(0.7 * (ends / all));
  });

  it('leaves out sequences whose contacts are all filtered, and says so', async () => {
    const weights = toy.weights.map((weight, bin) => (bin < 32 ? Number.NaN : weight));
    await writeCooler(inFolder('filtered.cool'), { ...toy, weights });
    const [track] = options().tracks;
    const plan = await planPrepare(options({ tracks: [{ ...track!, file: inFolder('filtered.cool') }] }));
    const { records, warnings } = await runPrepare(inFolder('fewer'), plan);
    await plan.close();
    expect(records).toEqual({ train: 6, valid: 3, test: 4 });
    expect(await describeDataset(inFolder('fewer-direct'), plan)).toEqual(records);
    const theirs = (await openDataset(inFolder('fewer'))).stream('train');
    for await (const streamed of (await openDataset(inFolder('fewer-direct'))).stream('train'))
      expect(streamed).toEqual((await theirs.next()).value);
    expect((await theirs.next()).done).toBe(true);
    expect(plan.dropped).toEqual({ unmappable: 0, filtered: 3, sampled: 0 });
    expect(warnings).toEqual([
      `${inFolder('filtered.cool')}: balancing filters 35 of 60 bins of chrI (58.3 %)`,
      "3 of 16 sequences have no valid contact at 2 bins' distance, where balancing or the blacklist takes all out; they are left out",
    ]);
    const noTest = toy.weights.map((weight, bin) => (bin < 101 ? weight : Number.NaN));
    await writeCooler(inFolder('no-test.cool'), { ...toy, weights: noTest });
    await expect(
      planPrepare(options({ tracks: [{ ...track!, file: inFolder('no-test.cool') }] })),
    ).rejects.toThrow(
      'no sequences in test (sequences: train 9, valid 3; 0 dropped as unmappable); 4 have no valid contact',
    );
    const bed = await readFile(join(inFolder('fewer'), 'sequences.bed'), 'utf8');
    expect(bed.split('\n')[0]).toBe('chrI\t1500\t3500\ttrain');
  });

  it('finds bins, lengths and sizes that do not fit', async () => {
    const message = async (more: Partial<PrepareOptions>): Promise<string> =>
      await planPrepare(options(more)).then(
        async ({ close, warnings }) => {
          await close();
          return warnings.join();
        },
        (error: Error) => error.message,
      );
    expect(await message({ snapBp: 1 })).toContain(
      'snapBp 1, cropBp 200 and sequenceLengthBp 2000 must be multiples of poolWidthBp 100',
    );
    expect(await message({ poolWidthBp: 50, snapBp: 50 })).toContain('toy.cool: bins are of 100 bp, not 50');
    await writeCooler(inFolder('short.cool'), toyContacts(BIN, { ...TOY_LENGTHS, chrI: 5999 }, 6));
    const tracks = [{ ...options().tracks[0]!, file: inFolder('short.cool') }];
    expect(await message({ tracks })).toContain("chrI has 5999 bp but the genome's chrI has 6000");
    expect(await message({ tracks, lengthToleranceBp: 1 })).toMatch(
      /ends before 1 of the sequences, first chrI:4000-6000/,
    );
    expect(await message({ tracks, lengthToleranceBp: 1, strideTrainBp: 700 })).toMatch(
      /^[^\n]*short\.cool: 1 chromosomes have other lengths, by up to 1 bp/,
    );
  });

  it('is a command', async () => {
    const args = [
      'prepare',
      '--genome',
      inFolder('genome.fa'),
      '--contacts',
      inFolder('toy.mcool'),
      '--out',
      inFolder('by-command'),
    ];
    const sizes = [
      '--bin',
      '100',
      '--length',
      '2000',
      '--crop',
      '200',
      '--stride',
      '500',
      '--stride-test',
      '1000',
      '--smooth',
      '1',
    ];
    const { code, errors } = await cohesin([
      ...args,
      ...sizes,
      '--valid',
      'chrII',
      '--test',
      'chrIII',
      '--keep-order',
    ]);
    expect([code, errors]).toEqual([0, '']);
    for (const file of ['sequences.bed', 'statistics.json', 'tfrecords/train-0.tfr'])
      expect(await readFile(join(inFolder('by-command'), file))).toEqual(
        await readFile(join(inFolder('maps'), file)),
      );
  });
});

describe(`yeast at 10 kb${real ? '' : ` (skipped: ${YEAST} or ${GOLDEN} is absent; set COHESIN_SHARED)`}`, () => {
  it.runIf(real)(
    'has the contacts that another reader found: logarithms over the mean at each distance',
    async () => {
      const map = await openContacts(join(YEAST, 'yeast.10kb.cool'));
      const theirs = (await openDataset(GOLDEN)).stream('train');
      const bed = (await readFile(join(GOLDEN, 'sequences.bed'), 'utf8')).trim().split('\n');
      for (const row of bed) {
        const [chrom, start, end] = row.split('\t');
        const { bins, balanced } = await map.read(chrom!, Number(start), Number(end));
        const at = (low: number, high: number): number => balanced[low * bins + high]!;
        const means = Array.from({ length: bins }, (_, apart) => {
          const seen = Array.from({ length: bins - apart }, (_, i) => at(i, i + apart)).filter(
            (x) => !Number.isNaN(x),
          );
          return seen.reduce((sum, value) => sum + value, 0) / seen.length;
        });
        const targets: number[] = [];
        for (let low = 4; low < bins - 4; low++) {
          for (let high = low + 2; high < bins - 4; high++) {
            const log = Math.log(at(low, high) / means[high - low]!);
            targets.push(Number.isNaN(log) ? 0 : Math.min(Math.max(log, -2), 2));
          }
        }
        expect(f32ToF16(targets)).toEqual((await theirs.next()).value!.record.targets.data);
      }
      expect(bed.length).toBe(13);
    },
  );
});
