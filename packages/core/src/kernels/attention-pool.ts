/**
 * Attention pooling and its gradients: a softmax over the rows of each window of `pool` rows, windows without overlap.
 * Rows are [batch, row, channel]. An invocation takes one window of one channel, or of four side by side, in registers.
 */
import type { KernelBody } from '../kernel.ts';
import type { Range } from '../op.ts';
import type { Spec } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { larger, plus, SAFE } from './line.ts';
import { repeat } from './tile.ts';
import { box, digits, spans, within } from './touches.ts';

const LANES = 64;

/** Rows `[from, from + rows)` of x that a gradient is for; the first window begins at row 0. */
export interface PooledRows {
  readonly pool: number;
  readonly from: number;
  readonly rows: number;
}

/** Σ weight · x of each window: x `[batch, length, channels]` → y `[batch, length / pool, channels]`. */
export function attentionPoolKernel(logits: Spec, y: Spec, { pool }: { readonly pool: number }): KernelBody {
  const shape = shapeOf(logits, y, pool);
  const outputs = { pool: 1, from: 0, rows: shape.windows };
  return poolKernel(shape, ['x'], outputs, `store${shape.suffix}(i, ${meanOf(shape)});`);
}

/** dx = weight · dy. */
export function attentionPoolInputGradientKernel(logits: Spec, dx: Spec, rows: PooledRows): KernelBody {
  const shape = shapeOf(logits, dx, rows.pool);
  const text = wgsl`
    let dy = load${shape.suffix}_dy(i);
    ${storeRows(shape, rows, (k) => `dy * (e${k} / weight)`)}`;
  return poolKernel(shape, ['dy'], rows, text);
}

/** Of the logits, each as if channels had their own: weight · dy · (x − y). */
export function attentionPoolLogitGradientKernel(logits: Spec, dz: Spec, rows: PooledRows): KernelBody {
  const shape = shapeOf(logits, dz, rows.pool);
  const { pool, load, suffix } = shape;
  // x − y as the mean of the differences between rows: these are small, and rounded less, where neighbours are alike
  const deviation = (k: number): string =>
    `(${repeat(pool, (j) => `e${j} * (x${k} - x${j})`).reduce(plus)} / weight)`;
  const text = wgsl`
    let dy = load${suffix}_dy(i);
    ${repeat(pool, (k) => `let x${k} = ${load('x', `first + ${k}u`)};`)}
    ${storeRows(shape, rows, (k) => `dy * (e${k} / weight) * ${deviation(k)}`)}`;
  return poolKernel(shape, ['dy', 'x'], rows, text);
}

interface PoolShape {
  readonly batch: number;
  readonly windows: number;
  readonly pool: number;
  /** Channels, or vectors of four. */
  readonly count: number;
  readonly suffix: '' | '4';
  /** Whether one logit is for all channels. */
  readonly shared: boolean;
  load(input: string, row: string): string;
}

function shapeOf(logits: Spec, y: Spec, pool: number): PoolShape {
  const [batch, length, logitChannels] = logits.shape as [number, number, number];
  const channels = y.shape[2]!;
  const suffix = channels % 4 === 0 ? '4' : '';
  const count = suffix === '4' ? channels / 4 : channels;
  const load = (input: string, row: string): string =>
    `load${suffix}_${input}((${row}) * ${count}u + column)`;
  const shared = logitChannels !== channels;
  return { batch, windows: length / pool, pool, count, suffix, shared, load };
}

const meanOf = ({ pool, load }: PoolShape): string =>
  `${repeat(pool, (k) => `e${k} * ${load('x', `first + ${k}u`)}`).reduce(plus)} / weight`;

/** Stores a value for each row of the window that is among those wanted. */
function storeRows(
  { windows, pool, count, suffix }: PoolShape,
  { from, rows }: PooledRows,
  value: (k: number) => string,
): readonly string[] {
  const whole = from === 0 && rows === windows * pool;
  return repeat(pool, (k) => {
    const row = `window * ${pool}u + ${k}u - ${from}u`;
    const store = `store${suffix}((batch * ${rows}u + ${row}) * ${count}u + column, ${value(k)});`;
    return whole ? store : `if (${row} < ${rows}u) { ${store} }`; // what lies before `from` wraps to a large number
  });
}

/** `text` sees window `i` with its first row and, for row k of it, `e{k}` = e^(logit − highest) and their sum `weight`. */
function poolKernel(
  shape: PoolShape,
  inputs: readonly string[],
  output: PooledRows,
  text: string,
): KernelBody {
  const { batch, windows, pool, count, suffix, shared, load } = shape;
  const logit = (k: number): string =>
    shared ? `load_logits(first + ${k}u)` : load('logits', `first + ${k}u`);
  const exp = shared ? 'safe_exp' : `safe_exp${suffix}`;
  const items = batch * windows * count;
  const body = wgsl`
    let i = wg * ${LANES}u + lane;
    if (i < ${items}u) {
      let column = i % ${count}u;
      let window = i / ${count}u % ${windows}u;
      let batch = i / ${windows * count}u;
      let first = i / ${count}u * ${pool}u;
      ${repeat(pool, (k) => `let z${k} = ${logit(k)};`)}
      let high = ${repeat(pool, (k) => `z${k}`).reduce(larger)};
      ${repeat(pool, (k) => `let e${k} = ${exp}(z${k} - high);`)}
      let weight = ${repeat(pool, (k) => `e${k}`).reduce(plus)};
      ${text}
    }`;
  return {
    body,
    declarations: SAFE,
    vec4: suffix === '' ? [] : [...inputs, ...(shared ? [] : ['logits']), 'y'],
    workgroupSize: LANES,
    workgroups: Math.ceil(items / LANES),
    touches: (from, to) => touched(shape, output, spans([from, to], LANES, items)),
  };
}

/** Elements behind items `[from, to)`. An output holds `output.pool` rows of each window. */
function touched(
  { windows, pool, count, suffix, shared }: PoolShape,
  output: PooledRows,
  item: Range,
): Readonly<Record<string, Range>> {
  const [, window, outer] = digits(item, [count, windows]) as [Range, Range, Range];
  const channels = suffix === '4' ? 4 * count : count;
  const rows = (each: number, length: number, width: number): Range =>
    box({ outer, row: spans(window, each), column: [0, width] }, length, width);
  const own = spans(window, output.pool);
  const row = within([own[0] - output.from, own[1] - output.from], output.rows);
  return {
    x: rows(pool, windows * pool, channels),
    logits: rows(pool, windows * pool, shared ? 1 : channels),
    dy: rows(1, windows, channels),
    y: box({ outer, row, column: [0, channels] }, output.rows, channels),
  };
}
