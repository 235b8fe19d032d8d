import { mix } from '@cohesin/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { kmerFeatures, type SparseCounts } from './features.ts';
import { logisticRows } from './logistic.ts';
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

describe('logistic regression', () => {
  const one = (count: number): SparseCounts => ({
    indices: Int32Array.of(0),
    counts: Float64Array.of(count),
  });

  test('gives the log-odds of a table of two by two', () => {
    const rows = logisticRows(1, 2);
    // The word is there in 8 rows, of which 6 are positive, and absent in 10, of which 2 are.
    for (let i = 0; i < 8; i++) rows.add(one(1), [i < 6 ? 1 : 0, 1]);
    for (let i = 0; i < 10; i++) rows.add(one(0), [i < 2 ? 1 : 0, 1]);
    const model = rows.solve(1e-12);
    const logOdds = (positives: number, all: number): number => Math.log(positives / (all - positives));
    expect(model.predict(one(0))[0]).toBeCloseTo(logOdds(2, 10), 5);
    expect(model.predict(one(1))[0]).toBeCloseTo(logOdds(6, 8), 5);
    expect(model.predict(one(1))[1]).toBe(0); // a single label
    expect(model.unconverged).toBe(0);
  });

  test("gives R's glm of transmission by weight in mtcars (Henderson & Velleman 1981)", () => {
    const automatic = [
      3.215, 3.44, 3.46, 3.57, 3.19, 3.15, 3.44, 3.44, 4.07, 3.73, 3.78, 5.25, 5.424, 5.345, 2.465, 3.52,
      3.435, 3.84, 3.845,
    ];
    const manual = [2.62, 2.875, 2.32, 2.2, 1.615, 1.835, 1.935, 2.14, 1.513, 3.17, 2.77, 3.57, 2.78];
    const rows = logisticRows(1, 1);
    for (const weight of automatic) rows.add(one(weight), [0]);
    for (const weight of manual) rows.add(one(weight), [1]);
    const { predict } = rows.solve(1e-12);
    const [intercept, atOne] = [0, 1].map((weight) => predict(one(weight))[0]!);
    expect(intercept).toBeCloseTo(12.04037, 3);
    expect(atOne! - intercept!).toBeCloseTo(-4.02397, 3);
  });

  test.each([1e-3, 0.1, 10])(
    'is at the minimum of its loss with penalty %s, wherever it begins',
    (penalty) => {
      const features = kmerFeatures({ k: 2, gaps: 1 });
      const examples = Array.from({ length: 43 }, (_, i) => {
        const codes = sequence(25, i);
        return { x: features.count(codes, 0, codes.length), label: mix(i, 1) & 1 };
      });
      const rows = logisticRows(features.size, 1);
      for (const { x, label } of examples) rows.add(x, [label]);
      const model = rows.solve(penalty);
      const none = { indices: new Int32Array(), counts: new Float64Array() };
      const at = ({ x }: (typeof examples)[number]): number => model.predict(x)[0]!;
      const residuals = examples.map((example) => 1 / (1 + Math.exp(-at(example))) - example.label);
      const dense = examples.map(({ x }) => {
        const row = new Float64Array(features.size);
        for (const [a, index] of x.indices.entries()) row[index] = x.counts[a]!;
        return row;
      });
      const means = Array.from(
        { length: features.size },
        (_, i) => dense.reduce((sum, row) => sum + row[i]!, 0) / dense.length,
      );
      const spread =
        dense.reduce((sum, row) => row.reduce((own, x, i) => own + (x - means[i]!) ** 2, sum), 0) /
        features.size;
      expect(Math.abs(residuals.reduce((a, b) => a + b, 0))).toBeLessThan(1e-4);
      for (let i = 0; i < features.size; i++) {
        const weight =
          model.predict({ indices: Int32Array.of(i), counts: Float64Array.of(1) })[0]! -
          model.predict(none)[0]!;
        const slope = residuals.reduce((sum, residual, r) => sum + residual * dense[r]![i]!, 0);
        expect(Math.abs(slope + penalty * spread * weight)).toBeLessThan(1e-3);
      }
      const again = rows.solve(penalty, rows.solve(2 * penalty));
      for (const example of examples) expect(again.predict(example.x)[0]).toBeCloseTo(at(example), 2);
      expect(rows.solve(penalty).parameters).toEqual(model.parameters);
    },
  );

  test('of no rows, or of a number that is no label, is refused', () => {
    expect(() => logisticRows(3, 1).solve(1)).toThrow(/no rows/);
    expect(() => logisticRows(3, 2).add(one(1), [1, 0.5])).toThrow(/a label of track 1 is 0.5/);
  });
});
