import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import {
  asSpec,
  checkOperands,
  emptyLike,
  forEachProduct,
  geometryOf,
  kernelsOf,
  type Steps,
  weightGradientChunks,
} from './conv1d-geometry.ts';
import { sum } from './reduce.ts';
import { clampedRows, type Padding, windowGeometry } from './window.ts';

export interface Conv1dOptions {
  readonly stride?: number;
  readonly dilation?: number;
  /** `same` as in TensorFlow: length / stride rows, the odd zero on the right. Default `same`. */
  readonly padding?: Padding;
  /** Equal parts of the input and output channels; each part of the outputs sums over its part of the inputs. Default 1. */
  readonly groups?: number;
}

/**
 * The convolution y[b, p, o] = Σ_t Σ_c x[b, p · stride + t · dilation − padLeft, c] · weight[t, c, o]:
 * x [batch, length, in], weight [size, in, out] → [batch, outLength, out]. Sums run over taps, then channels, in f32.
 * In groups the weight is [size, in / groups, out]; with as many groups as channels the convolution is depthwise.
 *
 * @throws when the channels differ or do not divide into the groups, or when the padded length is shorter than the
 * (dilated) weight.
 */
export function conv1d(
  x: Tensor,
  weight: Tensor,
  { stride = 1, dilation = 1, padding = 'same', groups = 1 }: Conv1dOptions = {},
): Tensor {
  checkOperands('conv1d', 'x', x, weight, groups);
  const [size = 0] = weight.shape;
  const { padLeft, outLength } = windowGeometry('conv1d', {
    length: x.shape[1]!,
    span: (size - 1) * dilation + 1,
    stride,
    padding,
  });
  return op({ x, weight }, { stride, dilation, padLeft, groups, outLength });
}

/**
 * The transpose of `conv1d` with `padding: 'same'`, as Keras' Conv1DTranspose: x [batch, length, in],
 * weight [size, out, in] → [batch, length · stride, out].
 */
export function convTranspose1d(
  x: Tensor,
  weight: Tensor,
  { stride = 1, dilation = 1 }: Omit<Conv1dOptions, 'padding' | 'groups'> = {},
): Tensor {
  checkOperands('convTranspose1d', 'x', x, weight, 'transpose');
  const length = x.shape[1]! * stride;
  const span = (weight.shape[0]! - 1) * dilation + 1;
  const { padLeft } = windowGeometry('convTranspose1d', { length, span, stride, padding: 'same' });
  return inputGradientOp({ dy: x, weight }, { stride, dilation, padLeft, groups: 1, length });
}

const op = defineOp<Steps & { readonly outLength: number }>()({
  name: 'conv1d',
  inputs: ['x', 'weight'],
  axes: ({ groups }) =>
    groups === 1
      ? 'batch length~ in, _ in out -> batch length out'
      : 'batch length~ _, _ _ _ -> batch length _',
  reads: ({ x, weight }, attrs, rows) => {
    const span = (weight.shape[0]! - 1) * attrs.dilation + 1;
    const first = rows[0] * attrs.stride - attrs.padLeft;
    const read = clampedRows([first, (rows[1] - 1) * attrs.stride - attrs.padLeft + span], x.shape[1]!);
    return { rows: { x: read }, attrs: { ...attrs, padLeft: read[0] - first, outLength: rows[1] - rows[0] } };
  },
  infer: ({ x, weight }, { outLength, groups }) => {
    checkOperands('conv1d', 'x', x, weight, groups);
    return { shape: [x.shape[0]!, outLength, weight.shape[2]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x, weight }, y, attrs, target) =>
      kernelsOf(attrs, target).conv1d(geometryOf(x, y, weight.shape[0]!, attrs)),
  },
  product: true,
  linear: true,
  gradient: (dy, { x, weight }, { outLength: _, ...steps }) => ({
    x: (): Tensor => inputGradientOp({ dy, weight }, { ...steps, length: x.shape[1]! }),
    weight: (): Tensor => weightGradient(x, dy, { ...steps, size: weight.shape[0]! }),
  }),
  reference: ({ x, weight }, attrs) => {
    const y = emptyLike([x.shape[0]!, attrs.outLength, weight.shape[2]!]);
    forEachProduct(geometryOf(asSpec(x), asSpec(y), weight.shape[0]!, attrs), (xAt, weightAt, yAt) => {
      y.data[yAt]! += x.data[xAt]! * weight.data[weightAt]!;
    });
    return y.data;
  },
  samples: [
    {
      inputs: { x: [2, 37, 4], weight: [5, 4, 6] },
      attrs: steps({ padLeft: 6, outLength: 37, dilation: 3 }),
    },
    { inputs: { x: [1, 101, 4], weight: [15, 4, 11] }, attrs: steps({ padLeft: 7, outLength: 101 }) },
    { inputs: { x: [3, 31, 5], weight: [6, 5, 7] }, attrs: steps({ padLeft: 2, outLength: 31 }) },
    { inputs: { x: [2, 32, 3], weight: [4, 3, 5] }, attrs: steps({ padLeft: 1, outLength: 11, stride: 3 }) },
    {
      inputs: { x: [1, 19, 2], weight: [3, 2, 2] },
      attrs: steps({ padLeft: 64, outLength: 19, dilation: 64 }),
    },
    { inputs: { x: [2, 3, 1], weight: [7, 1, 1] }, attrs: steps({ padLeft: 3, outLength: 3 }) },
    {
      inputs: { x: [1, 41, 67], weight: [2, 67, 13] },
      attrs: steps({ padLeft: 0, outLength: 20, stride: 2 }),
    },
    {
      inputs: { x: [2, 13, 6], weight: [3, 2, 9] },
      attrs: steps({ padLeft: 2, outLength: 13, dilation: 2, groups: 3 }),
    },
    {
      inputs: { x: [2, 17, 8], weight: [5, 1, 8] },
      attrs: steps({ padLeft: 2, outLength: 9, stride: 2, groups: 8 }),
    },
  ],
});

