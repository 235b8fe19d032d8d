import { elementCount } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { shapeText, type Tensor } from '../tensor.ts';

interface Attrs {
  readonly from: number;
  readonly to: number;
  readonly rank: number;
}

const names = (rank: number): string[] => Array.from({ length: rank }, (_, axis) => `a${axis}`);

const op = defineOp<Attrs>()({
  name: 'sum',
  inputs: ['x'],
  axes: ({ from, to, rank }) => {
    const axes = names(rank);
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
  gradient: (dy, { x }, { from, to }) => ({
    x: () => repeat(dy, { axis: from, sizes: x.shape.slice(from, to) }),
  }),
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

interface RepeatAttrs {
  readonly axis: number;
  readonly sizes: readonly number[];
}

const repeatOp = defineOp<RepeatAttrs>()({
  name: 'repeat',
  inputs: ['x'],
  infer: ({ x }, { axis, sizes }: RepeatAttrs) => ({
    shape: x.shape.toSpliced(axis, 0, ...sizes),
    dtype: x.dtype,
  }),
  kernel: {
    kind: 'view',
    index: (i, x, _y, { axis, sizes }) => {
      const inner = elementCount(x.shape.slice(axis));
      const times = elementCount(sizes);
      return axis === 0 ? `${i} % ${inner}u` : `${i} / ${inner * times}u * ${inner}u + ${i} % ${inner}u`;
    },
  },
  linear: true,
  gradient: (dy, _, { axis, sizes }) => ({ x: () => sum(dy, { from: axis, to: axis + sizes.length }) }),
  reference: ({ x }, { axis, sizes }) => {
    const inner = elementCount(x.shape.slice(axis));
    const times = elementCount(sizes);
    return Float64Array.from(
      { length: x.data.length * times },
      (_, i) => x.data[Math.floor(i / (inner * times)) * inner + (i % inner)]!,
    );
  },
  samples: [
    { inputs: { x: [3, 5] }, attrs: { axis: 0, sizes: [2, 2] } },
    { inputs: { x: [3, 5] }, attrs: { axis: 1, sizes: [4] } },
  ],
});

/** x with new axes of the given sizes put in before `axis`, every copy equal: the transpose of `sum`. */
export function repeat(x: Tensor, { axis, sizes }: RepeatAttrs): Tensor {
  return repeatOp({ x }, { axis, sizes });
}
