/**
 * Means and variances per channel for batch normalisation, never as E[x²] − E[x]²: rows are taken in chunks, each chunk
 * gives (mean, M2 = Σ(x − mean)²), and these are merged in a fixed order by the formula of Chan, Golub & LeVeque 1979.
 */
import type { KernelBody } from '../kernel.ts';
import { digits, rowsBehind, spans } from '../kernels/touches.ts';
import { defineOp, type Range, type Reference } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { flattenRows, reshape } from './shape.ts';

const LANES = 64; // one lane per (group, chunk, channel); channels are contiguous, so loads coalesce
const MIN_ROWS_PER_CHUNK = 64; // below this a chunk costs more to merge than to sum
const MAX_CHUNKS = 64; // enough work items for narrow layers; the merge is serial over them

/** How the rows of one statistics group are cut, by logical size only: the same chunks on any placement. */
export function rowChunks(rows: number): { readonly chunks: number; readonly rowsPerChunk: number } {
  const wanted = Math.max(1, Math.min(MAX_CHUNKS, Math.floor(rows / MIN_ROWS_PER_CHUNK)));
  const rowsPerChunk = Math.ceil(rows / wanted);
  return { chunks: Math.ceil(rows / rowsPerChunk), rowsPerChunk };
}

/**
 * Mean and biased variance of every channel over groups of `sequences` whole sequences:
 * x `[batch, …, channels]` → `[batch / sequences, 2, channels]`. For `batchNormalize`, whose gradient rule accounts for
 * them; they have none of their own.
 */
export function moments(x: Tensor, { sequences }: { readonly sequences: number }): Tensor {
  const flat = asRows(x); // [batch, position, channel]
  const chunks = chunkMoments({ x: flat }, { sequences });
  return mergeMoments({ x: chunks, like: flat }, { rows: sequences * flat.shape[1]! });
}

/** x `[batch, …, channels]` as `[batch, position, channel]`. */
export function asRows(x: Tensor): Tensor {
  if (x.shape.length === 3) return x;
  if (x.shape.length < 2)
    throw new Error(`batch norm: x is ${shapeText(x.shape)}; it must be [batch, …, channels]`);
  return x.shape.length > 3 ? flattenRows(x) : reshape(x, [-1, 1, x.shape[1]!]);
}

/** The number of groups in a (leaf of a) batch. @throws when sequences do not fill whole groups. */
export function groupCount(name: string, x: Spec, sequences: number): number {
  if (x.shape.length !== 3)
    throw new Error(`${name}: x is ${shapeText(x.shape)}; it must be [batch, position, channel]`);
  const groups = x.shape[0]! / sequences;
  if (!Number.isInteger(groups) || groups === 0) {
    throw new Error(
      `${name}: ${x.shape[0]} sequences do not fill groups of ${sequences}; choose a batch-norm group that divides the sequences of a leaf`,
    );
  }
  return groups;
}

/** WGSL of the merge of (`n`, `mean`, `m2`) with another (count, mean, M2), shared by the kernels below. */
const mergeDeclaration: string = wgsl`
  struct Moments { n: f32, mean: f32, m2: f32 }
  fn mergeMoments(a: Moments, b: Moments) -> Moments {
    let n = a.n + b.n;
    let delta = b.mean - a.mean;
    let share = b.n / n;
    return Moments(n, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.n * share));
  }`;

const BLOCK = 8; // rows whose mean and M2 are taken in registers: one load and 1/8 division an element

const chunkMoments = defineOp<{ readonly sequences: number }>()({
  name: 'chunkMoments',
  inputs: ['x'],
  axes: 'batch length channels -> batch length _ channels', // chunks are of rows, so they follow them
  infer: ({ x }, { sequences }) => {
    const groups = groupCount('moments', x, sequences);
    const { chunks } = rowChunks(sequences * x.shape[1]!);
    return { shape: [groups, chunks, 2, x.shape[2]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x }, y, { sequences }) => chunkMomentsBody(y, sequences * x.shape[1]!),
  },
  reference: ({ x }, { sequences }) => chunkMomentsReference(x, sequences),
  samples: [
    { inputs: { x: [3, 7, 5] }, attrs: { sequences: 1 } },
    { inputs: { x: [4, 67, 3] }, attrs: { sequences: 2 } },
    { inputs: { x: [2, 4099, 3] }, attrs: { sequences: 1 } },
    { inputs: { x: [1, 131, 70] }, attrs: { sequences: 1 } },
  ],
});

