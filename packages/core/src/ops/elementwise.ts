/** Element-by-element functions of one tensor. All take x [...] and return the same shape, and all pass NaN on. */
import { literal } from '../literal.ts';
import type { Tensor } from '../tensor.ts';
import { defineCurve } from './curve.ts';

/** e^x. */
export function exp(x: Tensor): Tensor {
  return expOp(x, {});
}

/** The natural logarithm; −∞ at 0 and undefined below: keep x away from 0 with `maximum` or an added constant. */
export function log(x: Tensor): Tensor {
  return logOp(x, {});
}

/** √x; its gradient is infinite at 0. */
export function sqrt(x: Tensor): Tensor {
  return sqrtOp(x, {});
}

/** x². */
export function square(x: Tensor): Tensor {
  return squareOp(x, {});
}

/** |x|, with gradient 0 at 0. */
export function abs(x: Tensor): Tensor {
  return absOp(x, {});
}

/** max(x, 0), with gradient 0 at 0. */
export function relu(x: Tensor): Tensor {
  return reluOp(x, {});
}

/** x where positive, `slope · x` elsewhere. */
export function leakyRelu(x: Tensor, { slope = 0.2 }: { readonly slope?: number } = {}): Tensor {
  return leakyReluOp(x, { slope });
}

/** 1 / (1 + e^−x). */
export function sigmoid(x: Tensor): Tensor {
  return sigmoidOp(x, {});
}

/** The hyperbolic tangent, accurate to a few units in the last place near 0 too. */
export function tanh(x: Tensor): Tensor {
  return tanhOp(x, {});
}

/** x · sigmoid(x), also called swish. */
export function silu(x: Tensor): Tensor {
  return siluOp(x, {});
}

/** x where positive, e^x − 1 elsewhere (Clevert et al. 2016). */
export function elu(x: Tensor): Tensor {
  return eluOp(x, {});
}

/** log(1 + e^x), without overflow for large x and with full relative accuracy for very negative x. */
export function softplus(x: Tensor): Tensor {
  return softplusOp(x, {});
}

/** GELU as x · sigmoid(1.702 x): what Basenji2 and Enformer were trained with. */
export function geluSigmoid(x: Tensor): Tensor {
  return geluSigmoidOp(x, {});
}

/** GELU by its tanh approximation: what Borzoi was trained with. */
export function geluTanh(x: Tensor): Tensor {
  return geluTanhOp(x, {});
}

/** GELU as x · Φ(x), Φ the normal distribution function: PyTorch's default. */
export function geluErf(x: Tensor): Tensor {
  return geluErfOp(x, {});
}

/** x + 1 where positive, e^x elsewhere: a positive rate that grows linearly. */
export function expLinear(x: Tensor): Tensor {
  return expLinearOp(x, {});
}

/** log(1 + max(x, 0)): counts to log space. */
export function log1pRelu(x: Tensor): Tensor {
  return log1pReluOp(x, {});
}

const expOp = defineCurve({
  name: 'exp',
  value: 'let y = exp(x);',
  gradient: 'let dx = dy * exp(x);',
  reference: Math.exp,
  slope: Math.exp,
  cheap: false,
});
const logOp = defineCurve({
  name: 'log',
  value: 'let y = log(x);',
  gradient: 'let dx = dy / x;',
  reference: Math.log,
  slope: (x) => 1 / x,
  cheap: false,
  range: [0.1, 5],
});
const sqrtOp = defineCurve({
  name: 'sqrt',
  value: 'let y = sqrt(x);',
  gradient: 'let dx = dy * 0.5 / sqrt(x);',
  reference: Math.sqrt,
  slope: (x) => 0.5 / Math.sqrt(x),
  range: [0.1, 5],
});
const squareOp = defineCurve({
  name: 'square',
  value: 'let y = x * x;',
  gradient: 'let dx = dy * (2.0 * x);',
  reference: (x) => x * x,
  slope: (x) => 2 * x,
});
const absOp = defineCurve({
  name: 'abs',
  value: 'let y = abs(x);',
  gradient: 'let dx = dy * sign(x);',
  reference: Math.abs,
  slope: Math.sign,
});
const reluOp = defineCurve({
  name: 'relu',
  value: 'let y = max(x, 0.0);',
  gradient: 'let dx = select(0.0, dy, x > 0.0);',
  reference: (x) => (x <= 0 ? 0 : x),
  slope: (x) => (x > 0 ? 1 : 0),
});
const leakyReluOp = defineCurve({
  name: 'leakyRelu',
  value: 'let y = select(slope * x, x, x > 0.0);',
  gradient: 'let dx = select(slope * dy, dy, x > 0.0);',
  reference: (x, { slope }) => (x > 0 ? x : slope * x),
  slope: (x, { slope }) => (x > 0 ? 1 : slope),
  constants: { slope: 0.2 },
});

