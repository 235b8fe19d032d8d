/** The command that fits k-mers, on data whose targets are counts of one word. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mix } from '@cohesin/core';
import { f32ToF16, writeDataset } from '@cohesin/io';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin } from './cohesin.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-baseline-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const LENGTH_BP = 512;
const CROP_BP = 64;
const SPLITS = { train: 40, valid: 6, test: 8 };

/** How often ACG, or on the other strand CGT, lies in positions `[from, to)`. */
function occurrences(codes: Uint8Array, from: number, to: number): number {
  const words = ['0,1,2', '1,2,3'];
  return Array.from({ length: to - 2 - from }, (_, i) => codes.slice(from + i, from + i + 3).join()).filter(
    (word) => words.includes(word),
  ).length;
}

/** Two tracks of random sequences: what `value` makes of the occurrences in a bin, and noise. */
async function write(name: string, binBp: number, value: (count: number) => number): Promise<string> {
  const bins = (LENGTH_BP - 2 * CROP_BP) / binBp;
  let index = 0;
  const example = (split: string) => {
    const seed = index++;
    const sequence = Uint8Array.from({ length: LENGTH_BP }, (_, i) => mix(seed, i) & 3);
    const values = Array.from({ length: bins }, (_, bin) => {
      const from = CROP_BP + bin * binBp;
      return [value(occurrences(sequence, from, from + binBp)), mix(seed, -1 - bin) & 1];
    });
    const place = { chrom: 'chr1', startBp: seed * LENGTH_BP, endBp: (seed + 1) * LENGTH_BP };
    return { split, ...place, sequence, targets: { dtype: 'f16' as const, data: f32ToF16(values.flat()) } };
  };
  const path = join(dir, name);
  await writeDataset(path, {
    sequenceLengthBp: LENGTH_BP,
    targetLength: bins,
    poolWidthBp: binBp,
    cropBp: CROP_BP,
    targets: [
      { identifier: 'word', description: '' },
      { identifier: 'noise', description: '' },
    ],
    examples: Object.entries(SPLITS).flatMap(([split, count]) =>
      Array.from({ length: count }, () => example(split)),
    ),
    recordsPerShard: 16,
  });
  return path;
}

async function baseline(args: readonly string[]): Promise<Record<string, unknown>> {
  const { lines, errors } = await cohesin(['baseline', '--json', ...args]);
  expect(errors).toBe('');
  return JSON.parse(lines.at(-1)!) as Record<string, unknown>;
}

test('a track that counts a word is predicted from the words of its bins, and noise is not', async () => {
  const data = await write('counts', 32, (count) => 3 + 2 * count);
  const found = await baseline(['--data', data, '--k', '3', '--context', '0']);
  const [word, noise] = (found.tracks as { value: number }[]).map(({ value }) => value);
  expect(word).toBeGreaterThan(0.999);
  expect(Math.abs(noise!)).toBeLessThan(0.25); // 96 bins
  expect(found).toMatchObject({
    metric: 'pearson',
    features: 32,
    bins: 40 * 12,
    split: 'test',
    sequences: 8,
  });
  const wide = await baseline([
    '--data',
    data,
    '--k',
    '3',
    '--gaps',
    '1',
    '--context',
    '100',
    '--split',
    'valid',
  ]);
  expect((wide.tracks as { value: number }[])[0]!.value).toBeLessThan(word!);
  expect(wide).toMatchObject({ split: 'valid', sequences: 6 });
});

test.each([
  ['one label a sequence', LENGTH_BP - 2 * CROP_BP, 'sequences', 11],
  ['a label a bin', 64, 'positions', 1],
])('%s is fitted by logistic regression on gapped words and ranked', async (name, binBp, over, above) => {
  const data = await write(name, binBp, (count) => (count > above ? 1 : 0));
  const args = ['--data', data, '--k', '3', '--gaps', '1', '--context', '0'];
  const found = await baseline(args);
  expect(found).toMatchObject({ model: 'k-mer logistic', metric: 'auroc', over, sequences: 8 });
  const [word] = found.tracks as { value: number; auroc: number; average_precision: number }[];
  expect(word!.auroc).toBeGreaterThan(0.8);
  expect(word!.auroc).toBe(word!.value);
  expect(word!.average_precision).toBeGreaterThan(0.7);
  const ridge = await baseline([...args, '--fit', 'ridge']);
  expect(ridge).toMatchObject({ model: 'k-mer ridge', metric: 'pearson', means: { r2: expect.any(Number) } });
});

test('what cannot be fitted is refused', async () => {
  const data = join(dir, 'counts');
  const many = await cohesin(['baseline', '--data', data, '--k', '9']);
  expect([many.code, many.errors]).toEqual([
    78,
    expect.stringContaining('k 9 with 0 gaps makes 131072 features'),
  ]);
  const values = await cohesin(['baseline', '--data', data, '--fit', 'logistic']);
  expect([values.code, values.errors]).toEqual([
    78,
    expect.stringMatching(/--fit logistic needs labels, but .*counts has a target of \d+; use --fit ridge/),
  ]);
  const none = await cohesin(['baseline', '--data', join(dir, 'none')]);
  expect(none.code).toBe(78);
});
