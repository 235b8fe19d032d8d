import { literal } from '../literal.ts';
import { defineOp } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { multiply, subtract } from './arithmetic.ts';
import { mapReference } from './broadcast.ts';
import { isNan } from './curve.ts';
import { sum } from './reduce.ts';
import { greater } from './select.ts';

/** Least Σ (w − mean)² of an output channel: AlphaGenome's StandardizedConv1D. */
const FLOOR = 1e-4;

/**
 * A convolution's weight with mean 0 and scale / √(fan in) as standard deviation in every output channel: weight
 * [size, in, out], scale [out] → (w − mean) · scale / √max(fanIn · variance, 1e-4), over size and in (AlphaGenome).
 *
 * @throws when the shapes are others.
 */
export function standardizeWeight(weight: Tensor, scale: Tensor): Tensor {
  const [size, inputs, outputs] = weight.shape as [number, number, number];
  if (weight.shape.length !== 3 || scale.shape.length !== 1 || scale.shape[0] !== outputs) {
    throw new Error(
      `standardizeWeight: weight is ${shapeText(weight.shape)} and scale ${shapeText(scale.shape)}; they must be [size, in, out] and [out]`,
    );
  }
  const over = { from: 0, to: 2 };
  const mean = multiply(sum(weight, over), 1 / (size * inputs)); // [out]
  const centered = subtract(weight, mean);
  const squares = sum(multiply(centered, centered), over); // [out], fan in · variance
  return multiply(centered, multiply(scale, inverseRootOp({ x: squares }, { floor: FLOOR })));
}

/**
 * 1 / √max(x, floor). The gradient multiplies by a factor that does not hold the cotangent: gradients of weights are
 * sums over sequences that are not complete here, which may be multiplied but not go into other functions.
 */
const inverseRootOp = defineOp<{ readonly floor: number }>()({
  name: 'inverseRoot',
  inputs: ['x'],
  infer: ({ x }): Spec => ({ shape: x.shape, dtype: 'f32' }),
  kernel: {
    kind: 'map',
    expression: ({ x }, { floor }) => `inverse_root(${x}, ${literal(floor)})`,
    declarations: () => `fn inverse_root(x: f32, floor: f32) -> f32 {
  return select(inverseSqrt(max(x, floor)), x, ${isNan('x')});
}`,
  },
  gradient: (dy, { x }, { floor }, y) => ({
    x: () => multiply(dy, multiply(multiply(greater(x, floor), -0.5), multiply(y, multiply(y, y)))),
  }),
  reference: (inputs, { floor }) => mapReference<['x']>(({ x }) => 1 / Math.sqrt(Math.max(x, floor)))(inputs),
  samples: [
    { inputs: { x: [2, 53] }, attrs: { floor: 0.05 }, range: { x: [0.1, 2] } },
    { inputs: { x: [7] }, attrs: { floor: 3 }, range: { x: [0, 2] } },
  ],
});
