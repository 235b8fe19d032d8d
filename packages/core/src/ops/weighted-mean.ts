import { type LineCode, lineKernel, linesAlong } from '../kernels/line.ts';
import { defineOp } from '../op.ts';
import { sameShape, shapeText, type Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { axisNames } from './reduce.ts';

/**
 * Σ weights · x / Σ weights over the last axis: x and weights `[…, count]` → `[…]`. Exact for equal x, whatever rounding has
 * left of a sum of weights that should be 1. Without gradient: for gradient rules. @throws when the shapes differ.
 */
export function weightedMean(x: Tensor, weights: Tensor): Tensor {
  return op({ x, weights }, { rank: x.shape.length });
}

const op = defineOp<{ readonly rank: number }>()({
  name: 'weightedMean',
  inputs: ['x', 'weights'],
  axes: ({ rank }) => {
    const rows = axisNames(rank - 1).join(' ');
    return `${rows} _, ${rows} _ -> ${rows}`;
  },
  infer: ({ x, weights }) => {
    if (!sameShape(x.shape, weights.shape))
      throw new Error(
        `weightedMean: x is ${shapeText(x.shape)} but weights are ${shapeText(weights.shape)}; they must be equal`,
      );
    return { shape: x.shape.slice(0, -1), dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x }, _, __, target) => {
      const rows = linesAlong(x.shape, x.shape.length - 1);
      return lineKernel(rows, { inputs: ['x', 'weights'], reduces: true }, target, meanOfLine);
    },
  },
  reference: ({ x, weights }) => {
    const count = x.shape.at(-1)!;
    return Float64Array.from({ length: x.data.length / count }, (_, row) => {
      const own = weights.data.subarray(row * count, (row + 1) * count);
      const products = own.reduce((sum, weight, k) => sum + weight * x.data[row * count + k]!, 0);
      return products / own.reduce((sum, weight) => sum + weight, 0);
    });
  },
  samples: [
    { inputs: { x: [3, 5, 8], weights: [3, 5, 8] }, attrs: { rank: 3 }, range: { weights: [0.1, 1] } },
    { inputs: { x: [37, 7], weights: [37, 7] }, attrs: { rank: 2 }, range: { weights: [0.1, 1] } },
  ],
});

const meanOfLine = ({ type, loop, load, total, storeLine }: LineCode): string => wgsl`
  var products = ${type}(0.0);
  var weights = ${type}(0.0);
  ${loop([`let w = ${load('weights')};`, `products += w * ${load('x')};`, 'weights += w;'])}
  let product = ${total('products', 'plus')};
  let weight = ${total('weights', 'plus')};
  ${storeLine('product / weight')}`;
