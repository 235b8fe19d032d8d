/** Limits on the length of gradients and weights. */

import { literal } from '../literal.ts';
import { defineOp } from '../op.ts';
import { add, multiply } from '../ops/arithmetic.ts';
import { square } from '../ops/elementwise.ts';
import { sum } from '../ops/reduce.ts';
import type { Tensor } from '../tensor.ts';

/** Changes the gradients of a step before the optimizer sees them. */
export type GradientTransform = (
  gradients: readonly Tensor[],
  parameters: readonly Tensor[],
) => readonly Tensor[];

const limitOp = defineOp<{ readonly limit: number }>()({
  name: 'clipScale',
  inputs: ['squares'],
  infer: ({ squares }) => squares,
  kernel: {
    kind: 'map',
    expression: ({ squares }, { limit }) => `(${literal(limit)} / max(sqrt(${squares}), ${literal(limit)}))`,
  },
  reference: ({ squares }, { limit }) => squares.data.map((s) => limit / Math.max(Math.sqrt(s), limit)),
  samples: [{ inputs: { squares: [5] }, attrs: { limit: 0.7 }, range: { squares: [0, 2] } }],
});

/** Each gradient g of length over `limit` is scaled to it, limit / max(‖g‖, limit) · g: Keras' `clipnorm`. */
export function clipPerVariable(limit: number): (gradients: readonly Tensor[]) => readonly Tensor[] {
  return (gradients) =>
    gradients.map((gradient) => multiply(gradient, limitOp({ squares: sumOfSquares(gradient) }, { limit })));
}

/** All gradients are scaled alike so that their length together is at most `limit`: Keras' `global_clipnorm`. */
export function clipGlobalNorm(limit: number): (gradients: readonly Tensor[]) => readonly Tensor[] {
  return (gradients) => {
    const squares = gradients.map(sumOfSquares).reduce((a, b) => add(a, b));
    const scale = limitOp({ squares }, { limit });
    return gradients.map((gradient) => multiply(gradient, scale));
  };
}

const LEAST_UNIT = 1e-3; // baskerville's `eps`: what a unit of weights counts at least
const LEAST_GRADIENT = 1e-6;

const adaptiveOp = defineOp<{ readonly factor: number }>()({
  name: 'adaptiveScale',
  inputs: ['weightSquares', 'gradientSquares'],
  infer: ({ weightSquares }) => weightSquares,
  kernel: {
    kind: 'map',
    declarations: () => `fn adaptiveScale(weight: f32, gradient: f32, factor: f32) -> f32 {
  let limit = max(weight, ${literal(LEAST_UNIT)}) * factor;
  return select(limit / max(gradient, ${literal(LEAST_GRADIENT)}), 1.0, gradient < limit);
}`,
    expression: ({ weightSquares, gradientSquares }, { factor }) =>
      `adaptiveScale(sqrt(${weightSquares}), sqrt(${gradientSquares}), ${literal(factor)})`,
  },
  reference: ({ weightSquares, gradientSquares }, { factor }) =>
    weightSquares.data.map((squares, i) => {
      const limit = Math.max(Math.sqrt(squares), LEAST_UNIT) * factor;
      const gradient = Math.sqrt(gradientSquares.data[i]!);
      return gradient < limit ? 1 : limit / Math.max(gradient, LEAST_GRADIENT);
    }),
  samples: [
    {
      inputs: { weightSquares: [5], gradientSquares: [5] },
      attrs: { factor: 0.5 },
      range: { weightSquares: [0, 2], gradientSquares: [0, 2] },
    },
  ],
});

/**
 * Adaptive clipping (Brock et al. 2021) as in basenji and baskerville: each unit's gradient is at most `factor` times as long
 * as its weights, or as 1e-3. A unit is a column of a dense layer, all taps of one input and output of a 1-D convolution, an
 * output of a 2-D one; a vector is one unit.
 */
export function clipAdaptive(factor: number): GradientTransform {
  return (gradients, parameters) =>
    gradients.map((gradient, i) => {
      const scale = adaptiveOp(
        { weightSquares: unitSquares(parameters[i]!), gradientSquares: unitSquares(gradient) },
        { factor },
      );
      return multiply(gradient, scale);
    });
}

/** Of each unit: [in, out] → [out], [size, in, out] → [in, out], [height, width, in, out] → [out], [n] → []. */
function unitSquares(x: Tensor): Tensor {
  const rank = x.shape.length;
  return rank < 2 ? sumOfSquares(x) : sum(square(x), { from: 0, to: rank < 4 ? 1 : 3 });
}

const sumOfSquares = (x: Tensor): Tensor => sum(square(x));

const RENORM_EPSILON = 1e-7; // Torch7's and PyTorch's renorm

const renormOp = defineOp<{ readonly limit: number }>()({
  name: 'renormScale',
  inputs: ['squares'],
  infer: ({ squares }) => squares,
  kernel: {
    kind: 'map',
    declarations: () => `fn renormScale(norm: f32, limit: f32) -> f32 {
  return select(1.0, limit / (norm + ${literal(RENORM_EPSILON)}), norm > limit);
}`,
    expression: ({ squares }, { limit }) => `renormScale(sqrt(${squares}), ${literal(limit)})`,
  },
  reference: ({ squares }, { limit }) =>
    squares.data.map((s) => (Math.sqrt(s) > limit ? limit / (Math.sqrt(s) + RENORM_EPSILON) : 1)),
  samples: [{ inputs: { squares: [5] }, attrs: { limit: 0.7 }, range: { squares: [0, 2] } }],
});

/**
 * Basset's max-norm: a weight `[…, in, out]` in which every output unit's column longer than `limit` is scaled to
 * limit / (norm + 1e-7) of itself; biases `[out]` stay.
 */
export function renormOutputs(weight: Tensor, limit: number): Tensor {
  const rank = weight.shape.length;
  if (rank < 2) return weight;
  const squares = sum(square(weight), { from: 0, to: rank - 1 }); // [out]
  return multiply(weight, renormOp({ squares }, { limit }));
}
