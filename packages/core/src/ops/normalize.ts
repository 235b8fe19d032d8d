import { elementCount } from '../host-tensor.ts';
import type { KernelBody } from '../kernel.ts';
import { spans } from '../kernels/touches.ts';
import { literal } from '../literal.ts';
import { defineOp, type MapSite, type Reference } from '../op.ts';
import { constant } from '../parameter.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { multiply } from './arithmetic.ts';
import { broadcastSpec, mapReference, sumTo } from './broadcast.ts';
import { asRows, chunkTouches, groupCount, rowChunks } from './moments.ts';
import { sum } from './reduce.ts';
import { reshape, slice } from './shape.ts';

export { foldMoments, moments } from './moments.ts';

interface Attrs {
  readonly epsilon: number;
  /** Whole sequences behind one partial sum of the backward pass. */
  readonly sequences: number;
  /** Logical rows behind one mean and variance. */
  readonly count: number;
}

/** Row 0 (mean, Σdy) or 1 (variance, Σdy·x̂) of the statistics `[groups, 2, channels]` behind output element `i`. */
function statisticIndex(row: 0 | 1, statistics: Spec, { i, y }: MapSite): string {
  const [groups, , channels] = statistics.shape as [number, number, number];
  const group = groups === 1 ? '' : `${i} / ${elementCount(y.shape) / groups}u * ${2 * channels}u + `;
  return `${group}${i} % ${channels}u${row === 0 ? '' : ` + ${channels}u`}`;
}

function referenceStatistic(row: 0 | 1, statistics: Reference, x: Reference, i: number): number {
  const [groups, , channels] = statistics.shape as [number, number, number];
  const group = Math.floor(i / (x.data.length / groups));
  return statistics.data[(group * 2 + row) * channels + (i % channels)]!;
}

function checkStatistics(name: string, x: Spec, statistics: Spec): void {
  const [groups = 0, two, channels] = statistics.shape;
  if (
    statistics.shape.length !== 3 ||
    two !== 2 ||
    channels !== x.shape.at(-1) ||
    x.shape[0]! % groups !== 0
  ) {
    throw new Error(
      `${name}: x is ${shapeText(x.shape)} but its moments are ${shapeText(statistics.shape)}; they must be [groups, 2, ${x.shape.at(-1)}] with groups dividing ${x.shape[0]}`,
    );
  }
}

const normalizeOp = defineOp<Attrs>()({
  name: 'batchNormalize',
  inputs: ['x', 'mean', 'variance', 'gamma', 'beta'],
  infer: ({ x, mean, variance, gamma, beta }) => {
    checkStatistics('batchNormalize', x, mean);
    checkStatistics('batchNormalize', x, variance);
    checkChannels(x, gamma);
    checkChannels(x, beta);
    return { shape: x.shape, dtype: 'f32' };
  },
  kernel: {
    kind: 'map',
    index: (input, _, site) => {
      if (input === 'mean') return statisticIndex(0, site.specs.mean!, site);
      return input === 'variance' ? statisticIndex(1, site.specs.variance!, site) : undefined;
    },
    expression: ({ x, mean, variance, gamma, beta }, { epsilon }) =>
      `((${x} - ${mean}) / sqrt(${variance} + ${literal(epsilon)}) * ${gamma} + ${beta})`,
  },
  // The whole derivative, through mean and variance too, so those inputs get none.
  gradient: (dy, { x, mean, gamma }, attrs) => {
    const folded = mean.shape[0] !== x.shape[0]! / attrs.sequences;
    const sums = gradientSums(dy, x, mean, { ...attrs, folded }); // [batch / sequences, 2, channel]
    const statistics = folded ? foldSums(sums) : sums;
    return {
      x: () =>
        gradientOp({ dy, x, mean, variance: mean, sum: statistics, product: statistics, gamma }, attrs),
      gamma: () => sum(slice(sums, { from: 1, to: 2 }), { from: 0, to: 2 }),
      beta: () => sum(slice(sums, { from: 0, to: 1 }), { from: 0, to: 2 }),
    };
  },
  reference: ({ x, mean, variance, gamma, beta }, { epsilon }) =>
    x.data.map((value, i) => {
      const channel = i % gamma.data.length;
      const deviation = Math.sqrt(referenceStatistic(1, variance, x, i) + epsilon);
      const normal = (value - referenceStatistic(0, mean, x, i)) / deviation;
      return normal * gamma.data[channel]! + beta.data[channel]!;
    }),
  samples: [
    {
      inputs: { x: [4, 5, 3], mean: [2, 2, 3], variance: [2, 2, 3], gamma: [3], beta: [3] },
      attrs: { epsilon: 1e-3, sequences: 2, count: 10 },
      range: { variance: [0.5, 2] },
    },
  ],
});

