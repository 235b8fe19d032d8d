import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { binTargets, type SumStatistic, type TrackTransform, type WindowTransform } from './targets.ts';

const plain: Omit<WindowTransform, 'poolWidthBp'> = {
  blacklist: [],
  interpolate: false,
  precision: 'f64',
  published: false,
};
const track = (statistic: SumStatistic, more: Partial<TrackTransform> = {}): TrackTransform => ({
  statistic,
  scale: 1,
  ...more,
});
const bins = (values: readonly number[], poolWidthBp: number, transform: TrackTransform, window = {}) => [
  ...binTargets(Float32Array.from(values), transform, { ...plain, ...window, poolWidthBp }).values,
];

const value = fc.oneof(
  { weight: 5, arbitrary: fc.float({ min: 0, max: 1000, noNaN: true }) },
  { weight: 1, arbitrary: fc.constant(Number.NaN) },
);

describe('targets', () => {
  it('equal a loop in f64 for any width, scale, clips and missing values', () => {
    const window = fc
      .tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 9 }))
      .chain(([width, count]) =>
        fc.tuple(fc.constant(width), fc.array(value, { minLength: width * count, maxLength: width * count })),
      );
    const statistic = fc.constantFrom<SumStatistic>('sum', 'mean', 'max', 'sum_sqrt', 'mean_sqrt');
    const clip = fc.option(fc.float({ min: 1, max: 500, noNaN: true }), { nil: undefined });
    fc.assert(
      fc.property(
        window,
        statistic,
        fc.float({ min: 0.125, max: 8, noNaN: true }),
        clip,
        clip,
        (drawn, name, scale, hard, soft) => {
          const [width, values] = drawn;
          const clips = {
            ...(hard !== undefined && { clip: hard }),
            ...(soft !== undefined && { clipSoft: soft }),
          };
          const found = bins(values, width, track(name, { scale, ...clips }));
          for (const [bin, target] of found.entries()) {
            let [sum, most] = [0, 0];
            for (let i = bin * width; i < (bin + 1) * width; i++) {
              const at = Number.isNaN(values[i]) ? 0 : values[i]!;
              sum += at;
              most = Math.max(most, at);
            }
            let expected = scale * (name === 'max' ? most : name.startsWith('mean') ? sum / width : sum);
            if (name.endsWith('sqrt')) expected = Math.sqrt(1 + expected) - 1;
            if (soft !== undefined && expected > soft) expected = soft - 1 + Math.sqrt(expected - soft + 1);
            if (hard !== undefined) expected = Math.min(expected, hard);
            expect(Math.abs(target - expected)).toBeLessThanOrEqual(1e-12 * Math.max(1, expected));
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('of basenji differ from exact ones by the rounding of f32 or of f16', () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: 0, max: 100, noNaN: true }), { minLength: 300, maxLength: 300 }),
        (values) => {
          const [exact, single, half] = (['f64', 'f32', 'f16'] as const).map(
            (precision) => bins(values, 300, track('mean_sqrt', { scale: 0.3 }), { precision })[0]!,
          );
          expect(Math.abs(single! - exact!)).toBeLessThanOrEqual(1e-5 * (1 + exact!)); // about 40 roundings of 6e-8
          expect(Math.abs(half! - exact!)).toBeLessThanOrEqual(5e-4 * (1 + exact!)); // half a step of f16
        },
      ),
    );
  });

  it('are clipped where a mean would be, not bp by bp', () => {
    expect(bins([0, 100, 2, 4], 2, track('mean', { clip: 30 }))).toEqual([30, 3]);
    expect(bins([100, 100], 2, track('mean', { clipSoft: 64 }))).toEqual([64 - 1 + Math.sqrt(37)]);
    expect(bins([-100, -100], 2, track('mean', { clip: 64 }))).toEqual([-64]);
  });

  it('follow the published order where asked', () => {
    const made = track('sum_sqrt', { scale: 0.5, clipSoft: 16, clip: 18 });
    expect(bins([256], 1, made, { published: true })).toEqual([9]); // 256^0.75 = 64 → 16 + √48 = 22.9 → 18 → 9
    expect(bins([81], 1, track('sum_sqrt', { scale: 2 }), { published: true })).toEqual([54]);
  });

  it('other statistics: median, peak, sum_exp75', () => {
    expect(bins([5, 1, 3, 10], 4, track('median'))).toEqual([4]);
    expect(bins([0.1, 0.15, 9, 9], 2, track('peak')).map((x) => x.toFixed(5))).toEqual([
      '0.70711',
      '1.00000',
    ]);
    expect(bins([15], 1, track('sum_exp75'))).toEqual([7]);
  });

  it('are 0 where values are missing, or on the line between their neighbours', () => {
    const { NaN: gap } = Number;
    expect(bins([gap, gap, 6, gap, gap, gap, 2, gap], 2, track('mean'))).toEqual([0, 3, 0, 1]);
    const filled = bins([gap, gap, 6, gap, gap, gap, 2, gap], 1, track('mean'), { interpolate: true });
    expect(filled).toEqual([2, 4, 6, 5, 4, 3, 2, 1]); // 0 beyond both ends
  });

  it('hold blacklisted places to the median of a window of at least 8 bins without missing values', () => {
    const values = [1, 2, 3, 4, 5, 6, 7, 800];
    const blacklist = [[6, 8]] as const;
    expect(bins(values, 1, track('sum'), { blacklist }).slice(5)).toEqual([6, 4.5, 4.5]);
    expect(bins(values, 2, track('sum'), { blacklist })).toEqual([3, 7, 11, 0]);
    expect(bins([Number.NaN, ...values.slice(1)], 1, track('sum'), { blacklist }).slice(5)).toEqual([
      6, 0, 0,
    ]);
  });

  it('beyond f16 are held to its range and counted, as are clipped bins and missing bp', () => {
    const { values, ...counts } = binTargets(
      Float32Array.of(70_000, 1, Number.NaN, 9),
      track('sum', { clip: 66_000 }),
      {
        ...plain,
        poolWidthBp: 1,
      },
    );
    expect([...values]).toEqual([65_504, 1, 0, 9]);
    expect(counts).toEqual({ clipped: 1, overflowed: 1, missingBp: 1 });
  });
});
