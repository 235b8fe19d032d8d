/** From the values of a window, one per bp, to targets, one per bin: step 12 of basenji_data_read.py and hound_data_read.py. */
import { f16ToF32, f32ToF16 } from '../float16.ts';
import type { Span } from '../intervals.ts';

export const SUM_STATISTICS = [
  'sum',
  'mean',
  'max',
  'median',
  'peak',
  'sum_sqrt',
  'mean_sqrt',
  'sum_exp75',
] as const;
export type SumStatistic = (typeof SUM_STATISTICS)[number];

/** What is done to a track. */
export interface TrackTransform {
  readonly statistic: SumStatistic;
  readonly scale: number;
  /** Values above x become x - 1 + sqrt(value - x + 1). */
  readonly clipSoft?: number;
  /** Values end here, on both sides of 0. */
  readonly clip?: number;
}

/**
 * How values are computed before they are rounded to f16 targets.
 *
 * - `f64`: in f64.
 * - `f32`: in f32, in the order of numpy: as basenji's and baskerville's steps but for their rounding of each bp.
 * - `f16`: with it: each bp is rounded to f16 first, where values above 65 504 become infinite.
 */
export type Precision = 'f64' | 'f32' | 'f16';

export interface WindowTransform {
  readonly poolWidthBp: number;
  /** Places in the window, in bp from its start, whose values are held to the window's median. */
  readonly blacklist: readonly Span[];
  /** Fills values that are missing from their neighbours; else they are 0. */
  readonly interpolate: boolean;
  readonly precision: Precision;
  /** Borzoi's paper: x^0.75 for `_sqrt`, soft clip x + sqrt(value - x), scale last. */
  readonly published: boolean;
}

export interface BinnedTargets {
  /** `[window / poolWidthBp]`, in the range of f16. */
  readonly values: Float64Array;
  /** Of the bins, how many a hard or soft clip changed. */
  readonly clipped: number;
  /** Of the bins, how many were beyond the range of f16. */
  readonly overflowed: number;
  /** Of the bp, how many had no value. */
  readonly missingBp: number;
}

const F16_MAX = 65_504;
/** Below this many bins a window's median says little. basenji_data_read.py */
const LEAST_BINS_FOR_MEDIAN = 8;

/**
 * Targets of one track in one window. `coverage` `[bp]`, NaN where missing, is overwritten.
 *
 * Blacklisted places are clipped to ± the median of the window, which is 0 when a value is missing or there are fewer
 * than 8 bins; what is missing then becomes 0.
 */
export function binTargets(
  coverage: Float32Array,
  track: TrackTransform,
  window: WindowTransform,
): BinnedTargets {
  const values = window.precision === 'f16' ? f16ToF32(f32ToF16(coverage)) : coverage;
  let missingBp = 0;
  for (const value of values) if (Number.isNaN(value)) missingBp++;
  if (missingBp > 0 && window.interpolate) interpolateMissing(values);
  const bins = values.length / window.poolWidthBp;
  if (window.blacklist.length > 0) {
    const complete = missingBp === 0 || window.interpolate;
    const baseline = complete && bins >= LEAST_BINS_FOR_MEDIAN ? median(values) : 0;
    for (const [start, end] of window.blacklist) {
      for (let i = start; i < end; i++) values[i] = clamp(values[i]!, baseline);
    }
  }
  if (missingBp > 0) for (let i = 0; i < values.length; i++) if (Number.isNaN(values[i])) values[i] = 0;
  const [before, after] = window.published ? [1, track.scale] : [track.scale, 1];
  if (window.precision !== 'f64' && before !== 1)
    for (let i = 0; i < values.length; i++) values[i]! *= Math.fround(before);
  const pooled = pool(values, bins, track.statistic, window);
  if (window.precision === 'f64' && before !== 1) for (let i = 0; i < bins; i++) pooled[i]! *= before;
  return { ...transformBins(pooled, track, after, window), missingBp };
}