// Exponentials below take −|x|, so that they lie in (0, 1] and nothing overflows.
const logistic = (x: number): number => 1 / (1 + Math.exp(-x));
const sigmoidOf = (x: string): string => `let t = exp(-abs(${x}));
  let s = select(t, 1.0, ${x} >= 0.0) / (1.0 + t);`;
const sigmoidSlope = 't / ((1.0 + t) * (1.0 + t))'; // s (1 − s) without the cancellation near s = 1

const sigmoidOp = defineCurve({
  name: 'sigmoid',
  value: `${sigmoidOf('x')} let y = s;`,
  gradient: `let t = exp(-abs(x)); let dx = dy * (${sigmoidSlope});`,
  reference: logistic,
  slope: (x) => logistic(x) * logistic(-x),
  cheap: false,
});
const siluOp = defineCurve({
  name: 'silu',
  value: `${sigmoidOf('x')} let y = x * s;`,
  gradient: `${sigmoidOf('x')} let dx = dy * (s + x * (${sigmoidSlope}));`,
  reference: (x) => x * logistic(x),
  slope: (x) => logistic(x) + x * logistic(x) * logistic(-x),
  cheap: false,
});

/**
 * Defines h = tanh(x). WGSL's own is only as good as sinh / cosh: 150 ulp off near 0 on one driver, NaN beyond 88 on
 * another. Below 1/4 its Taylor series to x^9 (error 1e-8 of x), above it (1 − t) / (1 + t) with t = e^(−2|x|).
 */
const tanhOf = (x: string): string => `let x2 = ${x} * ${x};
  let series = ${x} * (1.0 + x2 * (${literal(-1 / 3)} + x2 * (${literal(2 / 15)} + x2 * (${literal(-17 / 315)} + x2 * ${literal(62 / 2835)}))));
  let t = exp(-2.0 * abs(${x}));
  let h = select(sign(${x}) * ((1.0 - t) / (1.0 + t)), series, abs(${x}) < 0.25);`;

const tanhOp = defineCurve({
  name: 'tanh',
  value: `${tanhOf('x')} let y = h;`,
  gradient: 'let t = exp(-2.0 * abs(x)); let dx = dy * (4.0 * t / ((1.0 + t) * (1.0 + t)));',
  reference: Math.tanh,
  slope: (x) => 1 / Math.cosh(x) ** 2,
  cheap: false,
});
const eluOp = defineCurve({
  name: 'elu',
  // e^x − 1 = 2h / (1 − h) with h = tanh(x / 2): no cancellation for small x.
  value: `let half = 0.5 * min(x, 0.0); ${tanhOf('half')} let y = select(2.0 * h / (1.0 - h), x, x > 0.0);`,
  gradient: 'let dx = dy * exp(min(x, 0.0));',
  reference: (x) => (x > 0 ? x : Math.expm1(x)),
  slope: (x) => Math.exp(Math.min(x, 0)),
  cheap: false,
});

/**
 * WGSL of log(1 + t) for t in [0, 1], given z = t / (2 + t), as 2 atanh(z), the series to z^13 (error 1e-8):
 * `log(1 + t)` would lose t below 6e-8, and a driver may re-associate the usual correction away.
 */
function log1pSeries(z: string): string {
  const odd = [1, 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13].map(literal);
  return `2.0 * ${z} * ${odd.reduceRight((inner, next) => `(${next} + ${z} * ${z} * ${inner})`)}`;
}

const softplusOp = defineCurve({
  name: 'softplus',
  value: `let t = exp(-abs(x)); let z = t / (2.0 + t); let y = max(x, 0.0) + ${log1pSeries('z')};`,
  gradient: `${sigmoidOf('x')} let dx = dy * s;`,
  reference: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  slope: logistic,
  cheap: false,
});
const log1pReluOp = defineCurve({
  name: 'log1pRelu',
  value: `let positive = max(x, 0.0); let z = positive / (2.0 + positive);
  let y = select(log(1.0 + positive), ${log1pSeries('z')}, positive <= 1.0);`,
  gradient: 'let dx = select(0.0, dy / (1.0 + x), x > 0.0);',
  reference: (x) => Math.log1p(Math.max(x, 0)),
  slope: (x) => (x > 0 ? 1 / (1 + x) : 0),
  cheap: false,
});

