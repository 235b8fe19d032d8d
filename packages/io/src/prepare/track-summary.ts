/** What a track came to, counted while it is read. */
import { f16ToF32 } from '../float16.ts';
import type { Interval } from '../intervals.ts';
import { percent } from '../page-parts.ts';
import type { TrackSource } from './options.ts';
import type { TrackTargets } from './target-reader.ts';

export interface TrackSummary {
  readonly identifier: string;
  readonly file: string;
  /** Of the targets as written. */
  readonly mean: number;
  readonly min: number;
  readonly max: number;
  /** Shares of the bins. */
  readonly zeroFraction: number;
  readonly clippedFraction: number;
  /** Bins beyond the range of f16, held to ±65 504. */
  readonly overflowed: number;
  /** Share of the bp without a value. */
  readonly missingFraction: number;
  /** Bins by size: 0, then up to each power of two from 2^-6 to 2^16. */
  readonly histogram: readonly number[];
}

const LEAST_POWER = -6;
const HISTOGRAM_BINS = 24;

/** Adds up the windows of one track. */
export class TrackCount {
  #bins = 0;
  #bp = 0;
  #sum = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;
  #zeros = 0;
  #clipped = 0;
  #overflowed = 0;
  #missingBp = 0;
  readonly #histogram: number[] = new Array(HISTOGRAM_BINS).fill(0);

  /** Takes one sequence. */
  add({ bits, clipped, overflowed, missingBp }: TrackTargets, { startBp, endBp }: Interval): void {
    for (const value of f16ToF32(bits)) {
      this.#sum += value;
      if (value < this.#min) this.#min = value;
      if (value > this.#max) this.#max = value;
      if (value === 0) this.#zeros++;
      const power = value === 0 ? LEAST_POWER - 1 : Math.ceil(Math.log2(Math.abs(value)));
      this.#histogram[
        Math.min(Math.max(power - LEAST_POWER + 1, value === 0 ? 0 : 1), HISTOGRAM_BINS - 1)
      ]!++;
    }
    this.#bins += bits.length;
    this.#bp += endBp - startBp;
    this.#clipped += clipped;
    this.#overflowed += overflowed;
    this.#missingBp += missingBp;
  }

  summary({ identifier, file }: TrackSource): TrackSummary {
    return {
      identifier,
      file,
      mean: this.#sum / this.#bins,
      min: this.#min,
      max: this.#max,
      zeroFraction: this.#zeros / this.#bins,
      clippedFraction: this.#clipped / this.#bins,
      overflowed: this.#overflowed,
      missingFraction: this.#missingBp / this.#bp,
      histogram: this.#histogram,
    };
  }
}

/** What someone should know before training on these tracks; `signed` ones may be below 0. */
export function trackWarnings(tracks: readonly TrackSummary[], signed: boolean): string[] {
  return tracks.flatMap(
    ({ identifier, file, min, max, zeroFraction, clippedFraction, overflowed, missingFraction }) => {
      const said: string[] = [];
      if (zeroFraction === 1)
        said.push(`is zero everywhere (${percent(missingFraction)} of its bp have no value)`);
      if (min < 0 && !signed) said.push(`has values below 0 (least ${min}); Poisson losses need none`);
      if (overflowed > 0) said.push(`has ${overflowed} bins beyond f16, held to ±65504; scale or clip it`);
      if (clippedFraction > 0.01)
        said.push(`has ${percent(clippedFraction)} of its bins clipped, up to ${max}`);
      return said.map((text) => `track ${identifier} (${file}) ${text}`);
    },
  );
}
