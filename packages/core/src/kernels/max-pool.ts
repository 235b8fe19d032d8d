/** Max-pooling and its gradient. Rows are [batch, row, channel]; four channels at a time where their number allows. */
import { elementCount } from '../host-tensor.ts';
import type { KernelBody } from '../kernel.ts';
import type { Range } from '../op.ts';
import { isNan } from '../ops/curve.ts';
import type { Spec } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { repeat } from './tile.ts';
import { digits, rowsBehind, spans } from './touches.ts';

export interface PoolWindows {
  readonly size: number;
  readonly stride: number;
  /** Rows the first window begins before x; they count as −∞. */
  readonly padLeft: number;
}

/** Rows `[from, from + rows)` of x that the gradient is computed for. */
export interface PoolGradientRows extends PoolWindows {
  readonly from: number;
  readonly rows: number;
}

const LANES = 64;
/** Windows of more rows than this are searched in a loop. */
const MAX_UNROLLED = 16;

/**
 * Orders f32 values as u32: NaN above all, −0 equal to +0, nothing at 0. Windows are compared on these, because float
 * comparisons are false for NaN, and drivers may turn them with a `select` into `max`, which drops NaN.
 */
const ORDER = `fn order_of(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let ordered = select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
  return select(select(ordered, 0x80000000u, (bits & 0x7fffffffu) == 0u), 0xffffffffu, ${isNan('x')});
}`;
const ORDER4 = `${ORDER}
fn order4_of(x: vec4f) -> vec4u { return vec4u(order_of(x.x), order_of(x.y), order_of(x.z), order_of(x.w)); }`;

/** What differs between kernels for one and for four channels at a time. */
interface Columns {
  /** Vectors in a row. */
  readonly count: number;
  readonly load: string;
  readonly store: string;
  readonly order: string;
  readonly type: string;
  readonly orders: string;
  readonly declarations: string;
  readonly vec4: readonly string[];
}

function columnsOf(channels: number, inputs: readonly string[]): Columns {
  if (channels % 4 !== 0) {
    const names = { load: 'load', store: 'store', order: 'order_of', type: 'f32', orders: 'u32' };
    return { ...names, count: channels, declarations: ORDER, vec4: [] };
  }
  const names = { load: 'load4', store: 'store4', order: 'order4_of', type: 'vec4f', orders: 'vec4u' };
  return { ...names, count: channels / 4, declarations: ORDER4, vec4: [...inputs, 'y'] };
}

/** The largest value of every window: x `[batch, length, channels]` → y `[batch, windows, channels]`. */
export function maxPoolKernel(x: Spec, y: Spec, { size, stride, padLeft }: PoolWindows): KernelBody {
  const [, length, channels] = x.shape as [number, number, number];
  const { count, load, store, order, declarations, vec4 } = columnsOf(channels, ['x']);
  const windows = y.shape[1]!;
  const items = (elementCount(y.shape) / channels) * count;
  const body = wgsl`
    let i = wg * ${LANES}u + lane;
    if (i < ${items}u) {
      let window = i / ${count}u % ${windows}u;
      let start = i32(window * ${stride}u) - ${padLeft};
      let top = u32(max(start, 0));
      let bottom = u32(min(start + ${size}, ${length}));
      let base = i / ${windows * count}u * ${length * count}u + i % ${count}u;
      var best = ${load}_x(base + top * ${count}u);
      var highest = ${order}(best);
      for (var row = top + 1u; row < bottom; row++) {
        let value = ${load}_x(base + row * ${count}u);
        let order = ${order}(value);
        best = select(best, value, order > highest);
        highest = max(highest, order);
      }
      ${store}(i, best);
    }`;
  const touches: KernelBody['touches'] = (from, to) => {
    const item = spans([from, to], LANES, items);
    const reach = (window: number): Range => [window * stride - padLeft, window * stride - padLeft + size];
    const x = rowsBehind(digits(item, [count])[1]!, windows, reach, [length, channels]);
    return { x, y: spans(item, channels / count) };
  };
  return { body, declarations, vec4, workgroupSize: LANES, workgroups: Math.ceil(items / LANES), touches };
}

/**
 * dx `[batch, rows, channels]` from dy `[batch, windows, channels]`: each row gathers from the windows it is the first
 * maximum of. The maximum is searched for in x again.
 */
export function maxPoolGradientKernel(dy: Spec, x: Spec, dx: Spec, rows: PoolGradientRows): KernelBody {
  const separate = rows.stride >= rows.size && rows.size <= MAX_UNROLLED;
  return separate ? separateWindows(dy, x, rows) : overlappingWindows(dy, x, dx, rows);
}

