import { expect, test } from 'vitest';
import {
  consensusOf,
  consensusPwm,
  informationContent,
  MOTIFS,
  reverseComplement,
  sample,
  uniform,
} from './motifs.ts';

test('a consensus becomes 0.91 for a base, 0.47 for either of two and a quarter for N', () => {
  const rows = [
    [0.03, 0.91, 0.03, 0.03],
    [0.47, 0.03, 0.03, 0.47],
    [0.97 / 3, 0.97 / 3, 0.97 / 3, 0.03],
    [0.25, 0.25, 0.25, 0.25],
  ];
  const pwm = consensusPwm('CWVN');
  expect(pwm.flat().map((p) => p.toFixed(12))).toEqual(rows.flat().map((p) => p.toFixed(12)));
  expect(() => consensusPwm('CXG')).toThrow("'X' is no IUPAC letter");
});

test('the matrices of the planted motifs say their consensus again', () => {
  expect(MOTIFS.map(({ pwm }) => consensusOf(pwm))).toEqual(MOTIFS.map(({ consensus }) => consensus));
});

test('the reverse complement reads the other strand, and twice is the motif itself', () => {
  const { pwm } = MOTIFS[0]!;
  expect(consensusOf(reverseComplement(pwm))).toBe('CTGCCNCCNCGCGG');
  expect(reverseComplement(reverseComplement(pwm))).toEqual(pwm);
});

test('bits are 2 for certainty, 0 for background and 1.37 for a base at 0.91', () => {
  const [certain, even, base] = informationContent([[0, 1, 0, 0], ...consensusPwm('NA')]);
  expect([certain, even]).toEqual([2, 0]);
  const expected = 2 + 0.91 * Math.log2(0.91) + 3 * 0.03 * Math.log2(0.03);
  expect(base).toBeCloseTo(expected, 12);
});

test('instances follow the matrix to within five standard errors, and depend on their key only', () => {
  const { pwm } = MOTIFS[0]!;
  const draws = 20_000;
  const counts = pwm.map(() => [0, 0, 0, 0]);
  for (let key = 0; key < draws; key++) {
    for (const [i, base] of sample(pwm, key).entries()) counts[i]![base]!++;
  }
  const deviations = pwm.flatMap((column, i) =>
    column.map((p, base) => Math.abs(counts[i]![base]! / draws - p) / Math.sqrt((p * (1 - p)) / draws)),
  );
  expect(Math.max(...deviations)).toBeLessThan(5);
  expect(sample(pwm, 7)).toEqual(sample(pwm, 7));
});

test('uniform draws lie in [0, 1) with mean a half', () => {
  const draws = Array.from({ length: 10_000 }, (_, i) => uniform(3, i));
  expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...draws)).toBeLessThan(1);
  const standardError = Math.sqrt(1 / 12 / draws.length);
  expect(Math.abs(draws.reduce((a, b) => a + b, 0) / draws.length - 0.5)).toBeLessThan(5 * standardError);
});
