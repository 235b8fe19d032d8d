/** Ends of fragments as tracks, and windows around peaks as BPNet and ChromBPNet train on. */
import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import {
  f16ToF32,
  openDataset,
  openFragments,
  openGenome,
  PREPARE_DEFAULTS,
  type PrepareOptions,
  planPrepare,
  readTrackTable,
  runPrepare,
} from '@cohesin/io';
import { numbers } from '@cohesin/io/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TOY_LENGTHS, writeToy } from './toy-genome.ts';

const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const YEAST = join(SHARED, 'data/yeast');
const real = existsSync(YEAST);

let folder: string;
const inFolder = (name: string): string => join(folder, name);
const GENOME = new Map<string, number>(Object.entries(TOY_LENGTHS));
let fragments: { chrom: string; start: number; end: number }[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fragments-'));
  writeToy(folder);
  const draw = numbers(9);
  fragments = Array.from({ length: 3000 }, () => {
    const chrom = ['chrI', 'chrII', 'chrIII'][Math.floor(draw() * 3)]!;
    const start = 10 + Math.floor(draw() * 3700);
    return { chrom, start, end: start + 20 + Math.floor(draw() * 200) };
  });
  const rows = fragments.map(({ chrom, start, end }) => `${chrom.slice(3)}\t${start}\t${end}\n`);
  await writeFile(inFolder('fragments.bed.gz'), gzipSync(rows.join('')));
});
afterAll(() => rm(folder, { recursive: true }));

async function counts(name: string, text: string, options = {}): Promise<Record<number, number>> {
  await writeFile(inFolder(name), text);
  const track = await openFragments(inFolder(name), GENOME, options);
  const values = await track.read('chrI', 0, 6000);
  return Object.fromEntries([...values.entries()].filter(([, count]) => count > 0));
}

describe('fragments', () => {
  it('count both ends, or those of a strand, moved as asked', async () => {
    const text = 'chrI\t100\t150\nchrI\t100\t120\nchrI\t149\t200\n';
    expect(await counts('a.bed', text)).toEqual({ 100: 2, 119: 1, 149: 2, 199: 1 });
    expect(await counts('a.bed', text, { strand: '+', shiftBp: [4, -4] })).toEqual({ 104: 2, 153: 1 });
    expect(await counts('a.bed', text, { strand: '-', shiftBp: [4, -4] })).toEqual({
      115: 1,
      145: 1,
      195: 1,
    });
  });

  it('of a read are its own end, and of a pair its outer ones', async () => {
    const reads = 'I\t100\t150\tr1\t0\t+\nI\t100\t150\tr2\t0\t-\n';
    expect(await counts('reads.bed', reads)).toEqual({ 100: 1, 149: 1 });
    expect(await counts('reads.bed', reads, { strand: '-' })).toEqual({ 149: 1 });
    const pair = 'chrI\t300\t350\tchrI\t180\t230\tp\t60\t-\t+\n';
    expect(await counts('pairs.bedpe', pair)).toEqual({ 180: 1, 349: 1 });
    await expect(counts('pairs.bedpe', pair.replace('chrI\t180', 'chrII\t180'))).rejects.toThrow(
      'line 1: a pair on chrI and chrII is no fragment',
    );
  });

  it('equal a loop in any window', async () => {
    const track = await openFragments(inFolder('fragments.bed.gz'), GENOME);
    for (const [chrom, length] of GENOME) {
      const expected = new Float32Array(length);
      for (const { chrom: on, start, end } of fragments.filter(({ chrom: on }) => on === chrom)) {
        if (on !== chrom) continue;
        expected[start]!++;
        expected[end - 1]!++;
      }
      for (const [start, end] of [
        [0, length],
        [333, 2222],
        [length - 1, length],
        [7, 7],
      ] as const)
        expect(await track.read(chrom, start, end)).toEqual(expected.subarray(start, end));
    }
  });

  it('are the same on disk, in runs, as in memory', async () => {
    const path = inFolder('fragments.bed.gz');
    const [held, spilled] = [
      await openFragments(path, GENOME),
      await openFragments(path, GENOME, { endsBytes: 4000 }), // 500 ends of 6,000
    ];
    for (const [chrom, length] of GENOME)
      for (const [start, end] of [
        [0, length],
        [333, 2222],
        [1000, 1001],
        [length - 1, length],
        [7, 7],
      ] as const)
        expect(await spilled.read(chrom, start, end)).toEqual(await held.read(chrom, start, end));
    await spilled.close();
    await expect(spilled.read('chrI', 0, 6000)).rejects.toThrow(/closed/); // so it was the file that was read
  });

  it('outside the genome are refused', async () => {
    await expect(counts('b.bed', 'chrI\t0\t9\n', { shiftBp: [-1, 0] })).rejects.toThrow(
      'b.bed: line 1: an end at -1 of chrI',
    );
    await expect(counts('b.bed', 'chrI\t5990\t6001\n')).rejects.toThrow(
      'an end at 6000 of chrI, which has 6000 bp',
    );
    await expect(counts('b.bed', 'chr9\t1\t2\n')).rejects.toThrow(
      "no fragments on the genome's chromosomes: it has chr9",
    );
  });

  it.runIf(real)(
    `of yeast are all counted${real ? '' : ` (skipped: ${YEAST} is absent; set COHESIN_SHARED)`}`,
    async () => {
      const genome = await openGenome(join(YEAST, 'sacCer3.2bit'));
      const track = await openFragments(join(YEAST, 'yeast_500k_SRR1822137.bedpe.gz'), genome.chromosomes);
      const totals = new Map<string, number>();
      for (const [chrom, length] of track.chromosomes)
        totals.set(
          chrom,
          (await track.read(chrom, 0, length)).reduce((sum, count) => sum + count, 0),
        );
      expect(totals.get('chrXII')).toBe(2 * 178_501);
      expect([...totals.values()].reduce((sum, count) => sum + count)).toBe(2 * 467_908);
      await genome.close();
    },
  );
});