/** Straight lines between the values on both sides; 0 beyond the ends of the window. */
function interpolateMissing(values: Float32Array): void {
  let before = -1;
  for (let i = 0; i <= values.length; i++) {
    if (i < values.length && Number.isNaN(values[i])) continue;
    const left = before < 0 ? 0 : values[before]!;
    const right = i < values.length ? values[i]! : 0;
    for (let j = before + 1; j < i; j++) values[j] = left + ((right - left) * (j - before)) / (i - before);
    before = i;
  }
}

function median(values: Float32Array): number {
  const ordered = values.toSorted();
  const middle = (ordered.length - 1) / 2;
  return (ordered[Math.floor(middle)]! + ordered[Math.ceil(middle)]!) / 2;
}

function clamp(value: number, limit: number): number {
  return Math.min(Math.max(value, -limit), limit);
}

function pool(
  values: Float32Array,
  bins: number,
  statistic: SumStatistic,
  { poolWidthBp: width, precision }: WindowTransform,
): Float64Array {
  const sum = precision === 'f64' ? sumF64 : sumAsNumpy;
  const reduce = statistic === 'max' ? max : statistic === 'median' ? median : sum;
  const divisor = statistic.startsWith('mean') || statistic === 'peak' ? width : 1;
  return Float64Array.from(
    { length: bins },
    (_, bin) => reduce(values.subarray(bin * width, (bin + 1) * width)) / divisor,
  );
}

function sumF64(values: Float32Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}

/** numpy's pairwise sum in f32: eight partial sums up to 128 values, halves above. */
function sumAsNumpy(values: Float32Array): number {
  const count = values.length;
  if (count > 128) {
    const half = (count >> 1) - ((count >> 1) % 8);
    return Math.fround(sumAsNumpy(values.subarray(0, half)) + sumAsNumpy(values.subarray(half)));
  }
  const even = count < 8 ? 0 : count - (count % 8);
  const lanes = new Float32Array(8);
  for (let i = 0; i < even; i++) lanes[i % 8]! += values[i]!;
  for (const step of [1, 2, 4]) for (let i = 0; i < 8; i += 2 * step) lanes[i]! += lanes[i + step]!;
  let total = lanes[0]!;
  for (let i = even; i < count; i++) total = Math.fround(total + values[i]!);
  return total;
}

function max(values: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) most = Math.max(most, values[i]!);
  return most;
}

/** Root, soft clip, clip, and the scale where it comes last. */
function transformBins(
  bins: Float64Array,
  track: TrackTransform,
  scaleLast: number,
  { published, precision }: WindowTransform,
): Omit<BinnedTargets, 'missingBp'> {
  const { statistic, clipSoft = Number.POSITIVE_INFINITY, clip = Number.POSITIVE_INFINITY } = track;
  const round = precision === 'f64' ? (value: number): number => value : Math.fround;
  const shift = published ? 0 : 1;
  let clipped = 0;
  let overflowed = 0;
  for (let i = 0; i < bins.length; i++) {
    let value = rooted(round(bins[i]!), statistic, published, round);
    const unclipped = value;
    if (value > clipSoft)
      value = round(clipSoft - shift + round(Math.sqrt(round(round(value - clipSoft) + shift))));
    value = clamp(value, clip);
    if (value !== unclipped) clipped++;
    value = round(value * scaleLast);
    if (Math.abs(value) > F16_MAX) overflowed++;
    bins[i] = clamp(value, F16_MAX);
  }
  return { values: bins, clipped, overflowed };
}

/** NaN where a root of a negative number is asked for. */
function rooted(
  value: number,
  statistic: SumStatistic,
  published: boolean,
  round: (value: number) => number,
): number {
  switch (statistic) {
    case 'sum_sqrt':
    case 'mean_sqrt':
      return published ? round(value ** 0.75) : round(-1 + round(Math.sqrt(round(1 + value))));
    case 'sum_exp75':
      return round(-1 + round(round(1 + value) ** 0.75));
    case 'peak':
      return Math.min(round(Math.sqrt(round(value * 4))), 1);
    default:
      return value;
  }
}
