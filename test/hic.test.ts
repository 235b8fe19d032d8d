/** Contact maps in `.hic` files: every window, what the library would pass over in silence, and data sets made of them. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type ContactOptions,
  inspect,
  openContacts,
  PREPARE_DEFAULTS,
  type PrepareOptions,
  planPrepare,
  runPrepare,
} from '@cohesin/io';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cohesin } from './cohesin.ts';
import { type ToyCooler, toyContacts, writeCooler } from './toy-cooler.ts';
import { writeToy } from './toy-genome.ts';
import { writeHic } from './toy-hic.ts';

const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const REAL = join(SHARED, 'data/formats/test_chr22.hic');
const real = existsSync(REAL);

const BIN = 100;
let folder: string;
let toy: ToyCooler;
const inFolder = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hic-'));
  writeToy(folder);
  const drawn = toyContacts(BIN, { I: 6000, II: 4001, III: 5000 }, 6);
  // Powers of two: products of weights and quotients by their inverses are then the same numbers.
  toy = { ...drawn, weights: drawn.weights.map((weight) => 2 ** Math.round(Math.log2(weight))) };
  writeHic(inFolder('toy.hic'), toy);
  await writeCooler(inFolder('toy.cool'), toy);
});
afterAll(() => rm(folder, { recursive: true }));

describe('a .hic file', () => {
  it('gives the contacts of the cooler with the same counts and weights, in any window', async () => {
    const [hic, cooler] = [await openContacts(inFolder('toy.hic')), await openContacts(inFolder('toy.cool'))];
    expect([hic.binBp, ...hic.chromosomes]).toEqual([BIN, ['I', 6000], ['II', 4001], ['III', 5000]]);
    for (const [chrom, start, end] of [
      ['I', 0, 6000],
      ['I', 1500, 1700],
      ['II', 0, 4000],
      ['II', 1600, 3300],
      ['III', 700, 700],
      ['III', 4900, 5000],
    ] as const) {
      const window = await hic.read(chrom, start, end);
      expect(window).toEqual(await cooler.read(chrom, start, end));
      expect(window.bins).toBe((end - start) / BIN);
    }
    const counts = await openContacts(inFolder('toy.hic'), { normalization: 'NONE' });
    const { balanced, counts: same } = await counts.read('II', 0, 4000);
    expect(balanced).toEqual(same);
    await Promise.all([hic.close(), counts.close()]);
  });

  it('refuses what its library would answer with silence, zeros or raw counts', async () => {
    const map = await openContacts(inFolder('toy.hic'));
    await expect(map.read('chrI', 0, 1000)).rejects.toThrow('no chromosome chrI; it has I, II, III');
    await expect(map.read('All', 0, 0)).rejects.toThrow('no chromosome All');
    await expect(map.read('II', 3000, 4100)).rejects.toThrow('not inside II, which has 4001 bp');
    await expect(map.read('I', 50, 1050)).rejects.toThrow('does not begin and end with bins of 100 bp');
    await map.close();
    await expect(openContacts(inFolder('toy.hic'), { binBp: 50 })).rejects.toThrow(
      'toy.hic: has bins of 100 bp; none of 50',
    );
    await expect(openContacts(inFolder('toy.hic'), { normalization: 'VC' })).rejects.toThrow(
      'no chromosome is normalized by VC in bins of 100 bp; it has KR: choose one of them',
    );
    writeHic(inFolder('raw.hic'), toy, { normalization: '' });
    await expect(openContacts(inFolder('raw.hic'))).rejects.toThrow(
      'no chromosome is normalized by KR in bins of 100 bp; it has none: run `juicer_tools addNorm`',
    );
    await expect(openContacts(inFolder('toy.cool'), { normalization: 'KR' })).rejects.toThrow(
      'coolers are balanced by bins/weight; KR is of .hic files',
    );
  });

  it('that is damaged or cut is refused wherever it is', async () => {
    const bytes = await readFile(inFolder('toy.hic'));
    const read = async (damaged: Buffer): Promise<unknown> => {
      await writeFile(inFolder('damaged.hic'), damaged);
      const map = await openContacts(inFolder('damaged.hic'));
      try {
        return await map.read('I', 0, 6000);
      } finally {
        await map.close();
      }
    };
    const sound = await read(bytes);
    for (let left = 20; left < bytes.length; left += 97)
      await expect(read(bytes.subarray(0, left))).rejects.toThrow(
        /damaged\.hic: .*(damaged|normalized|no chromosome)/,
      );
    const first = bytes.indexOf(Buffer.from([0x78, 0x9c]));
    const flipped = Buffer.from(bytes);
    flipped[first + 40]! ^= 4;
    await expect(read(flipped)).rejects.toThrow(/I:0-6000: the \.hic file is damaged.*block 0 at byte \d+/);
    expect(await read(bytes)).toEqual(sound);
  });

  it('is known to inspect, balanced or not', async () => {
    const found = await inspect(inFolder('toy.hic'));
    expect(found).toMatchObject({
      what: 'contact map (.hic, version 8): 3 chromosomes, looked at in bins of 100 bp',
      warnings: [],
      problems: [],
    });
    expect(found.facts).toContainEqual(['balanced by', 'KR']);
    expect(found.tables[0]!.rows[0]!.slice(0, 4)).toEqual(['I', '6,000', '60', '6']);
    expect(found.maps[0]).toMatchObject({ side: 60 });
    expect((await inspect(inFolder('raw.hic'))).warnings).toEqual([
      expect.stringContaining('is not balanced'),
    ]);
  });
});

describe('prepare on a .hic file', () => {
  const options = (contacts: string, more: Partial<ContactOptions> = {}): PrepareOptions => ({
    ...PREPARE_DEFAULTS,
    genome: inFolder('genome.fa'),
    tracks: [{ file: inFolder(contacts), identifier: 'toy', description: '', statistic: 'mean', scale: 1 }],
    contacts: { diagonalOffset: 2, clip: 2, smoothing: 0, ...more },
    split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrIII'] },
    ...{ sequenceLengthBp: 2000, cropBp: 200, poolWidthBp: BIN, snapBp: BIN, shuffle: false },
    ...{ strideTrainBp: 500, strideTestBp: 1000 },
  });

  it('writes, byte for byte, what it writes of the cooler', async () => {
    const plan = await planPrepare(options('toy.cool'));
    await runPrepare(inFolder('of-cool'), plan);
    await plan.close();
    const { code, errors } = await cohesin([
      ...['prepare', '--genome', inFolder('genome.fa'), '--contacts', inFolder('toy.hic')],
      ...['--normalization', 'KR', '--bin', '100', '--length', '2000', '--crop', '200', '--stride', '500'],
      ...['--stride-test', '1000', '--valid', 'chrII', '--test', 'chrIII', '--keep-order'],
      ...['--threads', '2', '--out', inFolder('of-hic')],
    ]);
    expect([code, errors]).toEqual([0, '']);
    for (const file of ['sequences.bed', 'statistics.json', 'tfrecords/train-0.tfr', 'tfrecords/test-0.tfr'])
      expect(await readFile(join(inFolder('of-hic'), file))).toEqual(
        await readFile(join(inFolder('of-cool'), file)),
      );
  });

  it('says which chromosomes lack the normalization, and which there are', async () => {
    writeHic(inFolder('part.hic'), toy, { without: 'III' });
    await expect(planPrepare(options('part.hic'))).rejects.toThrow(
      'part.hic: has no data on 1 of 3 chromosomes: chrIII (III lack KR in bins of 100 bp); choose chromosomes that every track has (chrI, chrII)',
    );
    await expect(planPrepare(options('toy.hic', { normalization: 'VC_SQRT' }))).rejects.toThrow(
      'no chromosome is normalized by VC_SQRT in bins of 100 bp; it has KR',
    );
    await expect(planPrepare(options('toy.hic', { normalization: 'NONE' }))).rejects.toThrow(
      'choose a normalization other than NONE',
    );
  });
});

describe(`a real .hic file${real ? '' : ` (skipped: ${REAL} is absent; set COHESIN_SHARED)`}`, () => {
  // Found by a reader in Python with the standard library alone.
  it.runIf(real).each([
    [{ binBp: 100_000 }, 20e6, 30e6, { contacts: 10_620, sum: 9944.580531835061, filtered: 0 }],
    [{ binBp: 5000 }, 30e6, 30.64e6, { contacts: 615, sum: 0, filtered: 128 }],
  ] as const)('has the contacts that another reader found: %j', async (options, start, end, expected) => {
    const map = await openContacts(REAL, options);
    const { bins, balanced, counts } = await map.read('22', start, end);
    await map.close();
    const contacts = (counts as Float64Array).reduce((sum, count) => sum + count, 0);
    const sum = balanced.reduce((total, value) => total + (value || 0), 0);
    const filtered = Array.from({ length: bins }, (_, bin) => balanced[bin * bins + bin]!).filter(
      Number.isNaN,
    );
    expect([contacts, filtered.length]).toEqual([expected.contacts, expected.filtered]);
    expect(Math.abs(sum - expected.sum)).toBeLessThan(1e-12 * expected.sum + 1e-300);
    if (expected.filtered === 0) expect(balanced[3 * bins + 4]).toBe(3.710991697204984);
  });
});