function checkChannels(x: Spec, scale: Spec): void {
  const channels = x.shape.at(-1)!;
  if (scale.shape.length === 1 && scale.shape[0] === channels) return;
  throw new Error(
    `batchNormalize: x ${shapeText(x.shape)} has ${channels} channels but gamma or beta is ${shapeText(scale.shape)}; set channels: ${channels}`,
  );
}

/**
 * (x − mean) / √(variance + epsilon) · gamma + beta: x `[batch, …, channels]`, gamma and beta `[channels]`,
 * moments `[batch / sequences, 2, channels]` or, folded over all groups, `[1, 2, channels]` → the shape of x.
 * `sequences` is the group size that was given to `moments`, `count` the logical number of rows behind one statistic.
 */
export function batchNormalize(
  x: Tensor,
  moments: Tensor,
  gamma: Tensor,
  beta: Tensor,
  { epsilon, sequences, count }: Attrs,
): Tensor {
  return normalizeOp({ x, mean: moments, variance: moments, gamma, beta }, { epsilon, sequences, count });
}

const gradientOp = defineOp<Attrs>()({
  name: 'batchNormalizeGradient',
  inputs: ['dy', 'x', 'mean', 'variance', 'sum', 'product', 'gamma'],
  infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
  kernel: {
    kind: 'map',
    index: (input, _, site) => {
      if (input === 'mean' || input === 'sum') return statisticIndex(0, site.specs[input]!, site);
      if (input === 'variance' || input === 'product') return statisticIndex(1, site.specs[input]!, site);
      return undefined;
    },
    declarations: () => wgsl`
      fn batchNormalizeGradient(
        dy: f32, centred: f32, inverse: f32, sum: f32, product: f32, gamma: f32, count: f32
      ) -> f32 {
        return gamma * inverse * (dy - (sum + centred * inverse * product) / count);
      }`,
    expression: ({ dy, x, mean, variance, sum, product, gamma }, { epsilon, count }) =>
      `batchNormalizeGradient(${dy}, ${x} - ${mean}, 1.0 / sqrt(${variance} + ${literal(epsilon)}), ${sum}, ${product}, ${gamma}, ${literal(count)})`,
  },
  reference: ({ dy, x, mean, variance, sum, product, gamma }, { epsilon, count }) =>
    dy.data.map((value, i) => {
      const inverse = 1 / Math.sqrt(referenceStatistic(1, variance, x, i) + epsilon);
      const normal = (x.data[i]! - referenceStatistic(0, mean, x, i)) * inverse;
      const shared = referenceStatistic(0, sum, x, i) + normal * referenceStatistic(1, product, x, i);
      return gamma.data[i % gamma.data.length]! * inverse * (value - shared / count);
    }),
  samples: [
    {
      inputs: {
        dy: [4, 5, 3],
        x: [4, 5, 3],
        mean: [2, 2, 3],
        variance: [2, 2, 3],
        sum: [2, 2, 3],
        product: [2, 2, 3],
        gamma: [3],
      },
      attrs: { epsilon: 1e-3, sequences: 2, count: 10 },
      range: { variance: [0.5, 2] },
    },
  ],
});

interface SumAttrs {
  readonly epsilon: number;
  readonly sequences: number;
  /** Whether one mean and variance belong to all groups. */
  readonly folded: boolean;
}

