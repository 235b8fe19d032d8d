/**
 * Features of a relative distance d = −(T − 1) … T − 1, from which relative keys are made. Computed in float64 when a
 * model is made. Row r of the `[2 · length − 1, features]` result belongs to distance r − (T − 1); the second half of the
 * features is the first times sign(d).
 */
import { type HostTensor, hostTensor } from '../host-tensor.ts';
import { logGammaReference } from '../ops/log-gamma.ts';

export interface PositionalOptions {
  /** Positions of the sequence: T. */
  readonly length: number;
  /** Features of a distance. */
  readonly features: number;
}

/** A feature of |d|. */
type Basis = (distance: number) => number;

/**
 * Enformer's features (Avsec et al. 2021, attention_module.py): exponentials, central masks and gamma densities, a sixth
 * of `features` each. The densities are divided by their maximum over positions.
 *
 * @throws when `features` is not a multiple of 6.
 */
export function enformerPositionalFeatures({ length, features }: PositionalOptions): HostTensor {
  if (features % 6 !== 0)
    throw new Error(`enformerPositionalFeatures: ${features} features; use a multiple of 6`);
  const count = features / 6;
  const each = (basis: (i: number) => Basis): Basis[] => Array.from({ length: count }, (_, i) => basis(i));
  return signedFeatures(length, [
    ...each((i) => exponential(2 ** linspace(3, Math.log2(length), count, i))),
    ...each((i) => (distance) => (distance < 2 ** (i + 1) - 1 ? 1 : 0)),
    ...each((i) => gammaDensity(length, linspace(length / count, length, count, i), length / (2 * count))),
  ]);
}

/**
 * Basenji's and Borzoi's features (layers.py): central masks of widths rateⁱ − 1, compared in float32 as published.
 *
 * @throws when `features` is odd.
 */
export function centralMaskFeatures({ length, features }: PositionalOptions): HostTensor {
  if (features % 2 !== 0) throw new Error(`centralMaskFeatures: ${features} features; use an even number`);
  const count = features / 2;
  const rate = Math.fround(Math.exp(Math.log(length + 1) / count));
  const widths = Array.from({ length: count }, (_, i) => Math.fround(Math.fround(rate ** (i + 1)) - 1));
  return signedFeatures(
    length,
    widths.map((width) => (distance) => (width > distance ? 1 : 0)),
  );
}

function signedFeatures(length: number, bases: readonly Basis[]): HostTensor {
  const rows = 2 * length - 1;
  const values = Array.from({ length: rows }, (_, row) => {
    const distance = row - (length - 1);
    const half = bases.map((basis) => basis(Math.abs(distance)));
    return [...half, ...half.map((value) => Math.sign(distance) * value)];
  });
  return hostTensor([rows, 2 * bases.length], Float32Array.from(values.flat()));
}

function exponential(halfLife: number): Basis {
  return (distance) => Math.exp((-Math.LN2 / halfLife) * distance);
}

/** Value i of `count` evenly spaced ones. */
function linspace(from: number, to: number, count: number, i: number): number {
  return count === 1 ? from : from + ((to - from) * i) / (count - 1);
}

/** A gamma density by its mean and standard deviation, over its largest value on 0 … length − 1. */
function gammaDensity(length: number, mean: number, deviation: number): Basis {
  const concentration = (mean / deviation) ** 2;
  const rate = mean / deviation ** 2;
  const normaliser = concentration * Math.log(rate) - logGammaReference(concentration);
  const density: Basis = (distance) => {
    const power =
      distance === 0 ? (concentration === 1 ? 0 : -Infinity) : (concentration - 1) * Math.log(distance);
    return Math.exp(power - rate * distance + normaliser) + 1e-8; // 1e-8 as published
  };
  const largest = Array.from({ length }, (_, distance) => density(distance)).reduce((a, b) => Math.max(a, b));
  return (distance) => density(distance) / largest;
}
