/** Where two tensors differ, and by how much. */
import type { TypedArray } from '@cohesin/core';
import { f16ToF32 } from '@cohesin/io';

export interface Differing {
  /** Values that differ in any bit. */
  readonly count: number;
  readonly of: number;
  /** Row-major index of the first, and both of its values. */
  readonly index: number;
  readonly values: readonly [number, number];
  /** Floating-point numbers between the two, at the first and at most; NaN where one is NaN. */
  readonly ulps: number;
  readonly mostUlps: number;
}

/**
 * Compares the bits of as many values of two tensors: f32, or f16 as its bits. 0 and −0 differ, and are 0 ulps apart.
 *
 * @returns undefined where all bits are equal
 */
export function compareValues(a: TypedArray, b: TypedArray): Differing | undefined {
  const half = a instanceof Uint16Array;
  const [x, y] = [bitsOf(a), bitsOf(b)];
  let [count, index, most] = [0, -1, 0];
  for (let i = 0; i < x.length; i++) {
    if (x[i] === y[i]) continue;
    if (count++ === 0) index = i;
    most = Math.max(most, ulpsBetween(x[i]!, y[i]!, half)); // NaN stays
  }
  if (count === 0) return undefined;
  const numberOf = (bits: Bits): number =>
    half
      ? f16ToF32(Uint16Array.of(bits[index]!))[0]!
      : new Float32Array(bits.buffer, bits.byteOffset)[index]!;
  const values = [numberOf(x), numberOf(y)] as const;
  return {
    count,
    of: x.length,
    index,
    values,
    ulps: ulpsBetween(x[index]!, y[index]!, half),
    mostUlps: most,
  };
}

type Bits = Uint32Array | Uint16Array;

const bitsOf = (values: TypedArray): Bits =>
  values instanceof Uint16Array ? values : new Uint32Array(values.buffer, values.byteOffset, values.length);

/** Distance in the order of the numbers: sign and magnitude become a signed integer. */
function ulpsBetween(a: number, b: number, half: boolean): number {
  const [sign, infinity] = half ? [0x8000, 0x7c00] : [0x8000_0000, 0x7f80_0000];
  const placeOf = (bits: number): number => {
    const magnitude = bits % sign;
    if (magnitude > infinity) return Number.NaN;
    return bits >= sign ? -magnitude : magnitude;
  };
  return Math.abs(placeOf(a) - placeOf(b));
}

/** `12 of 1,280 values; first [37]: 0.25 and 0.25000003 (1 ulp), at most 5 ulps`. */
export function differingText({ count, of, index, values: [a, b], ulps, mostUlps }: Differing): string {
  const number = (value: number): string => value.toLocaleString('en');
  const distance = (n: number): string =>
    Number.isNaN(n) ? 'not a number' : `${number(n)} ${n === 1 ? 'ulp' : 'ulps'}`;
  return `${number(count)} of ${number(of)} values; first [${number(index)}]: ${exact(a)} and ${exact(b)} (${distance(ulps)}), at most ${distance(mostUlps)}`;
}

const exact = (value: number): string => (Object.is(value, -0) ? '-0' : `${Number(value.toPrecision(9))}`);
