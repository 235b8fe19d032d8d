import { expect, test } from 'vitest';
import { binTargets, SUM_STATISTICS, type TrackTransform } from './targets.ts';
import { untransformTargets } from './untransform.ts';

const WINDOW = { poolWidthBp: 1, blacklist: [], interpolate: false, precision: 'f64' } as const;
const COVERAGE = [0, 0.125, 0.25, 1, 7.5, 16, 384, 4096];

test.each(
  SUM_STATISTICS.flatMap((statistic) => [false, true].map((published) => [statistic, published] as const)),
)('targets of %s give the coverage back (published: %s)', (statistic, published) => {
  const track: TrackTransform = { statistic, scale: 0.5, clipSoft: 6 };
  const coverage = statistic === 'peak' ? COVERAGE.slice(0, 3) : COVERAGE; // a peak ends at 1
  const { values } = binTargets(Float32Array.from(coverage), track, { ...WINDOW, published });
  const back = untransformTargets(values, track, { published });
  coverage.forEach((value, i) => {
    expect(back[i]).toBeCloseTo(value, 8);
  });
});

test('a hard clip is not undone', () => {
  const track: TrackTransform = { statistic: 'sum', scale: 2, clip: 32 };
  const { values } = binTargets(Float32Array.of(10, 20), track, { ...WINDOW, published: false });
  expect([...untransformTargets(values, track, { published: false })]).toEqual([10, 16]);
});
