import { mix } from '@cohesin/core';
import { beforeAll, expect, test } from 'vitest';
import { simulateDna } from './genome.ts';
import { logOdds, MOTIFS, type Motif, reverseComplement, uniform } from './motifs.ts';
import { bestMatch, type FirstLayer, filterMotifs, RECOVERED, recoverMotifs } from './recovery.ts';

const SIZE = 19;
const sequences: Uint8Array[] = [];
beforeAll(() => {
  for (let key = 0; key < 24; key++) sequences.push(simulateDna(4096, key));
});

/** Filters of random weights, near normal: sums of four uniform draws. [SIZE, 4, filters] */
function randomFilters(filters: number, seed: number): FirstLayer & { readonly weight: Float32Array } {
  const draw = (i: number): number =>
    [0, 1, 2, 3].reduce((sum, j) => sum + uniform(mix(seed, j), i) - 0.5, 0);
  return {
    weight: Float32Array.from({ length: SIZE * 4 * filters }, (_, i) => draw(i)),
    size: SIZE,
    filters,
  };
}

/** Writes the log-odds of a motif into a filter, from a row on. */
function write(
  layer: ReturnType<typeof randomFilters>,
  filter: number,
  scores: Float64Array,
  offset: number,
): void {
  for (let row = 0; row < SIZE; row++) {
    for (let base = 0; base < 4; base++) {
      layer.weight[(4 * row + base) * layer.filters + filter] = scores[4 * (row - offset) + base] ?? 0;
    }
  }
}

test.each(MOTIFS)('a filter that is the log-odds of $name is found with r ≥ 0.95', (motif: Motif) => {
  const layer = randomFilters(4, 1);
  write(layer, 2, logOdds(motif.pwm), 3);
  const [found] = recoverMotifs({ layer, sequences, motifs: [motif] });
  expect(found!.correlation).toBeGreaterThan(0.95);
  expect([found!.filter, found!.offset, found!.strand]).toEqual([2, 3, '+']);
  expect(found!.sites).toBeGreaterThan(30);
});

test('a filter of the other strand counts, aligned to the planted strand', () => {
  const { pwm } = MOTIFS[0]!;
  const layer = randomFilters(3, 2);
  write(layer, 0, logOdds(reverseComplement(pwm)), 2);
  const [found] = recoverMotifs({ layer, sequences, motifs: MOTIFS });
  expect([found!.filter, found!.strand]).toEqual([0, '-']);
  expect(found!.correlation).toBeGreaterThan(0.95);
  expect(bestMatch(reverseComplement(pwm), pwm)).toMatchObject({ strand: '-', offset: 0, aligned: pwm });
});

test.each([3, 4, 5, 6])('32 random filters recover no motif (seed %d)', (seed) => {
  const found = recoverMotifs({ layer: randomFilters(32, seed), sequences, motifs: MOTIFS });
  for (const { correlation } of found) expect(correlation).toBeLessThan(RECOVERED);
});

test('columns that the filter does not cover cost correlation', () => {
  const { pwm } = MOTIFS[0]!;
  const half = bestMatch(pwm.slice(0, 7), pwm);
  expect(bestMatch(pwm, pwm).correlation).toBeCloseTo(1, 12);
  expect(half.correlation).toBeLessThan(RECOVERED);
  expect(half.aligned.slice(7).flat()).toEqual(Array(28).fill(0.25));
});

test('matrices count the k-mers above half of the range over the mean, plus one', () => {
  const layer: FirstLayer = { weight: [2, 0, 0, 0, 0, 1, 0, 0], size: 2, filters: 1 }; // [2, 4, 1]: A scores 2, C 1
  const words = ['AC', 'AC', 'AC', 'AC', 'AC', 'AC', 'AC', 'AC', 'AC', 'AC', 'AG', 'GG', 'GG', 'AN'];
  const encoded = words.map((word) => Uint8Array.from(word, (letter) => 'ACGTN'.indexOf(letter)));
  const [found] = filterMotifs(layer, encoded); // mean 34 / 14, threshold 2.71: only AC
  expect(found!.sites).toBe(10);
  expect(found!.pwm).toEqual([
    [11 / 14, 1 / 14, 1 / 14, 1 / 14],
    [1 / 14, 11 / 14, 1 / 14, 1 / 14],
  ]);
});

test('a negative scale turns a filter over; constant filters have no sites', () => {
  const layer = randomFilters(1, 8);
  const turned = { ...layer, weight: layer.weight.map((w) => -w), scale: [-1] };
  expect(filterMotifs(turned, sequences)).toEqual(filterMotifs(layer, sequences));
  const constant = { ...layer, scale: [0], shift: [1] };
  expect(() => recoverMotifs({ layer: constant, sequences, motifs: MOTIFS })).toThrow(
    'none of 1 filters has 10 sites',
  );
});
