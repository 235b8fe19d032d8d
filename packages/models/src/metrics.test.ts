import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { auroc, averagePrecision, foldSums, pearson, rSquared, sequenceSums, spearman } from './metrics.ts';

const two = { tracks: 2 };
const one = { tracks: 1 };
const rows = [
  [1, 5, 2, 3, 4, 4],
  [0, 2, 7, 1],
  [3, 3, 9, 8],
] as const;
const targets = [
  [2, 4, 1, 1, 5, 3],
  [1, 0, 6, 2],
  [2, 2, 7, 9],
] as const;

/** Two passes: means first. */
function twoPassPearson(p: readonly number[], t: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const [mp, mt] = [mean(p), mean(t)];
  const dot = (f: (i: number) => number) => p.reduce((total, _, i) => total + f(i), 0);
  const covariance = dot((i) => (p[i]! - mp) * (t[i]! - mt));
  return covariance / Math.sqrt(dot((i) => (p[i]! - mp) ** 2) * dot((i) => (t[i]! - mt) ** 2));
}

describe('sums per sequence', () => {
  it('give the correlation over all positions of all sequences', () => {
    const sums = foldSums(rows.map((row, i) => sequenceSums(row, targets[i]!, two)));
    const track = (list: readonly (readonly number[])[], at: number) =>
      list.flatMap((values) => values.filter((_, i) => i % 2 === at));
    const { perTrack, mean } = pearson(sums);
    expect(sums.rows).toBe(7);
    for (const at of [0, 1])
      expect(perTrack[at]).toBeCloseTo(twoPassPearson(track(rows, at), track(targets, at)), 12);
    expect(mean).toBeCloseTo((perTrack[0]! + perTrack[1]!) / 2, 15);
  });

  it('fold to the same bits wherever the sequences were predicted', () => {
    const values = fc.array(fc.float({ noNaN: true, min: -100, max: 100 }), { minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(fc.array(fc.tuple(values, values), { minLength: 1, maxLength: 9 }), (sequences) => {
        const whole = foldSums(sequences.map(([p, t]) => sequenceSums(p, t, two)));
        const onDevices = [0, 1, 2].map((device) =>
          sequences.flatMap(([p, t], i) => (i % 3 === device ? [sequenceSums(p, t, two)] : [])),
        );
        const inOrder = sequences.map((_, i) => onDevices[i % 3]![Math.floor(i / 3)]!);
        expect(foldSums(inOrder)).toEqual(whole);
      }),
    );
  });

  it('explain all variance when the prediction is the target, and none when it is the mean', () => {
    expect(rSquared(sequenceSums([1, 2, 4, 9], [1, 2, 4, 9], one)).mean).toBe(1);
    expect(rSquared(sequenceSums([4, 4, 4, 4], [1, 2, 4, 9], one)).mean).toBeCloseTo(0, 12);
  });

  it('leave a constant track out of the mean and count it', () => {
    const target = [1, 0.1, 2, 0.1, 4, 0.1];
    const metric = pearson(sequenceSums([1, 3, 2, 2, 5, 1], target, two));
    expect(metric.perTrack[1]).toBeNaN();
    expect(metric).toMatchObject({ undefinedTracks: 1, mean: metric.perTrack[0] });
    expect(rSquared(sequenceSums(target, target, two)).undefinedTracks).toBe(1);
    expect(pearson(sequenceSums([2, 2], [0, 1], one))).toMatchObject({ mean: Number.NaN });
  });

  it('pass NaN on', () => {
    expect(pearson(sequenceSums([Number.NaN, 1, 2], [0, 1, 2], one)).perTrack[0]).toBeNaN();
    expect(rSquared(sequenceSums([Number.NaN, 1, 2], [0, 1, 2], one)).perTrack[0]).toBeNaN();
  });

  it('refuse values that are no rows of tracks', () => {
    expect(() => sequenceSums([1, 2, 3], [1, 2, 3], two)).toThrow('both must be [rows, 2]');
    expect(() => foldSums([])).toThrow('at least one sequence');
  });
});

describe('ranks', () => {
  it('give an area of 1 to a perfect order, 0 to the reverse and 1/2 to ties', () => {
    expect(auroc([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], one).mean).toBe(1);
    expect(auroc([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], one).mean).toBe(0);
    expect(auroc([3, 3, 3, 3], [0, 1, 0, 1], one).mean).toBe(0.5);
    expect(auroc([1, 2], [1, 1], one).undefinedTracks).toBe(1);
  });

  it('equal the share of ordered pairs, ties counting half', () => {
    const cases = fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.boolean()), { minLength: 2 });
    fc.assert(
      fc.property(cases, (pairs) => {
        const positives = pairs.filter(([, label]) => label);
        const negatives = pairs.filter(([, label]) => !label);
        fc.pre(positives.length > 0 && negatives.length > 0);
        const score = (a: number, b: number) => (a > b ? 1 : a === b ? 0.5 : 0);
        const ordered = positives.reduce(
          (total, [p]) => negatives.reduce((sum, [n]) => sum + score(p, n), total),
          0,
        );
        const metric = auroc(
          pairs.map(([value]) => value),
          pairs.map(([, label]) => Number(label)),
          one,
        );
        expect(metric.mean).toBeCloseTo(ordered / (positives.length * negatives.length), 12);
      }),
    );
  });

  it('average precision is that of the scikit-learn example', () => {
    expect(averagePrecision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], one).mean).toBeCloseTo(0.8333333, 6);
    expect(averagePrecision([1, 1, 1, 1], [0, 1, 0, 0], one).mean).toBe(0.25);
    expect(averagePrecision([1, 2], [0, 0], one).mean).toBeNaN();
  });

  it('correlate to 1 for any rising function', () => {
    expect(spearman([1, 2, 3, 4], [1, 10, 100, 1000], one).mean).toBeCloseTo(1, 15);
    expect(spearman([1, 1, 2, 3], [5, 6, 7, 8], one).mean).toBeCloseTo(0.9486833, 6);
  });
});
