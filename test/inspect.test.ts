/** `inspect` on sound and damaged files, and its command. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inflateSync } from 'node:zlib';
import { writeSafetensors } from '@cohesin/core';
import { type DatasetExample, encodeRecord, inspect, writeDataset, writeRecords } from '@cohesin/io';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cohesin } from './cohesin.ts';
import { writeToy } from './toy-genome.ts';

const SHARED = resolve(process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../shared', import.meta.url)));
const GOLDEN = join(SHARED, 'golden/io');
const FIXTURES = fileURLToPath(new URL('fixtures/io', import.meta.url));
const real = existsSync(GOLDEN);

let folder: string;
const inFolder = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inspect-'));
  writeToy(folder);
  await writeDataset(inFolder('data'), {
    ...{ sequenceLengthBp: 40, targetLength: 5, poolWidthBp: 4, cropBp: 10, recordsPerShard: 4 },
    targets: ['one', 'two'].map((identifier) => ({ identifier, description: identifier })),
    examples: examples(),
  });
});
afterAll(() => rm(folder, { recursive: true }));

function* examples(): Generator<DatasetExample> {
  for (let i = 0; i < 12; i++) {
    const data = Float32Array.from({ length: 10 }, (_, at) => (at % 2 === 0 ? i + at : 0));
    const sequence = Uint8Array.from({ length: 40 }, (_, bp) => (bp + i) % 5);
    const place = { split: i < 9 ? 'train' : 'test', chrom: 'c', startBp: 20 * i, endBp: 20 * i + 20 };
    yield { ...place, sequence, targets: { dtype: 'f32', data } };
  }
}

describe('inspect', () => {
  it('counts the records of a data set, its bases and each track', async () => {
    const found = await inspect(inFolder('data'));
    expect(found.what).toBe('TFRecord data set: 40 bp → 5 bins of 4 bp, 2 tracks');
    expect(found.facts).toContainEqual(['sequence stored as', 'codes, 1 byte a base']);
    expect(found.facts).toContainEqual([
      'bases',
      expect.stringMatching(/^50 % GC, 20 % N; the first record begins ACGTNACGTN/),
    ]);
    expect(found.tables[0]!.rows).toEqual([
      ['train', '3', '9', '9', '9'],
      ['test', '1', '3', '3', '3'],
    ]);
    expect(found.tables[1]!.rows).toEqual([
      ['one', '9.5', '19', '1.67 %', '0'],
      ['two', '0', '0', '100 %', '0'],
    ]);
    expect(found.caption).toBe('first record of train: c:0-20');
    expect(found.curves.map(({ name }) => name)).toEqual(['GC', 'one', 'two']);
    expect(found.curves[1]!.values).toEqual([0, 2, 4, 6, 8]);
    expect(found.warnings).toEqual(['1 tracks are zero in every record: two']);
    expect(found.problems).toEqual([]);
  });

  it('reads on after a damaged file, and says what does not agree', async () => {
    const bytes = await readFile(inFolder('data/tfrecords/train-1.tfr'));
    const statistics = await readFile(inFolder('data/statistics.json'), 'utf8');
    await writeFile(inFolder('data/tfrecords/train-1.tfr'), bytes.subarray(0, bytes.length - 20));
    await writeFile(
      inFolder('data/statistics.json'),
      statistics.replace('"train_seqs": 9', '"train_seqs": 11'),
    );
    await writeRecords(inFolder('data/tfrecords/train-3.tfr'), []);
    const found = await inspect(inFolder('data'));
    expect(found.problems).toEqual([
      expect.stringMatching(
        /train-1\.tfr: record \d at byte \d+ \(uncompressed\): truncated-compressed-stream/,
      ),
    ]);
    const records = Number(found.tables[0]!.rows[0]![2]);
    expect(records).toBeGreaterThanOrEqual(5);
    expect(records).toBeLessThan(9);
    expect(found.warnings.join('\n')).toContain(
      `statistics.json states 11 records, the files hold ${records}`,
    );
    expect(found.warnings.join('\n')).toContain('no records in train-3.tfr');
    const { code, lines, errors } = await cohesin(['inspect', inFolder('data')]);
    expect(lines.join('\n')).toMatch(/two\s+0\s+0\s+100 %[\s\S]*problem: .*train-1\.tfr: record/);
    expect([code, errors]).toEqual([78, expect.stringContaining('a problem, see above')]);
    await writeFile(inFolder('data/tfrecords/train-1.tfr'), bytes);
  });

  it('knows genomes, tracks, intervals and weights by their content', async () => {
    await writeFile(inFolder('x.bed'), 'chrI\t5\t9\nchrI\t7\t10\n');
    await writeSafetensors(
      inFolder('w'),
      new Map([['a', { shape: [2, 2], dtype: 'f32', data: Float32Array.of(1, 2, Number.NaN, -4) }]]),
    );
    const whats = ['genome.fa', 'b.bw', 'x.bed', 'w'].map(async (name) => await inspect(inFolder(name)));
    const [genome, track, bed, weights] = await Promise.all(whats);
    expect(genome).toMatchObject({ what: 'genome in FASTA: 3 sequences, 15,001 bp', problems: [] });
    expect(track).toMatchObject({ what: 'bigWig track on 3 chromosomes', problems: [] });
    expect(track!.tables[0]!.rows.map(([name]) => name)).toEqual(['I', 'II', 'III']);
    expect(bed).toMatchObject({
      what: 'BED file: 2 intervals of 3 columns',
      facts: [
        ['covered', '5 bp'],
        ['lengths', '3 to 4 bp, median 4'],
        ['covered more than once', '2 bp (40 %)'],
      ],
    });
    expect(weights).toMatchObject({
      what: 'weights in safetensors: 1 tensors, 4 values',
      problems: ['a has 1 values that are NaN or infinite'],
    });
    expect(weights!.tables[0]!.rows).toEqual([['a', '2 × 2', 'f32', '-4 to 2']]);
  });

  it('tells the form of bare records', async () => {
    const targets = { dtype: 'f16', data: Uint16Array.of(0x3c00, 0) } as const;
    const record = { sequence: Uint8Array.of(0, 1, 2, 4), targets };
    await writeRecords(inFolder('codes.tfr'), [encodeRecord(record)], { compression: 'gzip' });
    expect((await inspect(inFolder('codes.tfr'))).what).toBe('TFRecord file, GZIP');
    const facts = async (name: string) => Object.fromEntries((await inspect(inFolder(name))).facts);
    expect(await facts('codes.tfr')).toMatchObject({
      sequence: '4 bp, codes',
      begins: 'ACGN',
      'of the first record': 'mean 0.5, 50 % zero, first values 1 0',
    });
    await writeRecords(inFolder('hot.tfr'), [
      encodeRecord({ ...record, genome: 1 }, { sequence: 'one-hot' }),
    ]);
    expect(await facts('hot.tfr')).toMatchObject({
      sequence: '4 bp, one-hot',
      begins: 'ACGN',
      dialect: expect.stringContaining('Akita'),
    });
  });

  it('draws a record in the shape that its folder states, and contact maps from their triangles', async () => {
    const found = await inspect(inFolder('data/tfrecords/train-0.tfr'));
    expect(found.caption).toContain('in the shape of ');
    expect(found.curves.map(({ values }) => values)).toEqual(
      (await inspect(inFolder('data'))).curves.map(({ values }) => values),
    );
    const sizes = { sequenceLengthBp: 60, targetLength: 6, poolWidthBp: 10, cropBp: 5, diagonalOffset: 2 };
    await writeDataset(inFolder('maps'), {
      ...sizes,
      targets: [{ identifier: 'map', description: '' }],
      examples: [
        {
          ...{ split: 'train', chrom: 'chr1', startBp: 0, endBp: 60, sequence: new Uint8Array(60) },
          targets: { dtype: 'f32', data: Float32Array.of(1, 2, 3, 4, 5, 6) },
        },
      ],
    });
    const { maps, curves } = await inspect(inFolder('maps'));
    expect([curves.length, maps.length, maps[0]!.side]).toEqual([0, 1, 5]);
    const { NaN: no } = Number;
    const rows = [
      ...[no, no, 1, 2, 3],
      ...[no, no, no, 4, 5],
      ...[1, no, no, no, 6],
      ...[2, 4, no, no, no],
      ...[3, 5, 6, no, no],
    ];
    expect([...maps[0]!.values]).toEqual(rows);
    const page = inFolder('page.html');
    const { lines } = await cohesin(['inspect', inFolder('maps'), '--page', page]);
    expect(lines.slice(-5)).toEqual([
      '   · ·    ░░',
      '   · · ·▒▒▓▓',
      '     · · ·██',
      '    ▒▒ · · ·',
      '  ░░▓▓██ · ·',
    ]);
    const html = await readFile(page, 'utf8');
    expect(html).not.toMatch(/(src|href)="(?!data:)/);
    const png = Buffer.from(/base64,([^"]+)/.exec(html)![1]!, 'base64');
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([5, 5]);
    const pixels = inflateSync(png.subarray(png.indexOf('IDAT') + 4));
    expect([...pixels.subarray(0, 6)]).toEqual([0, 0, 0, 1, 52, 103]); // a filter, then missing, and a fifth of 254 apart
  });

  it('finds the damage of every file that frames can show', async () => {
    const { cases } = JSON.parse(await readFile(join(FIXTURES, 'expected.json'), 'utf8')) as {
      cases: { file: string; ok: boolean; error?: { kind: string; recordIndex?: number } }[];
    };
    let damaged = 0;
    for (const { file, ok, error } of cases) {
      if (/decode_|empty_none/.test(file)) continue; // sound frames; 0 bytes are refused
      if (error?.kind === 'empty-file' || error?.kind === 'wrong-compression') continue;
      const { problems } = await inspect(join(FIXTURES, file)).catch((thrown: Error) => ({
        problems: [thrown.message],
      }));
      expect([file, problems.length]).toEqual([file, ok ? 0 : 1]);
      if (!ok) damaged++;
    }
    expect(damaged).toBeGreaterThan(25);
  });

  it('refuses what it does not know, with code 78', async () => {
    await writeFile(inFolder('notes.txt'), 'just some words\n');
    await expect(inspect(inFolder('notes.txt'))).rejects.toThrow(
      'of no known kind; it begins with "just some words',
    );
    await expect(inspect(inFolder('none'))).rejects.toThrow('no such file or folder');
    await writeFile(inFolder('empty'), '');
    await expect(inspect(inFolder('empty'))).rejects.toThrow('a file of 0 bytes');
    const { code, errors } = await cohesin(['inspect']);
    expect([code, errors]).toEqual([78, expect.stringContaining('one PATH is expected, found 0')]);
  });

  it.runIf(real)(
    `knows Akita's records${real ? '' : ` (skipped: ${GOLDEN} is absent; set COHESIN_SHARED)`}`,
    async () => {
      const found = await inspect(join(GOLDEN, 'akita'));
      expect(found.what).toBe('TFRecord data set: 320,000 bp → contact maps, 1 track');
      expect(found.facts).toContainEqual(['sequence stored as', 'one-hot, 4 bytes a base']);
      expect(found.problems).toEqual([]);
    },
  );
});
