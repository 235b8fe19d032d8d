/** The clip of extreme values over a whole track, the last step of hound_data_read.py. */
import { f16ToF32, f32ToF16 } from '../float16.ts';

const CODES = 2 ** 16;
const SIGN = 2 ** 15;

/** How often each f16 value occurs in a track. Exact, and 512 KiB however long the track is. */
export class ValueCounts {
  readonly #counts = new Float64Array(CODES);
  #total = 0;

  add(bits: Uint16Array): void {
    for (const code of bits) this.#counts[code]!++;
    this.#total += bits.length;
  }

  /** The quantile q of all values, on the line between the two that it lies between; NaN of none. */
  quantile(q: number): number {
    if (this.#total === 0) return Number.NaN;
    const place = q * (this.#total - 1);
    const [low, high] = [this.#at(Math.floor(place)), this.#at(Math.ceil(place))];
    return low + (high - low) * (place - Math.floor(place));
  }

  /** The value at a place of the ordered values. */
  #at(place: number): number {
    let seen = 0;
    for (let rank = 0; rank < CODES; rank++) {
      // From the least: negative values by falling magnitude, then the others.
      const code = rank < SIGN ? CODES - 1 - rank : rank - SIGN;
      seen += this.#counts[code]!;
      if (seen > place) return f16ToF32(Uint16Array.of(code))[0]!;
    }
    throw new Error(`place ${place} of ${this.#total} values`);
  }
}

/** Holds values to ±`limit`, rounded to f16; gives how many were beyond. */
export function holdTo(bits: Uint16Array, limit: number): number {
  const [most] = f32ToF16([limit]);
  const values = f16ToF32(bits);
  let held = 0;
  for (let i = 0; i < bits.length; i++) {
    if (Math.abs(values[i]!) <= limit) continue;
    bits[i] = values[i]! < 0 ? most! | SIGN : most!;
    held++;
  }
  return held;
}