const inputGradientOp = defineOp<Steps & { readonly length: number }>()({
  name: 'conv1dInputGradient',
  inputs: ['dy', 'weight'],
  axes: ({ groups }) =>
    groups === 1
      ? 'batch length~ out, _ in out -> batch length in'
      : 'batch length~ _, _ _ _ -> batch length _',
  reads: ({ dy, weight }, attrs, rows) => {
    const { stride, dilation, padLeft } = attrs;
    const reach = (weight.shape[0]! - 1) * dilation;
    const first = Math.ceil((rows[0] + padLeft - reach) / stride);
    const read = clampedRows([first, Math.floor((rows[1] - 1 + padLeft) / stride) + 1], dy.shape[1]!);
    const length = rows[1] - rows[0];
    return { rows: { dy: read }, attrs: { ...attrs, padLeft: padLeft + rows[0] - read[0] * stride, length } };
  },
  infer: ({ dy, weight }, { length, groups }) => {
    checkOperands('conv1dInputGradient', 'dy', dy, weight, 'transpose');
    return { shape: [dy.shape[0]!, length, weight.shape[1]! * groups], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ dy, weight }, dx, attrs, target) =>
      kernelsOf(attrs, target).conv1dInputGradient(geometryOf(dx, dy, weight.shape[0]!, attrs)),
  },
  product: true,
  linear: true,
  gradient: (ddx, { dy, weight }, { length: _, ...steps }) => ({
    dy: (): Tensor => op({ x: ddx, weight }, { ...steps, outLength: dy.shape[1]! }),
    weight: (): Tensor => weightGradient(ddx, dy, { ...steps, size: weight.shape[0]! }),
  }),
  reference: ({ dy, weight }, attrs) => {
    const dx = emptyLike([dy.shape[0]!, attrs.length, weight.shape[1]! * attrs.groups]);
    forEachProduct(geometryOf(asSpec(dx), asSpec(dy), weight.shape[0]!, attrs), (xAt, weightAt, yAt) => {
      dx.data[xAt]! += dy.data[yAt]! * weight.data[weightAt]!;
    });
    return dx.data;
  },
  samples: [
    { inputs: { dy: [2, 37, 6], weight: [5, 4, 6] }, attrs: steps({ padLeft: 6, length: 37, dilation: 3 }) },
    { inputs: { dy: [3, 31, 7], weight: [6, 5, 7] }, attrs: steps({ padLeft: 2, length: 31 }) },
    { inputs: { dy: [2, 11, 5], weight: [4, 3, 5] }, attrs: steps({ padLeft: 1, length: 32, stride: 3 }) },
    {
      inputs: { dy: [1, 19, 2], weight: [3, 2, 2] },
      attrs: steps({ padLeft: 64, length: 19, dilation: 64 }),
    },
    {
      inputs: { dy: [2, 13, 9], weight: [3, 2, 9] },
      attrs: steps({ padLeft: 2, length: 13, dilation: 2, groups: 3 }),
    },
    {
      inputs: { dy: [2, 9, 8], weight: [5, 1, 8] },
      attrs: steps({ padLeft: 2, length: 17, stride: 2, groups: 8 }),
    },
    { inputs: { dy: [2, 3, 1], weight: [7, 1, 1] }, attrs: steps({ padLeft: 3, length: 3 }) },
  ],
});

