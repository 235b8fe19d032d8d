import {
  maxPoolGradientKernel,
  maxPoolKernel,
  type PoolGradientRows,
  type PoolWindows,
} from '../kernels/max-pool.ts';
import { defineOp, type Range, type Reference } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { multiply } from './arithmetic.ts';
import { sum } from './reduce.ts';
import { reshape, slice } from './shape.ts';
import { clampedRows, windowGeometry } from './window.ts';

export interface MaxPoolOptions {
  readonly size: number;
  readonly stride?: number;
  /** `valid` drops the rest, `same` is TensorFlow's (padding −∞, the odd row right), `ceil` keeps a last short window. */
  readonly padding?: 'valid' | 'same' | 'ceil';
}

/**
 * The largest value of each window of rows: x [batch, length, channels] → [batch, windows, channels]. NaN counts as the
 * largest. The gradient goes to the first maximum of a window.
 */
export function maxPool1d(x: Tensor, { size, stride = size, padding = 'valid' }: MaxPoolOptions): Tensor {
  checkRank('maxPool1d', x);
  const length = x.shape[1]!;
  const windows =
    padding === 'ceil'
      ? { padLeft: 0, outLength: ceilWindows(length, size, stride) }
      : windowGeometry('maxPool1d', { length, span: size, stride, padding });
  return maxOp({ x }, { size, stride, ...windows });
}

/**
 * The largest value of each `size` × `size` window: x [batch, height, width, channels] → [batch, floor(height / size),
 * floor(width / size), channels]. NaN counts as the largest. The gradient goes to the first maximum, rows before columns.
 */
export function maxPool2d(x: Tensor, { size }: { readonly size: number }): Tensor {
  if (x.shape.length !== 4)
    throw new Error(`maxPool2d: x is ${shapeText(x.shape)}; it must be [batch, height, width, channels]`);
  const [, height, width, channels] = x.shape as [number, number, number, number];
  const rows = maxPool1d(reshape(x, [-1, width, channels]), { size }); // [batch · height, columns, channels]
  const columns = rows.shape[1]!;
  const y = maxPool1d(reshape(rows, [-1, height, columns * channels]), { size });
  return reshape(y, [-1, y.shape[1]!, columns, channels]);
}

/** The mean of each window of `size` rows: x [batch, length, channels] → [batch, floor(length / size), channels]. */
export function averagePool1d(x: Tensor, { size }: { readonly size: number }): Tensor {
  checkRank('averagePool1d', x);
  const [, length, channels] = x.shape as [number, number, number];
  const { outLength } = windowGeometry('averagePool1d', {
    length,
    span: size,
    stride: size,
    padding: 'valid',
  });
  const whole = outLength * size === length ? x : slice(x, { from: 0, to: outLength * size });
  const windows = reshape(whole, [-1, outLength, size, channels]); // [batch, window, row, channel]
  return multiply(sum(windows, { from: 2, to: 3 }), 1 / size);
}

/** The mean over all rows: x [batch, length, channels] → [batch, channels]. */
export function globalAveragePool1d(x: Tensor): Tensor {
  checkRank('globalAveragePool1d', x);
  return multiply(sum(x, { from: 1, to: 2 }), 1 / x.shape[1]!);
}

function checkRank(name: string, x: Spec): void {
  if (x.shape.length === 3) return;
  throw new Error(`${name}: x is ${shapeText(x.shape)}; it must be [batch, length, channels]`);
}

/** Windows from row 0 that together cover all rows; one that would begin after the last row is left out. */
function ceilWindows(length: number, size: number, stride: number): number {
  const covering = Math.ceil(Math.max(length - size, 0) / stride) + 1;
  return Math.min(covering, Math.ceil(length / stride));
}

interface Windows extends PoolWindows {
  readonly outLength: number;
}

const maxOp = defineOp<Windows>()({
  name: 'maxPool1d',
  inputs: ['x'],
  axes: 'batch length~ channels -> batch length channels',
  reads: ({ x }, attrs, rows) => {
    const read = rowsOfWindows(rows, attrs, x.shape[1]!);
    const first = rows[0] * attrs.stride - attrs.padLeft;
    return { rows: { x: read }, attrs: { ...attrs, padLeft: read[0] - first, outLength: rows[1] - rows[0] } };
  },
  infer: ({ x }, { outLength }) => {
    checkRank('maxPool1d', x);
    return { shape: [x.shape[0]!, outLength, x.shape[2]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x }, y, windows) => maxPoolKernel(x, y, windows),
  },
  gradient: (dy, { x }, { size, stride, padLeft }) => ({
    x: () => maxGradientOp({ dy, x }, { size, stride, padLeft, from: 0, rows: x.shape[1]! }),
  }),
  reference: ({ x }, attrs) => {
    const [batch, , channels] = x.shape as [number, number, number];
    const y = new Float64Array(batch * attrs.outLength * channels);
    forEachWindow(x, attrs.outLength, attrs, (window, maximum) => {
      y[window] = x.data[maximum]!;
    });
    return y;
  },
  samples: [
    { inputs: { x: [2, 23, 5] }, attrs: { size: 2, stride: 2, padLeft: 0, outLength: 11 } },
    { inputs: { x: [2, 10, 3] }, attrs: { size: 4, stride: 4, padLeft: 1, outLength: 3 } },
    { inputs: { x: [1, 18, 7] }, attrs: { size: 4, stride: 4, padLeft: 0, outLength: 5 } },
    { inputs: { x: [2, 31, 3] }, attrs: { size: 5, stride: 2, padLeft: 2, outLength: 16 } },
    { inputs: { x: [1, 29, 1] }, attrs: { size: 2, stride: 3, padLeft: 0, outLength: 10 } },
    { inputs: { x: [3, 17, 2] }, attrs: { size: 3, stride: 1, padLeft: 1, outLength: 17 }, ...ties() },
    { inputs: { x: [2, 26, 8] }, attrs: { size: 4, stride: 5, padLeft: 1, outLength: 5 }, ...ties() },
  ],
});