const GELU_SCALE = 1.702; // Hendrycks & Gimpel 2016, sigmoid form; Basenji2 and Enformer use it
const geluSigmoidOp = defineCurve({
  name: 'geluSigmoid',
  value: `let u = ${literal(GELU_SCALE)} * x; ${sigmoidOf('u')} let y = x * s;`,
  gradient: `let u = ${literal(GELU_SCALE)} * x; ${sigmoidOf('u')} let dx = dy * (s + u * (${sigmoidSlope}));`,
  reference: (x) => x * logistic(GELU_SCALE * x),
  slope: (x) => {
    const u = GELU_SCALE * x;
    return logistic(u) + u * logistic(u) * logistic(-u);
  },
  cheap: false,
});

const GELU_TANH_SCALE = 2 * Math.sqrt(2 / Math.PI); // Hendrycks & Gimpel 2016: (1 + tanh(u)) / 2 = sigmoid(2u)
const GELU_CUBIC = 0.044715; // Hendrycks & Gimpel 2016
const geluTanhArgument = (x: number): number => GELU_TANH_SCALE * (x + GELU_CUBIC * x ** 3);
const GELU_TANH = `let u = ${literal(GELU_TANH_SCALE)} * (x + ${literal(GELU_CUBIC)} * x * x * x); ${sigmoidOf('u')}`;
const geluTanhOp = defineCurve({
  name: 'geluTanh',
  value: `${GELU_TANH} let y = x * s;`,
  gradient: `${GELU_TANH}
  let du = ${literal(GELU_TANH_SCALE)} * (1.0 + ${literal(3 * GELU_CUBIC)} * x * x);
  let dx = dy * (s + x * du * (${sigmoidSlope}));`,
  reference: (x) => x * logistic(geluTanhArgument(x)),
  slope: (x) => {
    const u = geluTanhArgument(x);
    const du = GELU_TANH_SCALE * (1 + 3 * GELU_CUBIC * x * x);
    return logistic(u) + x * du * logistic(u) * logistic(-u);
  },
  cheap: false,
});

/** Press et al., Numerical Recipes, erfcc: erfc(z) = t·e^(−z² + polynomial in t), relative error below 1.2e-7. */
const ERFC = [
  -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
  -0.82215223, 0.17087277,
] as const;
/** Defines `phi`, the normal distribution function Φ at x. */
const NORMAL = `let z = abs(x) * ${literal(Math.SQRT1_2)}; let t = 1.0 / (1.0 + 0.5 * z);
  let tail = 0.5 * t * exp(-z * z + ${ERFC.slice(0, -1).reduceRight(
    (inner, next) => `(${literal(next)} + t * ${inner})`,
    literal(ERFC.at(-1)!),
  )});
  let phi = select(tail, 1.0 - tail, x >= 0.0);`;

const geluErfOp = defineCurve({
  name: 'geluErf',
  value: `${NORMAL} let y = x * phi;`,
  gradient: `${NORMAL} let dx = dy * (phi + x * ${literal(1 / Math.sqrt(2 * Math.PI))} * exp(-0.5 * x * x));`,
  reference: (x) => x * normal(x),
  slope: (x) => normal(x) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI),
  cheap: false,
});

/** Φ in float64: Φ(x) = 1/2 + φ(x) · Σ x^(2n+1) / (2n+1)!! (Marsaglia 2004), which has only positive terms. */
function normal(x: number): number {
  if (Math.abs(x) > 9) return x > 0 ? 1 : 0; // the tail is below 1e-18
  let term = x;
  let series = x;
  for (let n = 3; Math.abs(term) > 1e-17 * Math.abs(series); n += 2) {
    term *= (x * x) / n;
    series += term;
  }
  return 0.5 + (series * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
}

const EXP_LINEAR_LOWEST = -50; // e^-50 = 2e-22: the rate stays above 0 in f32, so that its logarithm is finite
const expLinearOp = defineCurve({
  name: 'expLinear',
  value: `let y = select(exp(clamp(x, ${literal(EXP_LINEAR_LOWEST)}, 0.0)), x + 1.0, x > 0.0);`,
  gradient: `let dx = dy * select(exp(min(x, 0.0)), 0.0, x < ${literal(EXP_LINEAR_LOWEST)});`,
  reference: (x) => (x > 0 ? x + 1 : Math.exp(Math.max(x, EXP_LINEAR_LOWEST))),
  slope: (x) => (x < EXP_LINEAR_LOWEST ? 0 : Math.exp(Math.min(x, 0))),
  cheap: false,
});