describe('fragments that tabix has indexed', () => {
  const INDEXED = fileURLToPath(new URL('fixtures/io/fragments/fragments.tsv.gz', import.meta.url));
  /** The fixture as `name`, with the index given. */
  const copied = async (name: string, index?: '.tbi' | '.csi'): Promise<string> => {
    await copyFile(INDEXED, inFolder(name));
    if (index) await copyFile(`${INDEXED}${index}`, inFolder(name) + index);
    return inFolder(name);
  };

  it.each(['.tbi', '.csi'] as const)(
    'are counted by place through %s as without an index, to the last line',
    async (index) => {
      const [whole, byPlace] = [await copied('whole.tsv.gz'), await copied(`by${index}.tsv.gz`, index)];
      let ends = 0;
      for (const options of [
        {},
        { strand: '+', shiftBp: [4, -4] },
        { strand: '-', shiftBp: [0, 5] },
      ] as const) {
        const [held, read] = [
          await openFragments(whole, GENOME, options),
          await openFragments(byPlace, GENOME, options),
        ];
        expect([held.keepOpen, read.keepOpen]).toEqual([true, undefined]);
        expect([...read.chromosomes]).toEqual([...held.chromosomes]);
        for (const chrom of GENOME.keys())
          for (const [start, end] of [
            [0, GENOME.get(chrom)!],
            [333, 2222],
            [1000, 1001],
            [3990, 4001],
            [7, 7],
          ] as const) {
            const counts = await read.read(chrom, start, end);
            expect(counts).toEqual(await held.read(chrom, start, end));
            ends += counts.reduce((sum, count) => sum + count, 0);
          }
        expect(read.warnings).toEqual([
          expect.stringContaining(
            '238 of 901 fragments are on 1 chromosomes the genome has not (IX); they are passed over',
          ),
        ]);
        expect(held.warnings![0]!.replace(whole, byPlace)).toBe(read.warnings![0]);
        await read.close();
      }
      expect(ends).toBeGreaterThan(4 * 663); // both ends, and twice one, over whole chromosomes
    },
  );

  it('are refused with ends outside the genome, however they are moved', async () => {
    const path = await copied('ends.tsv.gz', '.tbi');
    const shorter = new Map([...GENOME, ['chrIII', 4950]] as const);
    for (const file of [path, await copied('ends-whole.tsv.gz')])
      await expect(openFragments(file, shorter)).rejects.toThrow(
        /an end at 49\d\d of (chr)?III, which has 4950 bp; is the file of another assembly/,
      );
    await expect(openFragments(path, GENOME, { shiftBp: [-40, 0] })).rejects.toThrow(
      /an end at -\d+ of chrI/,
    );
    await expect(openFragments(path, new Map([['chr9', 9000]]))).rejects.toThrow(
      "no fragments on the genome's chromosomes: it has IX, I, II, III; the genome has chr9",
    );
  });

  it('are refused when the file or its index is damaged, or the index is of other columns', async () => {
    const whole = async (path: string): Promise<unknown> => {
      const track = await openFragments(path, GENOME);
      try {
        return await track.read('chrII', 0, 4001);
      } finally {
        await track.close();
      }
    };
    const path = await copied('bad.tsv.gz', '.tbi');
    const [bytes, index] = [await readFile(path), await readFile(`${path}.tbi`)];
    const flipped = Buffer.from(bytes);
    flipped[3000]! ^= 8;
    await writeFile(path, flipped);
    await expect(whole(path)).rejects.toThrow(
      'bad.tsv.gz: the BGZF block at byte 0 is damaged: incorrect data check',
    );
    await writeFile(path, bytes.subarray(0, 5000));
    await expect(whole(path)).rejects.toThrow(
      /bad\.tsv\.gz: chrI:0-1: damaged, or its index is of another file/,
    );
    await writeFile(path, bytes);
    await writeFile(`${path}.tbi`, index.subarray(0, 90));
    await expect(whole(path)).rejects.toThrow(/bad\.tsv\.gz\.tbi: no sound index/);
    const unpacked = gunzipSync(index);
    unpacked.writeInt32LE(0, 8); // the coordinates of `tabix -s 1 -b 2 -e 3`: from 1, closed
    await writeFile(`${path}.tbi`, gzipSync(unpacked));
    await expect(whole(path)).rejects.toThrow(
      'as 1-based-closed places, but BED has 1, 2 and 3, half-open from 0',
    );
  });
});

