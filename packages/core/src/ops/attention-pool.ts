/** Attention pooling: windows of rows averaged by a softmax over their logits. */
import {
  attentionPoolInputGradientKernel,
  attentionPoolKernel,
  attentionPoolLogitGradientKernel,
  type PooledRows,
} from '../kernels/attention-pool.ts';
import { defineOp, type Range, type Reference, type Sample } from '../op.ts';
import { type Spec, sameShape, shapeText, type Tensor } from '../tensor.ts';
import { sumTo } from './broadcast.ts';

/**
 * The mean of every window of `pool` rows, weighted by the softmax of its logits, for each channel by itself:
 * x `[batch, length, channels]`, logits of that shape or `[batch, length, 1]` → `[batch, length / pool, channels]`.
 * Enformer's pooling, and with one logit for all channels basenji's `SoftmaxPool1D`.
 *
 * @throws when the windows do not fill the length, or the logits do not fit.
 */
export function attentionPool1d(x: Tensor, logits: Tensor, { pool }: { readonly pool: number }): Tensor {
  return poolOp({ x, logits }, { pool, shared: logits.shape[2] === 1 });
}

interface Attrs {
  readonly pool: number;
  /** Whether one logit is for all channels. */
  readonly shared: boolean;
}

interface RowAttrs extends PooledRows {
  readonly shared: boolean;
}

function checkShapes(x: Spec, logits: Spec, { pool }: Attrs): void {
  if (x.shape.length !== 3)
    throw new Error(`attentionPool1d: x is ${shapeText(x.shape)}; it must be [batch, length, channels]`);
  const one = x.shape.with(2, 1);
  if (!sameShape(logits.shape, x.shape) && !sameShape(logits.shape, one)) {
    throw new Error(
      `attentionPool1d: x is ${shapeText(x.shape)} but the logits are ${shapeText(logits.shape)}; they must be that or ${shapeText(one)}`,
    );
  }
  if (!Number.isInteger(pool) || pool < 1 || x.shape[1]! % pool !== 0) {
    throw new Error(
      `attentionPool1d: windows of ${pool} rows do not fill the ${x.shape[1]} rows of ${shapeText(x.shape)}; choose a divisor, or crop`,
    );
  }
}

const channelsOf = ({ shared }: Attrs): string => (shared ? '_' : 'channels');

/** Windows behind rows `[from, to)` of a gradient, and that piece of the work. */
function gradientReads(
  { pool, from, shared }: RowAttrs,
  rows: Range,
): { readonly windows: Range; readonly read: Range; readonly attrs: RowAttrs } {
  const windows: Range = [Math.floor((from + rows[0]) / pool), Math.ceil((from + rows[1]) / pool)];
  const read: Range = [windows[0] * pool, windows[1] * pool];
  return { windows, read, attrs: { pool, shared, from: from + rows[0] - read[0], rows: rows[1] - rows[0] } };
}

/** Calls `visit` with the rows of every window of every channel: where they are in x, and their weights. */
function forEachWindow(
  logits: Reference,
  channels: number,
  pool: number,
  visit: (window: number, at: readonly number[], weights: readonly number[]) => void,
): void {
  const [batch, length, logitChannels] = logits.shape as [number, number, number];
  for (let window = 0; window < (batch * length) / pool; window++) {
    for (let channel = 0; channel < channels; channel++) {
      const rows = Array.from({ length: pool }, (_, k) => window * pool + k);
      const own = rows.map((row) => logits.data[row * logitChannels + (logitChannels === 1 ? 0 : channel)]!);
      const high = Math.max(...own);
      const terms = own.map((logit) => Math.exp(logit - high));
      const total = terms.reduce((a, b) => a + b, 0);
      visit(
        window * channels + channel,
        rows.map((row) => row * channels + channel),
        terms.map((term) => term / total),
      );
    }
  }
}

const SIZES: readonly (readonly [readonly number[], number, number])[] = [
  [[2, 14, 8], 8, 2],
  [[1, 15, 5], 5, 3],
  [[2, 8, 4], 1, 4],
  [[3, 6, 3], 1, 2],
];

