/** Softmax, its logarithm and the logarithm of its denominator, along one axis. */
import { linesAlong } from '../kernels/line.ts';
import {
  logSoftmaxGradientKernel,
  logSoftmaxKernel,
  logSumExpKernel,
  softmaxGradientKernel,
  softmaxKernel,
} from '../kernels/softmax.ts';
import { defineOp, type Reference, type Sample } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { multiply } from './arithmetic.ts';
import { axisNames, repeat } from './reduce.ts';

export interface AxisOption {
  /** Counted from the end if negative; the last by default. */
  readonly axis?: number;
}

/** e^x / Σ e^x along an axis: the shape of x. @throws when x has no such axis. */
export function softmax(x: Tensor, { axis = -1 }: AxisOption = {}): Tensor {
  return softmaxOp({ x }, attrsOf('softmax', x, axis));
}

/** log(softmax(x)) along an axis, without the loss of taking that logarithm: the shape of x. @throws as `softmax`. */
export function logSoftmax(x: Tensor, { axis = -1 }: AxisOption = {}): Tensor {
  return logSoftmaxOp({ x }, attrsOf('logSoftmax', x, axis));
}

/** log Σ e^x along an axis, which the result lacks. @throws as `softmax`. */
export function logSumExp(x: Tensor, { axis = -1 }: AxisOption = {}): Tensor {
  return logSumExpOp({ x }, attrsOf('logSumExp', x, axis));
}

interface Attrs {
  readonly axis: number;
  readonly rank: number;
}

function attrsOf(name: string, { shape }: Spec, axis: number): Attrs {
  const rank = shape.length;
  if (Number.isInteger(axis) && axis >= -rank && axis < rank) return { axis: (axis + rank) % rank, rank };
  throw new Error(`${name}: axis ${axis} of ${shapeText(shape)}; it must lie in ${-rank}…${rank - 1}`);
}

/** The axis by itself, the others side by side: `a0 _ a2`. */
const axesOf = ({ axis, rank }: Attrs): string => axisNames(rank).with(axis, '_').join(' ');

/** Calls `visit` with the elements of every line of x and where they are. */
function forEachLine(
  { shape, data }: Reference,
  axis: number,
  visit: (line: readonly number[], at: readonly number[], index: number) => void,
): void {
  const { outer, count, inner } = linesAlong(shape, axis);
  for (let index = 0; index < outer * inner; index++) {
    const base = Math.floor(index / inner) * count * inner + (index % inner);
    const at = Array.from({ length: count }, (_, k) => base + k * inner);
    visit(
      at.map((i) => data[i]!),
      at,
      index,
    );
  }
}

function lineReference(
  x: Reference,
  axis: number,
  value: (line: readonly number[]) => readonly number[],
): Float64Array {
  const y = new Float64Array(x.data.length);
  forEachLine(x, axis, (line, at) => {
    const values = value(line);
    at.forEach((i, k) => {
      y[i] = values[k]!;
    });
  });
  return y;
}

function logSumExpOf(line: readonly number[]): number {
  const high = Math.max(...line);
  return high + Math.log(line.reduce((total, value) => total + Math.exp(value - high), 0));
}

/** Every way lines can lie: in fours along the axis, in fours beside each other, or neither. */
const SHAPES: readonly (readonly [readonly number[], number])[] = [
  [[2, 3, 8], 2],
  [[67, 7], 1],
  [[2, 5, 4], 1],
  [[3, 5, 3], 1],
  [[5, 3], 0],
];

const samples: readonly Sample<readonly ['x'], Attrs>[] = SHAPES.map(([x, axis]) => {
  return { inputs: { x }, attrs: { axis, rank: x.length }, range: { x: [-4, 4] } };
});

const gradientSamples: readonly Sample<readonly ['dp', 'p'], Attrs>[] = SHAPES.map(([p, axis]) => {
  return { inputs: { dp: p, p }, attrs: { axis, rank: p.length } };
});

