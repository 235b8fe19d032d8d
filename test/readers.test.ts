/** Genomes, tracks and intervals from files, sound and damaged. */
import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { type Genome, openBigWig, openGenome, readBed, readPadded } from '@cohesin/io';
import { writeBigWig } from '@cohesin/io/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bgzf, fastaText, TOY_LENGTHS, toyLetters, toyValues } from './toy-genome.ts';

const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const YEAST = join(SHARED, 'data/yeast');
const real = existsSync(YEAST);

let folder: string;
const letters = toyLetters(5);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'readers-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

const codes = (text: string): Uint8Array =>
  Uint8Array.from(text.toUpperCase(), (letter) => 'ACGTN'.indexOf(letter));

async function using<T>(genome: Genome, body: (genome: Genome) => Promise<T>): Promise<T> {
  try {
    return await body(genome);
  } finally {
    await genome.close();
  }
}

describe('a genome', () => {
  it.each([
    ['FASTA', 'plain.fa', () => fastaText(letters)],
    ['FASTA', 'windows.fa', () => fastaText(letters, '\r\n')],
    ['FASTA in BGZF', 'packed.fa.gz', () => bgzf(fastaText(letters))],
  ] as const)(
    '%s (%s) gives every base by place, also with the index it made',
    async (format, name, content) => {
      const path = await write(name, content());
      for (const _ of ['index made', 'index read']) {
        await using(await openGenome(path), async (genome) => {
          expect(genome.format).toBe(format);
          expect([...genome.chromosomes]).toEqual(Object.entries(TOY_LENGTHS));
          for (const [chrom, bases] of Object.entries(letters)) {
            for (const [start, end] of [
              [0, bases.length],
              [1, 2],
              [59, 63],
              [700, 1403],
              [bases.length - 1, bases.length],
              [5, 5],
            ] as const)
              expect(await genome.read(chrom, start, end)).toEqual(codes(bases.slice(start, end)));
          }
          const padded = await readPadded(genome, 'chrI', -3, 6002);
          expect(padded).toEqual(codes(`NNN${letters.chrI}NN`));
        });
        expect(existsSync(`${path}.fai`)).toBe(true);
      }
    },
  );

  it('refuses places that do not exist', async () => {
    await using(await openGenome(join(folder, 'plain.fa')), async (genome) => {
      await expect(genome.read('I', 0, 1)).rejects.toThrow('no chromosome I; it has chrI, chrII, chrIII');
      await expect(genome.read('constructor', 0, 1)).rejects.toThrow('no chromosome constructor');
      await expect(genome.read('chrII', 4000, 4002)).rejects.toThrow('not inside chrII, which has 4001 bp');
      await expect(genome.read('chrII', -1, 4)).rejects.toThrow('not inside chrII');
    });
  });

  it.each([
    ['>a\nACGT\nAC\nACGT\n', 'line 4: lines of different lengths in a'],
    ['>a\nAC\nACGT\n', 'line 3: lines of different lengths in a'],
    ['>a\nACGT\n>a\nAC\n', 'line 3: a second sequence named a'],
    ['>a\nACGT\n> \nAC\n', 'line 3: a header without a name'],
    ['ACGT\n', 'no genome: expected FASTA'],
    ['', 'no genome'],
  ])('refuses %j: %s', async (text, message) => {
    await expect(openGenome(await write('bad.fa', text))).rejects.toThrow(message);
    expect(existsSync(join(folder, 'bad.fa.fai'))).toBe(false);
  });

  it('refuses letters that are none, plain gzip, and the index of another file', async () => {
    const strange = await write('strange.fa', '>a\nACGTACGT\nAC*T\n');
    await using(await openGenome(strange), async (genome) => {
      expect(await genome.read('a', 0, 10)).toEqual(codes('ACGTACGTAC'));
      await expect(genome.read('a', 8, 12)).rejects.toThrow('a: "*" at 10 is no letter of DNA');
    });
    await expect(openGenome(await write('gzip.fa.gz', gzipSync(fastaText(letters))))).rejects.toThrow(
      'bgzip',
    );
    const moved = await write('moved.fa', `>new\nACGT\n${fastaText(letters)}`);
    await write('moved.fa.fai', await readFile(join(folder, 'plain.fa.fai')));
    await expect(openGenome(moved)).rejects.toThrow('the index is of another file');
    const cut = await write('cut.fa', fastaText(letters).slice(0, 9000));
    await write('cut.fa.fai', await readFile(join(folder, 'plain.fa.fai')));
    await expect(openGenome(cut)).rejects.toThrow(/cut\.fa/);
    const packed = bgzf(fastaText(letters));
    await expect(openGenome(await write('cut.fa.gz', packed.subarray(0, 3000)))).rejects.toThrow(
      /cut\.fa\.gz/,
    );
  });

  it('in BGZF is refused where a bit of it is wrong, with and without indexes', async () => {
    const packed = bgzf(fastaText(letters));
    const sound = await write('sound.fa.gz', packed);
    await using(await openGenome(sound), async () => {});
    for (let at = 40; at < packed.length - 40; at += 409) {
      const flipped = Buffer.from(packed);
      flipped[at]! ^= 1;
      const path = await write('flipped.fa.gz', flipped);
      for (const index of ['fai', 'gzi']) await copyFile(`${sound}.${index}`, `${path}.${index}`);
      const read = async (): Promise<unknown> =>
        await using(await openGenome(path), (genome) =>
          Promise.all(Object.entries(letters).map(([name, { length }]) => genome.read(name, 0, length))),
        );
      await expect(read()).rejects.toThrow(/flipped\.fa\.gz/);
      for (const index of ['fai', 'gzi']) await rm(`${path}.${index}`);
      await expect(read()).rejects.toThrow(/flipped\.fa\.gz/);
    }
  });
});