/** (Σdy, Σdy·x̂) of every group of sequences, over its positions: → `[batch / sequences, 2, channels]`. */
function gradientSums(
  dy: Tensor,
  x: Tensor,
  moments: Tensor,
  { epsilon, sequences, folded }: SumAttrs,
): Tensor {
  const chunks = chunkSums({ dy: asRows(dy), x: asRows(x), moments }, { epsilon, sequences, folded });
  return sum(chunks, { from: 1, to: 2 });
}

const LANES = 64; // one lane per (group, chunk, channel), as in moments.ts
const BLOCK = 4; // independent loads in flight

const chunkSums = defineOp<SumAttrs>()({
  name: 'batchNormalizeSums',
  inputs: ['dy', 'x', 'moments'],
  axes: ({ folded }) =>
    `batch length channels, batch length channels, ${folded ? '_' : 'batch'} _ channels -> batch length _ channels`,
  infer: ({ x, moments }, { sequences, folded }) => {
    const groups = groupCount('batchNormalize', x, sequences);
    checkStatistics('batchNormalize', x, moments);
    if (moments.shape[0] !== (folded ? 1 : groups)) {
      throw new Error(
        `batchNormalize: ${groups} groups of ${sequences} sequences but moments of ${moments.shape[0]} groups; fold them or use the same groups`,
      );
    }
    const { chunks } = rowChunks(sequences * x.shape[1]!);
    return { shape: [groups, chunks, 2, x.shape[2]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x }, y, attrs) => chunkSumsBody(y, attrs.sequences * x.shape[1]!, attrs),
  },
  reference: chunkSumsReference,
  samples: [
    {
      inputs: { dy: [4, 67, 3], x: [4, 67, 3], moments: [2, 2, 3] },
      attrs: { epsilon: 1e-3, sequences: 2, folded: false },
      range: { moments: [0.5, 2] },
    },
    {
      inputs: { dy: [3, 131, 70], x: [3, 131, 70], moments: [1, 2, 70] },
      attrs: { epsilon: 1e-3, sequences: 1, folded: true },
      range: { moments: [0.5, 2] },
    },
  ],
});

function chunkSumsBody(y: Spec, rows: number, { epsilon, folded }: SumAttrs): KernelBody {
  const [groups, chunks, , channels] = y.shape as [number, number, number, number];
  const { rowsPerChunk } = rowChunks(rows);
  const items = groups * chunks * channels;
  const block = Array.from({ length: BLOCK }, (_, k) => k);
  const body = wgsl`
    let item = wg * ${LANES}u + lane;
    if (item < ${items}u) {
      let channel = item % ${channels}u;
      let chunk = item / ${channels}u % ${chunks}u;
      let group = item / ${channels * chunks}u;
      let statistic = ${folded ? '' : `group * ${2 * channels}u + `}channel;
      let mean = load_moments(statistic);
      let inverse = 1.0 / sqrt(load_moments(statistic + ${channels}u) + ${literal(epsilon)});
      let first = chunk * ${rowsPerChunk}u;
      let end = min(first + ${rowsPerChunk}u, ${rows}u);
      let base = group * ${rows * channels}u + channel;
      var sum = 0.0;
      var product = 0.0;
      var row = first;
      for (; row + ${BLOCK}u <= end; row += ${BLOCK}u) {
        ${block.map((k) => `let at${k} = base + (row + ${k}u) * ${channels}u; let dy${k} = load_dy(at${k}); let x${k} = load_x(at${k}) - mean;`)}
        sum += ${block.map((k) => `dy${k}`).join(' + ')};
        product += ${block.map((k) => `dy${k} * x${k}`).join(' + ')};
      }
      for (; row < end; row++) {
        let at = base + row * ${channels}u;
        sum += load_dy(at);
        product += load_dy(at) * (load_x(at) - mean);
      }
      let out = (group * ${chunks}u + chunk) * ${2 * channels}u + channel;
      store(out, sum);
      store(out + ${channels}u, product * inverse);
    }`;
  const touches: KernelBody['touches'] = (from, to) => {
    const touched = chunkTouches(spans([from, to], LANES, items), [channels, chunks, rows]);
    return { dy: touched.rows, x: touched.rows, y: touched.y };
  };
  return { body, workgroupSize: LANES, workgroups: Math.ceil(items / LANES), touches };
}

