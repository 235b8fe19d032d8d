/** Every row several times, and its transpose, the sum of several rows. */
import { elementCount } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { shapeText, type Tensor } from '../tensor.ts';
import { perElement } from './per-element.ts';

export interface UpsampleOptions {
  /** How many times each row is repeated. */
  readonly scale: number;
}

/** Each row `scale` times: x [batch, length, channels] → [batch, length · scale, channels]. */
export function upsampleNearest1d(x: Tensor, { scale }: UpsampleOptions): Tensor {
  if (x.shape.length !== 3 || !Number.isInteger(scale) || scale < 1) {
    throw new Error(
      `upsampleNearest1d: x is ${shapeText(x.shape)} and scale ${scale}; x must be [batch, length, channels], the scale a positive whole number`,
    );
  }
  return upsampleOp({ x }, { scale, skip: 0, rows: x.shape[1]! * scale });
}

/** Rows `[skip, skip + rows)` of the whole result. */
const upsampleOp = defineOp<UpsampleOptions & { readonly skip: number; readonly rows: number }>()({
  name: 'upsampleNearest1d',
  inputs: ['x'],
  axes: 'batch length~ channels -> batch length channels',
  reads: (_, { scale, skip }, [from, to]) => {
    const first = Math.floor((skip + from) / scale);
    const end = Math.ceil((skip + to) / scale);
    return {
      rows: { x: [first, end] },
      attrs: { scale, skip: skip + from - first * scale, rows: to - from },
    };
  },
  infer: ({ x }, { rows }) => ({ shape: [x.shape[0]!, rows, x.shape[2]!], dtype: x.dtype }),
  kernel: {
    kind: 'view',
    index: (i, x, y, { scale, skip }) => {
      const [, length, channels] = x.shape as [number, number, number];
      const rows = y.shape[1]!;
      const row = `(${i} / ${channels}u % ${rows}u + ${skip}u) / ${scale}u`;
      return `(${i} / ${rows * channels}u * ${length}u + ${row}) * ${channels}u + ${i} % ${channels}u`;
    },
  },
  linear: true,
  gradient: (dy, _, { scale }) => ({ x: (): Tensor => sumWindowsOp({ x: dy }, { scale }) }),
  reference: ({ x }, { scale, skip, rows }) => {
    const [batch, length, channels] = x.shape as [number, number, number];
    return Float64Array.from({ length: batch * rows * channels }, (_, i) => {
      const row = Math.floor(((Math.floor(i / channels) % rows) + skip) / scale);
      return x.data[(Math.floor(i / (rows * channels)) * length + row) * channels + (i % channels)]!;
    });
  },
  samples: [
    { inputs: { x: [2, 7, 5] }, attrs: { scale: 2, skip: 0, rows: 14 } },
    { inputs: { x: [1, 3, 4] }, attrs: { scale: 5, skip: 0, rows: 15 } },
  ],
});

/** Sums of `scale` rows each: x [batch, length, channels] → [batch, length / scale, channels]. */
const sumWindowsOp = defineOp<UpsampleOptions>()({
  name: 'upsampleNearest1dGradient',
  inputs: ['x'],
  axes: 'batch length~ channels -> batch length channels',
  reads: (_, { scale }, [from, to]) => ({ rows: { x: [from * scale, to * scale] }, attrs: { scale } }),
  infer: ({ x }, { scale }) => ({ shape: x.shape.with(1, x.shape[1]! / scale), dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }, y, { scale }) => {
      const channels = x.shape[2]!;
      const text = `
        let first = (i / ${channels}u * ${scale}u) * ${channels}u + i % ${channels}u;
        var total = load_x(first);
        for (var row = 1u; row < ${scale}u; row++) { total += load_x(first + row * ${channels}u); }
        store(i, total);`;
      return perElement(y, text);
    },
  },
  linear: true,
  gradient: (dy, { x }, { scale }) => ({
    x: (): Tensor => upsampleOp({ x: dy }, { scale, skip: 0, rows: x.shape[1]! }),
  }),
  reference: ({ x }, { scale }) => {
    const channels = x.shape[2]!;
    return Float64Array.from({ length: elementCount(x.shape) / scale }, (_, i) => {
      const first = Math.floor(i / channels) * scale * channels + (i % channels);
      let total = 0;
      for (let row = 0; row < scale; row++) total += x.data[first + row * channels]!;
      return total;
    });
  },
  samples: [
    { inputs: { x: [2, 14, 5] }, attrs: { scale: 2 } },
    { inputs: { x: [1, 15, 4] }, attrs: { scale: 5 } },
  ],
});