describe('a bigWig', () => {
  const values = toyValues(7, TOY_LENGTHS);
  let path: string;
  beforeAll(() => {
    path = join(folder, 'toy.bw');
    writeBigWig(path, TOY_LENGTHS, values);
  });

  it('gives the value of every bp, NaN where there is none', async () => {
    const track = await openBigWig(path);
    expect([...track.chromosomes]).toEqual(Object.entries(TOY_LENGTHS));
    for (const [chrom, length] of Object.entries(TOY_LENGTHS)) {
      const expected = new Float32Array(length).fill(Number.NaN);
      for (const { chrom: on, start, end, value } of values)
        if (on === chrom) expected.fill(value, start, end);
      expect(expected.some(Number.isNaN)).toBe(true);
      for (const [start, end] of [
        [0, length],
        [17, 18],
        [999, 3011],
        [length - 1, length],
        [4, 4],
      ] as const)
        expect(await track.read(chrom, start, end)).toEqual(expected.subarray(start, end));
    }
    await expect(track.read('II', 0, 1)).rejects.toThrow('no chromosome II');
    await expect(track.read('chrI', 5990, 6001)).rejects.toThrow('not inside chrI, which has 6000 bp');
    await track.close();
  });

  it('is refused where a bit of its values is wrong', async () => {
    const bytes = await readFile(path);
    const lengths = Object.entries(TOY_LENGTHS);
    // Sections lie between the chromosomes and the index, whose first words are 0x2468ace0.
    const [first, last] = [
      64 + 40 + 36 + 24 * lengths.length + 4,
      bytes.indexOf(Buffer.from('e0ac6824', 'hex')),
    ];
    for (let at = first; at < last; at += 101) {
      const flipped = Buffer.from(bytes);
      flipped[at]! ^= 2;
      const track = await openBigWig(await write('bit.bw', flipped));
      const read = Promise.all(lengths.map(([name, length]) => track.read(name, 0, length)));
      await expect(read).rejects.toThrow(/bit\.bw: .*the zlib stream at byte \d+ is damaged/);
      await track.close();
    }
  });

  it('that is damaged, cut, empty or something else is refused', async () => {
    const bytes = await readFile(path);
    await expect(openBigWig(await write('text.bw', 'chr1 0 5 1.5\n'.repeat(50)))).rejects.toThrow(
      'not a BigWig',
    );
    await expect(openBigWig(await write('empty.bw', ''))).rejects.toThrow('the file is empty');
    await expect(openBigWig(join(folder, 'none.bw'))).rejects.toThrow('no such file');
    const cut = await openBigWig(await write('cut.bw', bytes.subarray(0, bytes.length - 3000)));
    await expect(cut.read('chrI', 0, 6000)).rejects.toThrow(/cut\.bw: chrI:0-6000: damaged data/);
    await cut.close();
    const flipped = Buffer.from(bytes);
    flipped.fill(0xff, 400, 430);
    const damaged = await openBigWig(await write('flipped.bw', flipped));
    await expect(damaged.read('chrI', 0, 6000)).rejects.toThrow(/flipped\.bw: chrI:0-6000: damaged data/);
    await damaged.close();
  });
});

