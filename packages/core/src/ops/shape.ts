import { elementCount } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { shapeText, type Tensor } from '../tensor.ts';

const reshapeOp = defineOp<{ readonly shape: readonly number[] }>()({
  name: 'reshape',
  inputs: ['x'],
  axes: 'batch _ -> batch _',
  infer: ({ x }, { shape }) => {
    const count = elementCount(x.shape);
    const known = elementCount(shape.filter((size) => size !== -1));
    const filled = shape.map((size) => (size === -1 ? count / known : size));
    if (elementCount(filled) !== count || filled.some((size) => !Number.isInteger(size))) {
      throw new Error(
        `reshape: ${shapeText(x.shape)} has ${count} elements, which ${shapeText(shape)} cannot hold`,
      );
    }
    return { shape: filled, dtype: x.dtype };
  },
  kernel: { kind: 'view', alias: true, index: (i) => i },
  linear: true,
  gradient: (dy, { x }) => ({ x: () => reshape(dy, [-1, ...x.shape.slice(1)]) }),
  reference: ({ x }) => x.data.slice(),
  samples: [
    { inputs: { x: [2, 3, 5] }, attrs: { shape: [-1, 15] } },
    { inputs: { x: [2, 12] }, attrs: { shape: [-1, 3, 4] } },
  ],
});

/** The same elements in another shape; one size may be -1. Write the leading axis as -1, so that a batch can be split. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  return reshapeOp({ x }, { shape });
}

interface SliceAttrs {
  readonly from: number;
  readonly to: number;
}

const sliceOp = defineOp<SliceAttrs>()({
  name: 'slice',
  inputs: ['x'],
  axes: 'batch _ channels -> batch _ channels',
  infer: ({ x }, { from, to }) => {
    if (x.shape.length !== 3 || from < 0 || to > x.shape[1]! || from >= to) {
      throw new Error(
        `slice: rows [${from}, ${to}) of ${shapeText(x.shape)}; x must be [batch, length, channels] with rows to spare`,
      );
    }
    return { shape: [x.shape[0]!, to - from, x.shape[2]!], dtype: x.dtype };
  },
  kernel: {
    kind: 'view',
    index: (i, x, y, { from }) => {
      const [, length, channels] = x.shape as [number, number, number];
      const rows = y.shape[1]! * channels;
      return `${i} / ${rows}u * ${length * channels}u + ${i} % ${rows}u + ${from * channels}u`;
    },
  },
  linear: true,
  gradient: (dy, { x }, { from }) => ({
    x: () => pad(dy, { before: from, after: x.shape[1]! - from - dy.shape[1]! }),
  }),
  reference: ({ x }, { from, to }) => {
    const [batch, length, channels] = x.shape as [number, number, number];
    return Float64Array.from({ length: batch * (to - from) * channels }, (_, i) => {
      const b = Math.floor(i / ((to - from) * channels));
      return x.data[b * length * channels + from * channels + (i % ((to - from) * channels))]!;
    });
  },
  samples: [{ inputs: { x: [2, 11, 3] }, attrs: { from: 2, to: 9 } }],
});

/** Rows `[from, to)` of x `[batch, length, channels]`. */
export function slice(x: Tensor, { from, to }: SliceAttrs): Tensor {
  return sliceOp({ x }, { from, to });
}

interface PadAttrs {
  readonly before: number;
  readonly after: number;
}

const padOp = defineOp<PadAttrs>()({
  name: 'pad',
  inputs: ['x'],
  axes: 'batch _ channels -> batch _ channels',
  infer: ({ x }, { before, after }) => {
    if (x.shape.length !== 3 || before < 0 || after < 0) {
      throw new Error(
        `pad: ${before} and ${after} rows around ${shapeText(x.shape)}; x must be [batch, length, channels], rows ≥ 0`,
      );
    }
    return { shape: [x.shape[0]!, x.shape[1]! + before + after, x.shape[2]!], dtype: x.dtype };
  },
  kernel: {
    kind: 'map',
    index: (_, { before }, { i, y, specs }) => {
      const [, length, channels] = specs.x!.shape as [number, number, number];
      const [, rows] = y.shape as [number, number, number];
      const row = `clamp(i32(${i} / ${channels}u % ${rows}u) - ${before}, 0, ${length - 1})`;
      return `(${i} / ${rows * channels}u * ${length}u + u32(${row})) * ${channels}u + ${i} % ${channels}u`;
    },
    expression: ({ x }, { before }, { i, y, specs }) => {
      const [, length, channels] = specs.x!.shape as [number, number, number];
      const row = `${i} / ${channels}u % ${y.shape[1]}u`;
      return `select(0.0, ${x}, ${row} >= ${before}u && ${row} < ${before + length}u)`;
    },
  },
  linear: true,
  gradient: (dy, { x }, { before }) => ({ x: () => slice(dy, { from: before, to: before + x.shape[1]! }) }),
  reference: ({ x }, { before, after }) => {
    const [batch, length, channels] = x.shape as [number, number, number];
    const rows = length + before + after;
    const out = new Float64Array(batch * rows * channels);
    for (let b = 0; b < batch; b++) {
      const part = x.data.subarray(b * length * channels, (b + 1) * length * channels);
      out.set(part, (b * rows + before) * channels);
    }
    return out;
  },
  samples: [{ inputs: { x: [2, 7, 3] }, attrs: { before: 2, after: 3 } }],
});

/** x `[batch, length, channels]` with rows of zeros around: the transpose of `slice`. */
export function pad(x: Tensor, { before, after }: PadAttrs): Tensor {
  return padOp({ x }, { before, after });
}