function chunkSumsReference(
  { dy, x, moments }: { readonly dy: Reference; readonly x: Reference; readonly moments: Reference },
  { epsilon, sequences }: SumAttrs,
): Float64Array {
  const [batch, positions, channels] = x.shape as [number, number, number];
  const rows = sequences * positions;
  const { chunks, rowsPerChunk } = rowChunks(rows);
  const y = new Float64Array((batch / sequences) * chunks * 2 * channels);
  for (let i = 0; i < dy.data.length; i++) {
    const row = Math.floor(i / channels);
    const item = Math.floor(row / rows) * chunks + Math.floor((row % rows) / rowsPerChunk);
    const deviation = Math.sqrt(referenceStatistic(1, moments, x, i) + epsilon);
    const normal = (x.data[i]! - referenceStatistic(0, moments, x, i)) / deviation;
    y[item * 2 * channels + (i % channels)]! += dy.data[i]!;
    y[(item * 2 + 1) * channels + (i % channels)]! += dy.data[i]! * normal;
  }
  return y;
}

const foldSumsOp = defineOp()({
  name: 'foldSums',
  inputs: ['x'],
  axes: 'batch _ channels -> _ channels',
  infer: ({ x }) => ({ shape: x.shape.slice(1), dtype: 'f32' }),
  kernel: {
    kind: 'reduce',
    axes: () => [0, 1],
    initial: '0.0',
    combine: (accumulated, value) => `${accumulated} + ${value}`,
  },
  combine: true,
  reference: ({ x }) => {
    const inner = elementCount(x.shape.slice(1));
    const y = new Float64Array(inner);
    for (let i = 0; i < x.data.length; i++) y[i % inner]! += x.data[i]!;
    return y;
  },
  samples: [{ inputs: { x: [5, 2, 7] }, attrs: undefined }],
});

/** Sums over all groups, from all leaves in logical order: `[groups, 2, channels]` → `[1, 2, channels]`. */
function foldSums(x: Tensor): Tensor {
  return reshape(foldSumsOp({ x }, undefined), [1, ...x.shape.slice(1)]);
}

const affineOp = defineOp<{ readonly epsilon: number }>()({
  name: 'affineNormalize',
  inputs: ['x', 'mean', 'variance', 'gamma', 'beta'],
  infer: (inputs) => broadcastSpec('affineNormalize', inputs),
  kernel: {
    kind: 'map',
    expression: ({ x, mean, variance, gamma, beta }, { epsilon }) =>
      `((${x} - ${mean}) / sqrt(${variance} + ${literal(epsilon)}) * ${gamma} + ${beta})`,
  },
  gradient: (dy, { x, mean, variance, gamma, beta }, { epsilon }) => ({
    x: () => affineNormalize(dy, constant(0), variance, gamma, constant(0), { epsilon }),
    gamma: () => {
      const normal = affineNormalize(x, mean, variance, constant(1), constant(0), { epsilon });
      return sumTo(multiply(dy, normal), gamma);
    },
    beta: () => sumTo(dy, beta),
  }),
  reference: (inputs, { epsilon }) =>
    mapReference<['x', 'mean', 'variance', 'gamma', 'beta']>(
      ({ x, mean, variance, gamma, beta }) => ((x - mean) / Math.sqrt(variance + epsilon)) * gamma + beta,
    )(inputs),
  samples: [
    {
      inputs: { x: [2, 7, 5], mean: [5], variance: [5], gamma: [5], beta: [5] },
      attrs: { epsilon: 1e-3 },
      range: { variance: [0.5, 2] },
    },
  ],
});

/**
 * (x − mean) / √(variance + epsilon) · gamma + beta with fixed statistics, as batch norm does in evaluation:
 * x `[batch, …, channels]`, the others `[channels]` (or scalars) → the shape of x. Mean and variance get no gradient.
 */
export function affineNormalize(
  x: Tensor,
  mean: Tensor,
  variance: Tensor,
  gamma: Tensor,
  beta: Tensor,
  { epsilon }: { readonly epsilon: number },
): Tensor {
  return affineOp({ x, mean, variance, gamma, beta }, { epsilon });
}
