import { elementCount } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { sameShape, shapeText, type Tensor } from '../tensor.ts';

interface Attrs {
  readonly from: number;
  readonly to: number;
  readonly rank: number;
}

/** `a0 a1 …`: names for the axes of a tensor of this rank. */
export const axisNames = (rank: number): string[] => Array.from({ length: rank }, (_, axis) => `a${axis}`);

const op = defineOp<Attrs>()({
  name: 'sum',
  inputs: ['x'],
  axes: ({ from, to, rank }) => {
    const axes = axisNames(rank);
    return `${axes.join(' ')} -> ${axes.toSpliced(from, to - from).join(' ')}`;
  },
  infer: ({ x }, { from, to }) => {
    if (from < 0 || to > x.shape.length || from > to) {
      throw new Error(
        `sum: axes [${from}, ${to}) of ${shapeText(x.shape)}; from and to must lie in 0…${x.shape.length}`,
      );
    }
    return { shape: x.shape.toSpliced(from, to - from), dtype: 'f32' };
  },
  kernel: {
    kind: 'reduce',
    axes: ({ from, to }) => [from, to],
    initial: '0.0',
    combine: (accumulated, value) => `${accumulated} + ${value}`,
  },
  linear: true,
  gradient: (dy, { x }, { from, to }) => ({ x: () => repeat(dy, x, { from, to }) }),
  reference: ({ x }, { from, to }) => {
    const outer = elementCount(x.shape.slice(0, from));
    const count = elementCount(x.shape.slice(from, to));
    const inner = elementCount(x.shape.slice(to));
    return Float64Array.from({ length: outer * inner }, (_, i) => {
      const base = Math.floor(i / inner) * count * inner + (i % inner);
      let total = 0;
      for (let k = 0; k < count; k++) total += x.data[base + k * inner]!;
      return total;
    });
  },
  samples: [
    { inputs: { x: [3, 5, 7] }, attrs: { from: 0, to: 2, rank: 3 } },
    { inputs: { x: [3, 5, 7] }, attrs: { from: 1, to: 3, rank: 3 } },
    { inputs: { x: [2, 6001] }, attrs: { from: 0, to: 2, rank: 2 } },
    { inputs: { x: [4099, 3] }, attrs: { from: 0, to: 1, rank: 2 } },
  ],
});

/** x summed over its axes `[from, to)`, all by default; the other axes stay in order. */
export function sum(
  x: Tensor,
  { from = 0, to = x.shape.length }: { from?: number; to?: number } = {},
): Tensor {
  return op({ x }, { from, to, rank: x.shape.length });
}

const repeatOp = defineOp<Attrs>()({
  name: 'repeat',
  inputs: ['x', 'like'],
  shapeOnly: ['like'],
  axes: ({ from, to, rank }) => {
    const axes = axisNames(rank);
    return `${axes.toSpliced(from, to - from).join(' ')}, ${axes.join(' ')} -> ${axes.join(' ')}`;
  },
  infer: ({ x, like }, { from, to }) => {
    const rest = like.shape.toSpliced(from, to - from);
    if (!sameShape(x.shape, rest)) {
      throw new Error(
        `repeat: x is ${shapeText(x.shape)} but ${shapeText(like.shape)} without axes [${from}, ${to}) is ${shapeText(rest)}`,
      );
    }
    return { shape: like.shape, dtype: 'f32' };
  },
  kernel: {
    kind: 'view',
    index: (i, _x, y, { from, to }) => {
      const inner = elementCount(y.shape.slice(to));
      const times = elementCount(y.shape.slice(from, to));
      return from === 0 ? `${i} % ${inner}u` : `${i} / ${inner * times}u * ${inner}u + ${i} % ${inner}u`;
    },
  },
  linear: true,
  gradient: (dy, _, { from, to }) => ({ x: () => sum(dy, { from, to }) }),
  reference: ({ x, like }, { from, to }) => {
    const inner = elementCount(like.shape.slice(to));
    const times = elementCount(like.shape.slice(from, to));
    return Float64Array.from(
      { length: elementCount(like.shape) },
      (_, i) => x.data[Math.floor(i / (inner * times)) * inner + (i % inner)]!,
    );
  },
  samples: [
    { inputs: { x: [3, 5], like: [2, 2, 3, 5] }, attrs: { from: 0, to: 2, rank: 4 } },
    { inputs: { x: [3, 5], like: [3, 4, 5] }, attrs: { from: 1, to: 2, rank: 3 } },
  ],
});

/** x repeated along the axes `[from, to)` of `like`, of which only the shape is used: the transpose of `sum`. */
export function repeat(x: Tensor, like: Tensor, { from, to }: { from: number; to: number }): Tensor {
  return repeatOp({ x, like }, { from, to, rank: like.shape.length });
}