function chunkMomentsBody(y: Spec, rows: number): KernelBody {
  const [groups, chunks, , channels] = y.shape as [number, number, number, number];
  const { rowsPerChunk } = rowChunks(rows);
  const items = groups * chunks * channels;
  const values = Array.from({ length: BLOCK }, (_, k) => `v${k}`);
  const body = wgsl`
    let item = wg * ${LANES}u + lane;
    if (item < ${items}u) {
      let channel = item % ${channels}u;
      let chunk = item / ${channels}u % ${chunks}u;
      let group = item / ${channels * chunks}u;
      let first = chunk * ${rowsPerChunk}u;
      let end = min(first + ${rowsPerChunk}u, ${rows}u);
      let base = group * ${rows * channels}u + channel;
      let shift = load_x(base + first * ${channels}u); // keeps sums small where the mean is large
      var total = Moments(0.0, 0.0, 0.0);
      var row = first;
      for (; row + ${BLOCK}u <= end; row += ${BLOCK}u) {
        ${values.map((v, k) => `let ${v} = load_x(base + (row + ${k}u) * ${channels}u) - shift;`)}
        let mean = (${values.join(' + ')}) * ${1 / BLOCK};
        ${values.map((v) => `let d${v} = ${v} - mean;`)}
        let m2 = ${values.map((v) => `d${v} * d${v}`).join(' + ')};
        total = mergeMoments(total, Moments(${BLOCK}.0, mean, m2));
      }
      for (; row < end; row++) {
        total = mergeMoments(total, Moments(1.0, load_x(base + row * ${channels}u) - shift, 0.0));
      }
      let out = (group * ${chunks}u + chunk) * ${2 * channels}u + channel;
      store(out, shift + total.mean);
      store(out + ${channels}u, total.m2);
    }`;
  return {
    body,
    declarations: mergeDeclaration,
    workgroupSize: LANES,
    workgroups: Math.ceil(items / LANES),
    touches: (from, to) => {
      const { rows: x, y } = chunkTouches(spans([from, to], LANES, items), [channels, chunks, rows]);
      return { x, y };
    },
  };
}

/** Elements of x [groups, rows, channels] behind (chunk, channel) items, and of their two results each. */
export function chunkTouches(
  item: Range,
  [channels, chunks, rows]: readonly [channels: number, chunks: number, rows: number],
): { readonly rows: Range; readonly y: Range } {
  const ofChunk = digits(item, [channels])[1]!; // group · chunks + chunk
  const { rowsPerChunk } = rowChunks(rows);
  const reach = (chunk: number): Range => spans([chunk, chunk + 1], rowsPerChunk, rows);
  return {
    rows: rowsBehind(ofChunk, chunks, reach, [rows, channels]),
    y: spans(ofChunk, 2 * channels),
  };
}

function chunkMomentsReference(x: Reference, sequences: number): Float64Array {
  const [batch, positions, channels] = x.shape as [number, number, number];
  const rows = sequences * positions;
  const { chunks, rowsPerChunk } = rowChunks(rows);
  const y = new Float64Array((batch / sequences) * chunks * 2 * channels);
  for (let item = 0; item < (batch / sequences) * chunks; item++) {
    const group = Math.floor(item / chunks);
    const from = (item % chunks) * rowsPerChunk;
    const count = Math.min(rowsPerChunk, rows - from);
    for (let channel = 0; channel < channels; channel++) {
      const column = Array.from(
        { length: count },
        (_, row) => x.data[(group * rows + from + row) * channels + channel]!,
      );
      const mean = column.reduce((a, b) => a + b, 0) / count;
      y[item * 2 * channels + channel] = mean;
      y[(item * 2 + 1) * channels + channel] = column.reduce((m2, value) => m2 + (value - mean) ** 2, 0);
    }
  }
  return y;
}

/** Chunks' (mean, M2) `[groups, chunks, 2, channels]` → groups' (mean, biased variance) `[groups, 2, channels]`. */
const mergeMoments = defineOp<{ readonly rows: number }>()({
  name: 'mergeMoments',
  inputs: ['x', 'like'],
  shapeOnly: ['like'],
  axes: 'batch length _ channels, batch length channels -> batch _ channels',
  atRows: ({ rows }, { axis, size, length }) => ({ rows: axis < 0 ? (rows * size) / length : rows }), // of rows folded here
  mergeParts: (pieces) => foldOp({ x: pieces }, undefined), // all parts have as many rows
  saved: true,
  infer: ({ x }) => ({ shape: [x.shape[0]!, 2, x.shape[3]!], dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }, y, { rows }) => mergeMomentsBody(x.shape[1]!, y, rows),
  },
  reference: ({ x }, { rows }) => {
    const [groups, chunks, , channels] = x.shape as [number, number, number, number];
    const { rowsPerChunk } = rowChunks(rows);
    const counts = Array.from({ length: chunks }, (_, k) => Math.min(rowsPerChunk, rows - k * rowsPerChunk));
    return mergedReference(x.data, groups, channels, counts);
  },
  samples: [
    { inputs: { x: [3, 1, 2, 5], like: [3, 7, 5] }, attrs: { rows: 7 }, range: { x: [0, 1] } },
    { inputs: { x: [2, 64, 2, 3], like: [2, 4099, 3] }, attrs: { rows: 4099 }, range: { x: [0, 1] } },
  ],
});