/** dweight [size, in, out]: partial sums over fixed ranges of rows, then their sum. */
function weightGradient(x: Tensor, dy: Tensor, attrs: Steps & { readonly size: number }): Tensor {
  return sum(weightGradientOp({ x, dy }, attrs), { from: 0, to: 1 });
}

/** The partial sums [chunks, size, in, out]; their number follows from the shapes. */
const weightGradientOp = defineOp<Steps & { readonly size: number }>()({
  name: 'conv1dWeightGradient',
  inputs: ['x', 'dy'],
  axes: ({ groups }) =>
    groups === 1
      ? 'batch length~ in, batch length out -> + _ in out'
      : 'batch length~ _, batch length _ -> + _ _ _',
  reads: ({ x }, attrs, rows) => {
    const first = rows[0] * attrs.stride - attrs.padLeft;
    const last = (rows[1] - 1) * attrs.stride - attrs.padLeft + (attrs.size - 1) * attrs.dilation;
    const read = clampedRows([first, last + 1], x.shape[1]!);
    return { rows: { x: read, dy: rows }, attrs: { ...attrs, padLeft: read[0] - first } };
  },
  infer: ({ x, dy }, attrs) => {
    const chunks = weightGradientChunks(geometryOf(x, dy, attrs.size, attrs));
    return { shape: [chunks, attrs.size, x.shape[2]! / attrs.groups, dy.shape[2]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x, dy }, _, attrs, target) =>
      kernelsOf(attrs, target).conv1dWeightGradient(geometryOf(x, dy, attrs.size, attrs)),
  },
  product: true,
  linear: true,
  reference: ({ x, dy }, attrs) => {
    const geometry = geometryOf(asSpec(x), asSpec(dy), attrs.size, attrs);
    const partials = [weightGradientChunks(geometry), attrs.size, x.shape[2]! / attrs.groups, dy.shape[2]!];
    const { data } = emptyLike(partials); // only the total matters: all of it in the first partial sum
    forEachProduct(geometry, (xAt, weightAt, yAt) => {
      data[weightAt]! += x.data[xAt]! * dy.data[yAt]!;
    });
    return data;
  },
  samples: [
    { inputs: { x: [2, 37, 4], dy: [2, 37, 6] }, attrs: steps({ padLeft: 6, size: 5, dilation: 3 }) },
    { inputs: { x: [1, 1009, 4], dy: [1, 1009, 5] }, attrs: steps({ padLeft: 7, size: 15 }) },
    { inputs: { x: [3, 31, 5], dy: [3, 31, 7] }, attrs: steps({ padLeft: 2, size: 6 }) },
    { inputs: { x: [2, 32, 3], dy: [2, 11, 5] }, attrs: steps({ padLeft: 1, size: 4, stride: 3 }) },
    { inputs: { x: [1, 19, 2], dy: [1, 19, 2] }, attrs: steps({ padLeft: 64, size: 3, dilation: 64 }) },
    { inputs: { x: [2, 3, 1], dy: [2, 3, 1] }, attrs: steps({ padLeft: 3, size: 7 }) },
    {
      inputs: { x: [2, 13, 6], dy: [2, 13, 9] },
      attrs: steps({ padLeft: 2, size: 3, dilation: 2, groups: 3 }),
    },
    {
      inputs: { x: [2, 171, 8], dy: [2, 86, 8] },
      attrs: steps({ padLeft: 2, size: 5, stride: 2, groups: 8 }),
    },
  ],
});

/** Attributes of a sample; stride, dilation and groups 1 unless said. */
function steps<T>(attrs: T): Omit<Steps, 'padLeft'> & T {
  return { stride: 1, dilation: 1, groups: 1, ...attrs };
}
