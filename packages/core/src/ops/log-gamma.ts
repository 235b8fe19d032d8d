import { literal } from '../literal.ts';
import type { Tensor } from '../tensor.ts';
import { defineCurve } from './curve.ts';

/**
 * log Γ(x) for x > 0, element by element; log(n!) at n + 1. For x ≤ 0 the result is undefined.
 *
 * Abramowitz & Stegun 1964: the series 6.1.33 about 2, where x is brought by Γ(x + 1) = x Γ(x); from 8 on Stirling's 6.1.41.
 */
export function logGamma(x: Tensor): Tensor {
  return op(x, {});
}

const EULER = 0.5772156649015329;
/** ζ(k) − 1 for k = 2, 3, …: Abramowitz & Stegun, table 23.3. Beyond, (z / 2)^k with |z| ≤ 1/2 is below 1e-9. */
const ZETA_MINUS_1 = [
  0.6449340668482264, 0.2020569031595943, 0.08232323371113819, 0.03692775514336993, 0.01734306198444914,
  0.008349277381922827, 0.00407735619794434, 0.002008392826082214, 0.0009945751278180853,
  0.0004941886041194646, 0.0002460865533080483, 0.0001227133475784891, 0.00006124813505870483,
] as const;
const HALF_LOG_TWO_PI = 0.9189385332046727;

/** WGSL of a polynomial in `x`, the coefficient of the constant first. */
function horner(x: string, coefficients: readonly number[]): string {
  return coefficients
    .map(literal)
    .reduceRight((inner, next) => (inner === '' ? next : `(${next} + ${x} * ${inner})`), '');
}

const sign = (k: number): number => (k % 2 === 0 ? 1 : -1);
const SERIES = [1 - EULER, ...ZETA_MINUS_1.map((zeta, k) => (sign(k) * zeta) / (k + 2))];
const SLOPE_SERIES = [1 - EULER, ...ZETA_MINUS_1.map((zeta, k) => sign(k) * zeta)];

const op = defineCurve({
  name: 'logGamma',
  value: `var near = x; var above = 1.0; var below = 1.0;
  for (; near > 2.5 && x < 8.0; above *= near) { near -= 1.0; }
  for (; near < 1.5 && near > 0.0; near += 1.0) { below *= near; }
  let z = near - 2.0; let small = z * ${horner('z', SERIES)} + (log(above) - log(below));
  let r = 1.0 / x; let r2 = r * r;
  let large = (x - 0.5) * log(x) - x + (${literal(HALF_LOG_TWO_PI)} + r * ${horner('r2', [1 / 12, -1 / 360, 1 / 1260])});
  let y = select(large, small, x < 8.0);`,
  gradient: `var near = x; var steps = 0.0;
  for (; near > 2.5 && x < 8.0; steps += 1.0 / near) { near -= 1.0; }
  for (; near < 1.5 && near > 0.0; near += 1.0) { steps -= 1.0 / near; }
  let small = ${horner('(near - 2.0)', SLOPE_SERIES)} + steps;
  let r = 1.0 / x; let r2 = r * r;
  let large = log(x) - 0.5 * r - r2 * ${horner('r2', [1 / 12, -1 / 120, 1 / 252])};
  let dx = dy * select(large, small, x < 8.0);`,
  reference: logGammaReference,
  slope: digammaReference,
  cheap: false,
  range: [0.02, 20],
});

const FAR = 30; // where Stirling's series to 1/x⁵ is exact to 2e-14

/** log Γ(x) for x > 0 in float64. */
export function logGammaReference(x: number): number {
  let product = 1;
  let far = x;
  for (; far < FAR; far++) product *= far;
  const r = 1 / far;
  const series = r * (1 / 12 - r * r * (1 / 360 - (r * r) / 1260));
  return (far - 0.5) * Math.log(far) - far + HALF_LOG_TWO_PI + series - Math.log(product);
}

function digammaReference(x: number): number {
  let steps = 0;
  let far = x;
  for (; far < FAR; far++) steps += 1 / far;
  const r2 = 1 / (far * far);
  return Math.log(far) - 0.5 / far - r2 * (1 / 12 - r2 * (1 / 120 - r2 / 252)) - steps;
}