const softmaxOp = defineOp<Attrs>()({
  name: 'softmax',
  inputs: ['x'],
  axes: (attrs) => `${axesOf(attrs)} -> ${axesOf(attrs)}`,
  infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }, _, { axis }, target) => softmaxKernel(linesAlong(x.shape, axis), target),
  },
  gradient: (dp, _, attrs, p) => ({ x: () => softmaxGradientOp({ dp, p }, attrs) }),
  reference: ({ x }, { axis }) =>
    lineReference(x, axis, (line) => line.map((value) => Math.exp(value - logSumExpOf(line)))),
  samples,
});

const logSoftmaxOp = defineOp<Attrs>()({
  name: 'logSoftmax',
  inputs: ['x'],
  axes: (attrs) => `${axesOf(attrs)} -> ${axesOf(attrs)}`,
  infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }, _, { axis }, target) => logSoftmaxKernel(linesAlong(x.shape, axis), target),
  },
  gradient: (dp, _, attrs, p) => ({ x: () => logSoftmaxGradientOp({ dp, p }, attrs) }),
  reference: ({ x }, { axis }) =>
    lineReference(x, axis, (line) => line.map((value) => value - logSumExpOf(line))),
  samples,
});

const logSumExpOp = defineOp<Attrs>()({
  name: 'logSumExp',
  inputs: ['x'],
  axes: (attrs) => `${axesOf(attrs)} -> ${axesOf(attrs).replace(/ ?_/, '')}`,
  infer: ({ x }, { axis }) => ({ shape: x.shape.toSpliced(axis, 1), dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }, _, { axis }, target) => logSumExpKernel(linesAlong(x.shape, axis), target),
  },
  gradient: (dy, { x }, { axis }) => ({
    x: () => multiply(softmax(x, { axis }), repeat(dy, x, { from: axis, to: axis + 1 })),
  }),
  reference: ({ x }, { axis }) => {
    const { outer, inner } = linesAlong(x.shape, axis);
    const y = new Float64Array(outer * inner);
    forEachLine(x, axis, (line, _, index) => {
      y[index] = logSumExpOf(line);
    });
    return y;
  },
  samples,
});

/** Σ of the products of a line with another, or of the line alone. */
const sumOf = (line: readonly number[], other?: readonly number[]): number =>
  line.reduce((total, value, k) => total + value * (other?.[k] ?? 1), 0);

const softmaxGradientOp = defineOp<Attrs>()({
  name: 'softmaxGradient',
  inputs: ['dp', 'p'],
  axes: (attrs) => `${axesOf(attrs)}, ${axesOf(attrs)} -> ${axesOf(attrs)}`,
  infer: ({ p }) => ({ shape: p.shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ p }, _, { axis }, target) => softmaxGradientKernel(linesAlong(p.shape, axis), target),
  },
  reference: ({ dp, p }, { axis }) => {
    const dx = new Float64Array(p.data.length);
    forEachLine(p, axis, (line, at) => {
      const slopes = at.map((i) => dp.data[i]!);
      const product = sumOf(slopes, line);
      at.forEach((i, k) => {
        dx[i] = line[k]! * (slopes[k]! - product);
      });
    });
    return dx;
  },
  samples: gradientSamples,
});

const logSoftmaxGradientOp = defineOp<Attrs>()({
  name: 'logSoftmaxGradient',
  inputs: ['dp', 'p'],
  axes: (attrs) => `${axesOf(attrs)}, ${axesOf(attrs)} -> ${axesOf(attrs)}`,
  infer: ({ p }) => ({ shape: p.shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ p }, _, { axis }, target) => logSoftmaxGradientKernel(linesAlong(p.shape, axis), target),
  },
  reference: ({ dp, p }, { axis }) => {
    const dx = new Float64Array(p.data.length);
    forEachLine(p, axis, (line, at) => {
      const slopes = at.map((i) => dp.data[i]!);
      const total = sumOf(slopes);
      at.forEach((i, k) => {
        dx[i] = slopes[k]! - Math.exp(line[k]!) * total;
      });
    });
    return dx;
  },
  samples: gradientSamples,
});