describe('windows around peaks', () => {
  const options = async (more: Partial<PrepareOptions> = {}): Promise<PrepareOptions> => {
    const rows = ['+', '-'].map(
      (strand, i) => `${i}\t${strand}\tfragments.bed.gz\tsum\t${strand}\t4\t-4\t${1 - i}\t${strand}\n`,
    );
    await writeFile(
      inFolder('table.txt'),
      `\tidentifier\tfile\tsum_stat\tstrand\tshift_plus\tshift_minus\tstrand_pair\tdescription\n${rows.join('')}`,
    );
    return {
      ...PREPARE_DEFAULTS,
      genome: inFolder('genome.fa'),
      tracks: await readTrackTable(inFolder('table.txt')),
      peaks: inFolder('peaks.narrowPeak'),
      split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrIII'] },
      ...{
        sequenceLengthBp: 211,
        cropBp: 55,
        poolWidthBp: 1,
        strideTrainBp: 1,
        strideTestBp: 1,
        shuffle: false,
      },
      ...more,
    };
  };
  beforeAll(async () => {
    const peak = (chrom: string, start: number, end: number, summit: number): string =>
      `${chrom}\t${start}\t${end}\tp\t0\t.\t1\t1\t1\t${summit}\n`;
    const peaks = [peak('chrI', 1000, 1400, 30), peak('I', 500, 700, -1), peak('chrII', 2000, 2100, 99)];
    const other = [
      peak('chrIII', 900, 901, 0),
      peak('chrI', 1000, 1300, 30),
      peak('chrI', 0, 40, 10),
      peak('chr9', 5, 6, 0),
    ];
    await writeFile(inFolder('peaks.narrowPeak'), [...peaks, ...other].join(''));
  });

  it('hold the ends of each strand at each bp', async () => {
    const plan = await planPrepare(await options());
    expect(plan.warnings.map((text) => text.replace(/^.*narrowPeak: /, ''))).toEqual([
      '1 of 6 peaks are on chromosomes that are not used; they are passed over',
      '1 of 6 peaks are nearer than 50.5 bp to an end of their chromosome; they are left out',
    ]);
    const { records } = await runPrepare(inFolder('windows'), plan);
    await plan.close();
    expect(records).toEqual({ train: 2, valid: 1, test: 1 });
    const bed = await readFile(join(inFolder('windows'), 'sequences.bed'), 'utf8');
    expect(bed).toBe(
      'chrI\t980\t1081\ttrain\nchrI\t550\t651\ttrain\nchrII\t2049\t2150\tvalid\nchrIII\t850\t951\ttest\n',
    );
    const set = await openDataset(inFolder('windows'));
    expect(set).toMatchObject({ targetLength: 101, numTargets: 2, poolWidthBp: 1, cropBp: 55 });
    expect(set.targets.map(({ strandPair }) => strandPair)).toEqual([1, 0]);
    const { value } = await set.stream('valid').next();
    const found = f16ToF32(value!.record.targets.data as Uint16Array);
    const expected = new Float32Array(202);
    for (const { chrom, start, end } of fragments) {
      if (chrom !== 'chrII') continue;
      const [plus, minus] = [start + 4 - 2049, end - 1 - 4 - 2049];
      if (plus >= 0 && plus < 101) expected[2 * plus]!++;
      if (minus >= 0 && minus < 101) expected[2 * minus + 1]!++;
    }
    expect(found).toEqual(expected);
    expect(found.reduce((sum, count) => sum + count)).toBeGreaterThan(20);
  });

  it('are divided by chromosome only, and need tracks that have strands', async () => {
    const fractions = await options({ split: { kind: 'fractions', valid: 0.1, test: 0.1 } });
    await expect(planPrepare(fractions)).rejects.toThrow('peaks are divided by chromosome');
    await expect(planPrepare({ ...fractions, gaps: 'x.bed' })).rejects.toThrow('peaks need none');
    const { tracks } = await options();
    const bigWig = await options({ tracks: tracks.map((track) => ({ ...track, file: inFolder('a.bw') })) });
    await expect(planPrepare(bigWig)).rejects.toThrow('a.bw: strands and shifts are of fragments');
  });
});
