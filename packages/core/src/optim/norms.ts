/** Limits on the length of gradients and weights. */

import { literal } from '../literal.ts';
import { defineOp } from '../op.ts';
import { add, multiply } from '../ops/arithmetic.ts';
import { square } from '../ops/elementwise.ts';
import { sum } from '../ops/reduce.ts';
import type { Tensor } from '../tensor.ts';

/** Changes the gradients of a step before the optimizer sees them. */
export type GradientTransform = (gradients: readonly Tensor[]) => readonly Tensor[];

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
export function clipPerVariable(limit: number): GradientTransform {
  return (gradients) =>
    gradients.map((gradient) => multiply(gradient, limitOp({ squares: sumOfSquares(gradient) }, { limit })));
}

/** All gradients are scaled alike so that their length together is at most `limit`: Keras' `global_clipnorm`. */
export function clipGlobalNorm(limit: number): GradientTransform {
  return (gradients) => {
    const squares = gradients.map(sumOfSquares).reduce((a, b) => add(a, b));
    const scale = limitOp({ squares }, { limit });
    return gradients.map((gradient) => multiply(gradient, scale));
  };
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