function mergeMomentsBody(chunks: number, y: Spec, rows: number): KernelBody {
  const [groups, , channels] = y.shape as [number, number, number];
  const { rowsPerChunk } = rowChunks(rows);
  const body = wgsl`
    let item = wg * ${LANES}u + lane;
    if (item < ${groups * channels}u) {
      let channel = item % ${channels}u;
      let group = item / ${channels}u;
      var total = Moments(0.0, 0.0, 0.0);
      for (var chunk = 0u; chunk < ${chunks}u; chunk++) {
        let at = (group * ${chunks}u + chunk) * ${2 * channels}u + channel;
        let count = f32(min(${rowsPerChunk}u, ${rows}u - chunk * ${rowsPerChunk}u));
        total = mergeMoments(total, Moments(count, load_x(at), load_x(at + ${channels}u)));
      }
      let out = group * ${2 * channels}u + channel;
      store(out, total.mean);
      store(out + ${channels}u, total.m2 / ${rows}.0);
    }`;
  return {
    body,
    declarations: mergeDeclaration,
    workgroupSize: LANES,
    workgroups: Math.ceil((groups * channels) / LANES),
  };
}

/** Mean and variance of parts that hold (mean, M2) of the given counts. */
function mergedReference(
  parts: Float64Array,
  groups: number,
  channels: number,
  counts: readonly number[],
): Float64Array {
  const n = counts.reduce((a, b) => a + b, 0);
  const y = new Float64Array(groups * 2 * channels);
  for (let group = 0; group < groups; group++) {
    for (let channel = 0; channel < channels; channel++) {
      const at = (k: number, row: number): number =>
        parts[((group * counts.length + k) * 2 + row) * channels + channel]!;
      const mean = counts.reduce((total, count, k) => total + count * at(k, 0), 0) / n;
      const total = counts.reduce((m, count, k) => m + at(k, 1) + count * (at(k, 0) - mean) ** 2, 0);
      y[group * 2 * channels + channel] = mean;
      y[(group * 2 + 1) * channels + channel] = total / n;
    }
  }
  return y;
}

const foldOp = defineOp()({
  name: 'foldMoments',
  inputs: ['x'],
  axes: 'batch _ channels -> _ _ channels',
  infer: ({ x }) => ({ shape: [1, 2, x.shape[2]!], dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }) => {
      const [groups, , channels] = x.shape as [number, number, number];
      const body = wgsl`
        let channel = wg * ${LANES}u + lane;
        if (channel < ${channels}u) {
          var total = Moments(0.0, 0.0, 0.0);
          for (var group = 0u; group < ${groups}u; group++) {
            let at = group * ${2 * channels}u + channel;
            total = mergeMoments(total, Moments(1.0, load_x(at), load_x(at + ${channels}u)));
          }
          store(channel, total.mean);
          store(channel + ${channels}u, total.m2 / ${groups}.0);
        }`;
      const workgroups = Math.ceil(channels / LANES);
      return { body, declarations: mergeDeclaration, workgroupSize: LANES, workgroups };
    },
  },
  combine: true,
  reference: ({ x }) => {
    const [groups, , channels] = x.shape as [number, number, number];
    const counts = Array.from({ length: groups }, () => 1);
    return mergedReference(x.data, 1, channels, counts);
  },
  samples: [
    { inputs: { x: [1, 2, 5] }, attrs: undefined, range: { x: [0, 1] } },
    { inputs: { x: [7, 2, 70] }, attrs: undefined, range: { x: [0, 1] } },
  ],
});

/**
 * Mean and biased variance over all groups, which are equally large: `[groups, 2, channels]` → `[1, 2, channels]`.
 * Leaves are gathered in logical order first, so every rank folds the same numbers in the same order.
 */
export function foldMoments(x: Tensor): Tensor {
  return foldOp({ x }, undefined);
}
