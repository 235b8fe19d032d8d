/**
 * Initial values. Every value is a hash of (parameter's seed, index, attempt), so a parameter starts the same however
 * the model around it changes. Fans: a weight is `[in, out]` or `[size, …, in, out]`.
 */

import { elementCount } from '../host-tensor.ts';
import { hashWords } from '../ops/random.ts';
import type { Initializer } from '../parameter.ts';

export { ones, zeros } from '../parameter.ts';

/** Standard deviation of a unit normal truncated to ±2, as Keras and Sonnet divide it out. */
const TRUNCATED_DEVIATION = 0.879_625_661_034_239_78;

/** Inputs that one output sums over, and outputs that one input goes to. */
function fans(shape: readonly number[]): { readonly fanIn: number; readonly fanOut: number } {
  const outputs = shape.at(-1) ?? 1;
  const inputs = shape.at(-2) ?? outputs;
  const window = elementCount(shape.slice(0, -2));
  return { fanIn: window * inputs, fanOut: window * outputs };
}

/** Uniform in (0, 1): the middle of one of 2³² equal intervals. */
const unit = (...words: readonly number[]): number => (hashWords(...words) + 0.5) / 2 ** 32;

function fill(shape: readonly number[], value: (i: number) => number): Float32Array {
  return Float32Array.from({ length: elementCount(shape) }, (_, i) => value(i));
}

/** `gain` on the diagonal of a matrix, 0 elsewhere. */
export function identity(gain = 1): Initializer {
  return (shape, _seed) => fill(shape, (i) => (Math.floor(i / shape[1]!) === i % shape[1]! ? gain : 0));
}

/** Uniform in (−limit, limit). */
export function uniform(limit: number): Initializer {
  return (shape, seed) => fill(shape, (i) => limit * (2 * unit(seed, i) - 1));
}

/** A normal distribution of this standard deviation, cut off at two of them (and so narrower than it by 0.8796). */
export function truncatedNormal(deviation: number): Initializer {
  return (shape, seed) => fill(shape, (i) => deviation * truncated(seed, i));
}

/** Box & Muller 1958, drawn again while beyond ±2. */
function truncated(seed: number, i: number): number {
  for (let attempt = 0; ; attempt++) {
    const radius = Math.sqrt(-2 * Math.log(unit(seed, i, attempt, 0)));
    const value = radius * Math.cos(2 * Math.PI * unit(seed, i, attempt, 1));
    if (Math.abs(value) <= 2) return value;
  }
}

/** He et al. 2015 as `he_normal` in Keras: truncated normal whose standard deviation is √(2 / fan in). */
export const heNormal: Initializer = (shape, seed) =>
  truncatedNormal(Math.sqrt(2 / fans(shape).fanIn) / TRUNCATED_DEVIATION)(shape, seed);

/** Sonnet's default for linear and convolution: truncated normal of 1 / √(fan in), not corrected for the cut. */
export const sonnetNormal: Initializer = (shape, seed) =>
  truncatedNormal(1 / Math.sqrt(fans(shape).fanIn))(shape, seed);

/** Glorot & Bengio 2010 as `glorot_uniform` in Keras: ±√(6 / (fan in + fan out)). */
export const glorotUniform: Initializer = (shape, seed) =>
  uniform(Math.sqrt(6 / (fans(shape).fanIn + fans(shape).fanOut)))(shape, seed);

/** ±1 / √(fan in), as Torch7 and PyTorch start linear and convolution weights; their biases use `uniform` of the same limit. */
export const torchUniform: Initializer = (shape, seed) =>
  uniform(1 / Math.sqrt(fans(shape).fanIn))(shape, seed);
