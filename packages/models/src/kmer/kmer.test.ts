import { mix } from '@cohesin/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { kmerFeatures, type SparseCounts } from './features.ts';
import { ridgeSums } from './ridge.ts';

const CODES = new Map([...'ACGTN'].map((base, code) => [base, code]));
const codesOf = (text: string): Uint8Array => Uint8Array.from(text, (base) => CODES.get(base)!);
const total = ({ counts }: SparseCounts): number => counts.reduce((a, b) => a + b, 0);

/** Random bases, the same for the same seed. */
function sequence(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => mix(seed, i) & 3);
}

describe('k-mers', () => {
  test('are counted once with their reverse complement, and never across an N', () => {
    const features = kmerFeatures({ k: 2 });
    expect(features.size).toBe(10); // 4 palindromes and 6 pairs
    const count = (text: string): Record<number, number> => {
      const { indices, counts } = features.count(codesOf(text), 0, text.length);
      return Object.fromEntries([...indices].map((index, i) => [index, counts[i]!]));
    };
    expect(count('AAGTT')).toEqual({ ...count('AAA'), ...count('AGT') }); // AA + TT, AG, GT
    expect(count('ACNAC')).toEqual(count('ACNGT'));
    expect(total(features.count(codesOf('ACNAC'), 0, 5))).toBe(2);
    expect(total(features.count(codesOf('ACGTA'), 1, 4))).toBe(2);
    expect(total(features.count(codesOf('ACG'), -5, 99))).toBe(2);
  });

  test('with gaps have every shape, and there are as many as words of all shapes on one strand', () => {
    const features = kmerFeatures({ k: 2, gaps: 1 }); // xx and x.x
    expect(features.size).toBe(20);
    expect(total(features.count(codesOf('ACGT'), 0, 4))).toBe(3 + 2);
    expect(kmerFeatures({ k: 6 }).size).toBe((4 ** 6 + 4 ** 3) / 2);
    expect(() => kmerFeatures({ k: 8, gaps: 2 })).toThrow(
      /k 8 with 2 gaps makes 1179648 features or more, but 8192 fit/,
    );
  });

  test('of a sequence and of its reverse complement are the same', () => {
    const features = kmerFeatures({ k: 3, gaps: 2 });
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 60 }), (bases) => {
        const codes = Uint8Array.from(bases);
        const turned = Uint8Array.from(bases.toReversed(), (code) => (code > 3 ? code : 3 - code));
        expect(features.count(turned, 0, codes.length)).toEqual(features.count(codes, 0, codes.length));
      }),
    );
  });
});

describe('ridge regression', () => {
  const features = kmerFeatures({ k: 2 });
  const rows = Array.from({ length: 37 }, (_, i) => {
    const codes = sequence(25, i);
    const x = features.count(codes, 0, codes.length);
    return { x, y: [mix(i, 1) / 2 ** 32, 3 * (x.counts[0] ?? 0) - 2] };
  });

  test.each([1e-6, 0.1, 10])('is at the minimum of its sum of squares with penalty %s', (penalty) => {
    const sums = ridgeSums(features.size, 2);
    for (const { x, y } of rows) sums.add(x, y);
    const { predict } = sums.solve(penalty);
    const none = predict({ indices: new Int32Array(), counts: new Float64Array() });
    const weights = Array.from({ length: features.size }, (_, i) =>
      predict({ indices: Int32Array.of(i), counts: Float64Array.of(1) }).map((value, t) => value - none[t]!),
    );
    const dense = rows.map(({ x }) => {
      const row = new Float64Array(features.size);
      for (const [a, index] of x.indices.entries()) row[index] = x.counts[a]!;
      return row;
    });
    const means = weights.map((_, i) => dense.reduce((sum, row) => sum + row[i]!, 0) / rows.length);
    const spread =
      dense.reduce((sum, row) => row.reduce((own, x, i) => own + (x - means[i]!) ** 2, sum), 0) /
      features.size;
    for (const t of [0, 1]) {
      const residuals = rows.map(({ x, y }) => predict(x)[t]! - y[t]!);
      expect(Math.abs(residuals.reduce((a, b) => a + b, 0))).toBeLessThan(1e-9); // slope of the intercept
      for (const [i, weight] of weights.entries()) {
        const slope = residuals.reduce((sum, residual, r) => sum + residual * dense[r]![i]!, 0);
        expect(Math.abs(slope + penalty * spread * weight[t]!)).toBeLessThan(1e-8);
      }
    }
  });

  test('of no rows is refused', () => {
    expect(() => ridgeSums(3, 1).solve(1)).toThrow(/no rows/);
  });
});