const poolOp = defineOp<Attrs>()({
  name: 'attentionPool1d',
  inputs: ['x', 'logits'],
  axes: (attrs) => `batch length~ channels, batch length~ ${channelsOf(attrs)} -> batch length channels`,
  reads: (_, attrs, [from, to]) => {
    const read: Range = [from * attrs.pool, to * attrs.pool];
    return { rows: { x: read, logits: read }, attrs };
  },
  infer: ({ x, logits }, attrs) => {
    checkShapes(x, logits, attrs);
    const [batch, length, channels] = x.shape as [number, number, number];
    return { shape: [batch, length / attrs.pool, channels], dtype: 'f32' };
  },
  kernel: { kind: 'shader', body: ({ logits }, y, attrs) => attentionPoolKernel(logits, y, attrs) },
  gradient: (dy, { x, logits }, attrs) => {
    const rows = { ...attrs, from: 0, rows: x.shape[1]! };
    return {
      x: () => inputGradientOp({ dy, logits }, rows),
      logits: () => sumTo(logitGradientOp({ dy, x, logits }, rows), logits),
    };
  },
  reference: ({ x, logits }, { pool }) => {
    const channels = x.shape[2]!;
    const y = new Float64Array(x.data.length / pool);
    forEachWindow(logits, channels, pool, (window, at, weights) => {
      y[window] = at.reduce((total, i, k) => total + weights[k]! * x.data[i]!, 0);
    });
    return y;
  },
  samples: SIZES.map(([x, channels, pool]): Sample<readonly ['x', 'logits'], Attrs> => {
    const logits = x.with(2, channels);
    return { inputs: { x, logits }, attrs: { pool, shared: channels === 1 }, range: { logits: [-3, 3] } };
  }),
});

const gradientAxes = (attrs: Attrs, inputs: readonly string[]): string => {
  const of = (name: string): string => (name === 'logits' ? channelsOf(attrs) : 'channels');
  return `${inputs.map((name) => `batch length~ ${of(name)}`).join(', ')} -> batch length channels`;
};

/** Rows `[from, from + rows)` of every sequence of `whole` `[batch, length, channels]`. */
function rowsOf(
  whole: Float64Array,
  [batch, length, channels]: readonly [number, number, number],
  { from, rows }: PooledRows,
): Float64Array {
  const own = new Float64Array(batch * rows * channels);
  for (let b = 0; b < batch; b++) {
    const start = (b * length + from) * channels;
    own.set(whole.subarray(start, start + rows * channels), b * rows * channels);
  }
  return own;
}

const inputGradientOp = defineOp<RowAttrs>()({
  name: 'attentionPool1dInputGradient',
  inputs: ['dy', 'logits'],
  axes: (attrs) => gradientAxes(attrs, ['dy', 'logits']),
  reads: (_, attrs, rows) => {
    const { windows, read, attrs: own } = gradientReads(attrs, rows);
    return { rows: { dy: windows, logits: read }, attrs: own };
  },
  infer: ({ dy }, { rows }) => ({ shape: dy.shape.with(1, rows), dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ logits }, dx, rows) => attentionPoolInputGradientKernel(logits, dx, rows),
  },
  reference: ({ dy, logits }, rows) => {
    const channels = dy.shape[2]!;
    const shape = [logits.shape[0]!, logits.shape[1]!, channels] as const;
    const dx = new Float64Array(shape[0] * shape[1] * channels);
    forEachWindow(logits, channels, rows.pool, (window, at, weights) => {
      at.forEach((i, k) => {
        dx[i] = weights[k]! * dy.data[window]!;
      });
    });
    return rowsOf(dx, shape, rows);
  },
  samples: SIZES.map(([x, channels, pool]): Sample<readonly ['dy', 'logits'], RowAttrs> => {
    const inputs = { dy: x.with(1, x[1]! / pool), logits: x.with(2, channels) };
    return {
      inputs,
      attrs: { pool, shared: channels === 1, from: 0, rows: x[1]! },
      range: { logits: [-3, 3] },
    };
  }),
});

const logitGradientOp = defineOp<RowAttrs>()({
  name: 'attentionPool1dLogitGradient',
  inputs: ['dy', 'x', 'logits'],
  axes: (attrs) => gradientAxes(attrs, ['dy', 'x', 'logits']),
  reads: (_, attrs, rows) => {
    const { windows, read, attrs: own } = gradientReads(attrs, rows);
    return { rows: { dy: windows, x: read, logits: read }, attrs: own };
  },
  infer: ({ dy }, { rows }) => ({ shape: dy.shape.with(1, rows), dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ logits }, dz, rows) => attentionPoolLogitGradientKernel(logits, dz, rows),
  },
  reference: ({ dy, x, logits }, rows) => {
    const dz = new Float64Array(x.data.length);
    forEachWindow(logits, x.shape[2]!, rows.pool, (window, at, weights) => {
      const y = at.reduce((total, i, k) => total + weights[k]! * x.data[i]!, 0);
      at.forEach((i, k) => {
        dz[i] = weights[k]! * dy.data[window]! * (x.data[i]! - y);
      });
    });
    return rowsOf(dz, x.shape as [number, number, number], rows);
  },
  samples: SIZES.map(([x, channels, pool]): Sample<readonly ['dy', 'x', 'logits'], RowAttrs> => {
    const inputs = { dy: x.with(1, x[1]! / pool), x, logits: x.with(2, channels) };
    return {
      inputs,
      attrs: { pool, shared: channels === 1, from: 0, rows: x[1]! },
      range: { logits: [-3, 3] },
    };
  }),
});