describe('a BED file', () => {
  const rows = async (path: string) => {
    const found = [];
    for await (const { chrom, startBp, endBp, rest } of readBed(path))
      found.push([chrom, startBp, endBp, ...rest]);
    return found;
  };
  const TEXT = 'track name=x\n#c\nchr1\t0\t5\tname one\t7\r\n\nchr2 3 4\n';

  it('gives its rows, plain or gzipped', async () => {
    const expected = [
      ['chr1', 0, 5, 'name one', '7'],
      ['chr2', 3, 4],
    ];
    expect(await rows(await write('a.bed', TEXT))).toEqual(expected);
    expect(await rows(await write('a.bed.gz', gzipSync(TEXT)))).toEqual(expected);
    expect(await rows(await write('none.bed', ''))).toEqual([]);
  });

  it.each([
    ['chr1\tabc\t5', 'line 2: expected chromosome, start and end'],
    ['chr1\t9\t5', 'line 2: start 9 is after end 5'],
    ['chr1\t-1\t5', 'line 2: expected'],
    ['chr1\t1', 'line 2: expected'],
  ])('refuses %j', async (row, message) => {
    await expect(rows(await write('bad.bed', `chr1\t0\t1\n${row}\n`))).rejects.toThrow(message);
    const cut = gzipSync(TEXT.repeat(50));
    await expect(rows(await write('cut.bed.gz', cut.subarray(0, cut.length - 9)))).rejects.toThrow(
      'unexpected end',
    );
  });
});

describe(`yeast${real ? '' : ` (skipped: ${YEAST} is absent; set COHESIN_SHARED)`}`, () => {
  it.runIf(real)('is the same from BGZF FASTA and 2bit, with samtools’ and with our indexes', async () => {
    const own = await write('yeast.fa.gz', await readFile(join(YEAST, 'sacCer3.fa.gz')));
    const genomes = await Promise.all(
      [join(YEAST, 'sacCer3.fa.gz'), own, join(YEAST, 'sacCer3.2bit')].map(openGenome),
    );
    for (const index of ['fai', 'gzi'])
      expect(await readFile(`${own}.${index}`)).toEqual(
        await readFile(join(YEAST, `sacCer3.fa.gz.${index}`)),
      );
    for (const [chrom, length] of [...genomes[0]!.chromosomes].slice(0, 4)) {
      const [a, b, c] = await Promise.all(genomes.map((genome) => genome.read(chrom, 0, length)));
      expect([Buffer.compare(a!, b!), Buffer.compare(a!, c!)]).toEqual([0, 0]);
    }
    for (const genome of genomes) await genome.close();
  });
});