/** Each row of dx gathers from the windows it is the first maximum of. The maximum is searched for in x again. */
const maxGradientOp = defineOp<PoolGradientRows>()({
  name: 'maxPool1dGradient',
  inputs: ['dy', 'x'],
  axes: 'batch length~ channels, batch length~ channels -> batch length channels',
  reads: ({ dy, x }, attrs, rows) => {
    const { size, stride, padLeft, from } = attrs;
    const firstWindow = Math.ceil((from + rows[0] + padLeft - size + 1) / stride);
    const lastWindow = Math.floor((from + rows[1] - 1 + padLeft) / stride);
    const windows = clampedRows([firstWindow, lastWindow + 1], dy.shape[1]!);
    const read = clampedRows(
      union(rowsOfWindows(windows, attrs, x.shape[1]!), [from + rows[0], from + rows[1]]),
      x.shape[1]!,
    );
    const piece = { from: from + rows[0] - read[0], rows: rows[1] - rows[0] };
    return {
      rows: { dy: windows, x: read },
      attrs: { size, stride, padLeft: padLeft + read[0] - windows[0] * stride, ...piece },
    };
  },
  infer: ({ x }, { rows }) => ({ shape: [x.shape[0]!, rows, x.shape[2]!], dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ dy, x }, dx, rows) => maxPoolGradientKernel(dy, x, dx, rows),
  },
  reference: ({ dy, x }, attrs) => {
    const [batch, length, channels] = x.shape as [number, number, number];
    const whole = new Float64Array(x.data.length);
    forEachWindow(x, dy.shape[1]!, attrs, (window, maximum) => {
      whole[maximum]! += dy.data[window]!;
    });
    const dx = new Float64Array(batch * attrs.rows * channels);
    for (let b = 0; b < batch; b++) {
      const start = (b * length + attrs.from) * channels;
      dx.set(whole.subarray(start, start + attrs.rows * channels), b * attrs.rows * channels);
    }
    return dx;
  },
  samples: [
    {
      inputs: { dy: [2, 11, 5], x: [2, 23, 5] },
      attrs: gradientAttrs({ size: 2, stride: 2, padLeft: 0, rows: 23 }),
    },
    {
      inputs: { dy: [2, 3, 3], x: [2, 10, 3] },
      attrs: gradientAttrs({ size: 4, stride: 4, padLeft: 1, rows: 10 }),
    },
    {
      inputs: { dy: [2, 16, 3], x: [2, 31, 3] },
      attrs: gradientAttrs({ size: 5, stride: 2, padLeft: 2, rows: 31 }),
    },
    {
      inputs: { dy: [1, 10, 1], x: [1, 29, 1] },
      attrs: gradientAttrs({ size: 2, stride: 3, padLeft: 0, rows: 29 }),
    },
    {
      inputs: { dy: [3, 17, 2], x: [3, 17, 2] },
      attrs: gradientAttrs({ size: 3, stride: 1, padLeft: 1, rows: 17 }),
      ...ties(),
    },
    {
      inputs: { dy: [2, 5, 8], x: [2, 26, 8] },
      attrs: gradientAttrs({ size: 4, stride: 5, padLeft: 1, rows: 26 }),
      ...ties(),
    },
  ],
});

/** Draws x from few whole numbers, so that windows have several maxima. */
function ties(): { range: { x: [number, number] }; integers: ['x'] } {
  return { range: { x: [0, 3] }, integers: ['x'] };
}

function gradientAttrs(attrs: Omit<PoolGradientRows, 'from'>): PoolGradientRows {
  return { from: 0, ...attrs };
}

/** Rows of x under windows `[from, to)`. */
function rowsOfWindows([from, to]: Range, attrs: PoolWindows, length: number): Range {
  const { size, stride, padLeft } = attrs;
  return clampedRows([from * stride - padLeft, (to - 1) * stride - padLeft + size], length);
}

const union = (a: Range, b: Range): Range => [Math.min(a[0], b[0]), Math.max(a[1], b[1])];

/** Calls `visit` with the flat index of every window and of the first maximum in it; NaN is above all. */
function forEachWindow(
  x: Reference,
  windows: number,
  { size, stride, padLeft }: PoolWindows,
  visit: (window: number, maximum: number) => void,
): void {
  const [batch, length, channels] = x.shape as [number, number, number];
  for (let i = 0; i < batch * windows * channels; i++) {
    const start = (Math.floor(i / channels) % windows) * stride - padLeft;
    const base = Math.floor(i / (windows * channels)) * length * channels + (i % channels);
    let maximum = base + Math.max(start, 0) * channels;
    for (let row = Math.max(start, 0); row < Math.min(start + size, length); row++) {
      const at = base + row * channels;
      const [value, best] = [x.data[at]!, x.data[maximum]!];
      if (value > best || (Number.isNaN(value) && !Number.isNaN(best))) maximum = at;
    }
    visit(i, maximum);
  }
}
