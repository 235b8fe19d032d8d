/** Test values and how they are compared. */
import { elementCount, type HostTensor, hostTensor } from '../host-tensor.ts';
import { mix } from '../random.ts';

/** 1e-5 of the largest value: sums of up to some thousand products in f32, whose rounding grows as √terms · 6e-8. */
export const VALUE_TOLERANCE = 1e-5;
/** Gradients chain several such sums. */
export const GRADIENT_TOLERANCE = 1e-4;

export interface RandomOptions {
  readonly seed: number;
  /** Half-open, `[-1, 1)` by default. */
  readonly range?: readonly [number, number];
  /** Whole numbers only. */
  readonly integers?: boolean;
}

/** An f32 tensor whose element i is a hash of (seed, i): the same on every machine and in any order. */
export function randomTensor(shape: readonly number[], options: RandomOptions): HostTensor {
  const { seed, range = [-1, 1], integers = false } = options;
  const values = Float32Array.from({ length: elementCount(shape) }, (_, i) => {
    const value = range[0] + ((range[1] - range[0]) * mix(seed, i)) / 2 ** 32;
    return integers ? Math.floor(value) : value;
  });
  return hostTensor(shape, values);
}

/** max |actual − expected| / max |expected|; infinite where the sizes differ or one of them is NaN and not the other. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    if (Number.isNaN(a) && Number.isNaN(e)) continue;
    difference =
      Number.isNaN(a - e) && a !== e
        ? Number.POSITIVE_INFINITY
        : Math.max(difference, a === e ? 0 : Math.abs(a - e));
    largest = Math.max(largest, Number.isNaN(e) ? 0 : Math.abs(e));
  }
  return difference === 0 ? 0 : difference / largest;
}

export function expectClose(
  what: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
): void {
  const error = relativeError(actual, expected);
  if (error <= tolerance) return;
  const worst = Array.from(expected, (e, i) => Math.abs(e - actual[i]!)).reduce(
    (at, d, i, all) => (d > all[at]! ? i : at),
    0,
  );
  throw new Error(
    `${what}: relative error ${error.toPrecision(3)} exceeds ${tolerance}; worst at element ${worst} of ${expected.length}: ${actual[worst]} instead of ${expected[worst]}`,
  );
}

/** @throws when two results differ in any bit, naming the first. */
export function expectSameBits(what: string, actual: Float32Array, expected: Float32Array): void {
  const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.slice().buffer);
  const [a, e] = [bits(actual), bits(expected)];
  const differing = e.reduce((count, word, i) => count + (word === a[i] ? 0 : 1), 0);
  if (a.length === e.length && differing === 0) return;
  const at = e.findIndex((word, i) => word !== a[i]);
  throw new Error(
    `${what}: ${differing} of ${e.length} values differ in bits (${a.length} joined); first at ${at}: ${actual[at]} instead of ${expected[at]}`,
  );
}