/** One invocation for each window and what follows it up to the next one: every value is loaded once. */
function separateWindows(dy: Spec, x: Spec, rows: PoolGradientRows): KernelBody {
  const { size, stride, padLeft, from } = rows;
  const [batch, length, channels] = x.shape as [number, number, number];
  const windows = dy.shape[1]!;
  const to = from + rows.rows;
  const first = Math.floor((from + padLeft) / stride);
  const slots = Math.floor((to - 1 + padLeft) / stride) + 1 - first;
  const { count, load, store, order, type, orders, declarations, vec4 } = columnsOf(channels, ['dy', 'x']);
  const exact = from + padLeft === first * stride && rows.rows === slots * stride;
  const inside = first * stride < padLeft || (first + slots - 1) * stride - padLeft + size > length;
  const at = (r: number): string => `base + u32(start + ${r}) * ${count}u`;
  const loadOrder = (r: number): string =>
    inside
      ? `var order${r} = ${orders}(0u); if (start + ${r} >= 0 && start + ${r} < ${length}) { order${r} = ${order}(${load}_x(${at(r)})); }`
      : `let order${r} = ${order}(${load}_x(${at(r)}));`;
  const storeRow = (r: number, value: string): string => {
    const row = `u32(start + ${r - from})`;
    const text = `${store}((batch * ${rows.rows}u + ${row}) * ${count}u + column, ${value});`;
    return exact ? text : `if (start + ${r} >= ${from} && start + ${r} < ${to}) { ${text} }`;
  };
  const items = batch * slots * count;
  const body = wgsl`
    let i = wg * ${LANES}u + lane;
    if (i < ${items}u) {
      let column = i % ${count}u;
      let window = i32(i / ${count}u % ${slots}u) + ${first};
      let batch = i / ${slots * count}u;
      let base = batch * ${length * count}u + column;
      let start = window * ${stride} - ${padLeft};
      var gradient = ${type}(0.0);
      if (window >= 0 && window < ${windows}) {
        gradient = ${load}_dy((batch * ${windows}u + u32(window)) * ${count}u + column);
      }
      ${repeat(size, loadOrder)}
      var left = ${repeat(size, (r) => `order${r}`).reduce((a, b) => `max(${a}, ${b})`)};
      ${repeat(size, (r) => {
        const value = `select(${type}(0.0), gradient, order${r} == left)`;
        // the first maximum takes all: no value has order 1
        const taken = r === size - 1 ? '' : `left = select(left, ${orders}(1u), order${r} == left);`;
        return `${storeRow(r, value)} ${taken}`;
      })}
      ${repeat(stride - size, (r) => storeRow(size + r, `${type}(0.0)`))}
    }`;
  const touches: KernelBody['touches'] = (workgroup, end) => {
    const item = spans([workgroup, end], LANES, items);
    const slot = digits(item, [count])[1]!;
    const start = (n: number, offset: number): Range => {
      const row = (n + first) * stride - padLeft - offset;
      return [row, row + stride];
    };
    return {
      dy: rowsBehind(slot, slots, (n) => [n + first, n + first + 1], [windows, channels]),
      x: rowsBehind(slot, slots, (n) => start(n, 0), [length, channels]),
      y: rowsBehind(slot, slots, (n) => start(n, from), [rows.rows, channels]),
    };
  };
  return { body, declarations, vec4, workgroupSize: LANES, workgroups: Math.ceil(items / LANES), touches };
}

/** One invocation for each row of dx. */
function overlappingWindows(dy: Spec, x: Spec, dx: Spec, rows: PoolGradientRows): KernelBody {
  const { size, stride, padLeft, from } = rows;
  const [, length, channels] = x.shape as [number, number, number];
  const windows = dy.shape[1]!;
  const items = elementCount(dx.shape);
  const body = wgsl`
    let i = wg * ${LANES}u + lane;
    if (i < ${items}u) {
      let channel = i % ${channels}u;
      let row = i32(i / ${channels}u % ${rows.rows}u) + ${from};
      let batch = i / ${rows.rows * channels}u;
      let base = batch * ${length * channels}u + channel;
      let own = order_of(load_x(base + u32(row) * ${channels}u));
      let last = (row + ${padLeft}) / ${stride};
      let first = max(row + ${padLeft - size + stride}, 0) / ${stride};
      var total = 0.0;
      for (var window = first; window <= min(last, ${windows - 1}); window++) {
        let start = window * ${stride} - ${padLeft};
        let end = min(start + ${size}, ${length});
        var chosen = row >= start && row < end;
        for (var other = max(start, 0); other < end; other++) {
          let order = order_of(load_x(base + u32(other) * ${channels}u));
          chosen = chosen && (order < own || (order == own && other >= row));
        }
        if (chosen) {
          total += load_dy((batch * ${windows}u + u32(window)) * ${channels}u + channel);
        }
      }
      store(i, total);
    }`;
  const touches: KernelBody['touches'] = (workgroup, end) => {
    const item = spans([workgroup, end], LANES, items);
    const own = digits(item, [channels])[1]!;
    const window = (row: number): Range => [
      Math.floor((row + from + padLeft - size) / stride),
      Math.floor((row + from + padLeft) / stride) + 1,
    ];
    return {
      dy: rowsBehind(own, rows.rows, window, [windows, channels]),
      x: rowsBehind(own, rows.rows, (row) => [row + from - size, row + from + size], [length, channels]),
      y: item,
    };
  };
  return { body, declarations: ORDER, workgroupSize: LANES, workgroups: Math.ceil(items / LANES), touches };
}
