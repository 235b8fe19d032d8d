import { elementCount } from '../host-tensor.ts';
import { type Conv2dGeometry, conv2dWeightGradientChunks } from '../kernels/conv2d.ts';
import { productFamily } from '../kernels/family.ts';
import { defineOp, type Reference } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { matmul } from './matmul.ts';
import { sum } from './reduce.ts';
import { reshape } from './shape.ts';
import { clampedRows, windowGeometry } from './window.ts';

export interface Conv2dOptions {
  readonly dilation?: number;
  /** `same` as in TensorFlow: as many rows and columns as x, an odd zero at the bottom and on the right. Default `same`. */
  readonly padding?: 'same' | 'valid';
}

/**
 * The convolution y[b, r, c, o] = Σ_s Σ_t Σ_i x[b, r + s · dilation − padTop, c + t · dilation − padLeft, i] ·
 * weight[s, t, i, o]: x [batch, height, width, in], weight [sizeHeight, sizeWidth, in, out] →
 * [batch, outHeight, outWidth, out]. Sums run over taps, row by row, then channels, in f32.
 *
 * @throws when the channels differ, or when a padded axis is shorter than the (dilated) weight.
 */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  { dilation = 1, padding = 'same' }: Conv2dOptions = {},
): Tensor {
  checkOperands('conv2d', x, weight, 2);
  const [sizeHeight, sizeWidth, inputs, outputs] = weight.shape as Shape4;
  if (sizeHeight * sizeWidth === 1) return matmul(x, reshape(weight, [inputs, outputs]));
  const along = (length: number, size: number): ReturnType<typeof windowGeometry> =>
    windowGeometry('conv2d', { length, span: (size - 1) * dilation + 1, stride: 1, padding });
  const rows = along(x.shape[1]!, sizeHeight);
  const columns = along(x.shape[2]!, sizeWidth);
  const extent = { outHeight: rows.outLength, outWidth: columns.outLength };
  return op({ x, weight }, { dilation, padTop: rows.padLeft, padLeft: columns.padLeft, ...extent });
}

type Shape4 = readonly [number, number, number, number];

interface Steps {
  readonly dilation: number;
  /** Zeros above and left of x; negative to skip rows or columns. */
  readonly padTop: number;
  readonly padLeft: number;
}

function checkOperands(name: string, x: Spec, weight: Spec, axis: 2 | 3): void {
  if (x.shape.length !== 4 || weight.shape.length !== 4) {
    throw new Error(
      `${name}: the map is ${shapeText(x.shape)} and weight is ${shapeText(weight.shape)}; they must be [batch, height, width, channels] and [sizeHeight, sizeWidth, in, out]`,
    );
  }
  if (x.shape[3] === weight.shape[axis]) return;
  throw new Error(
    `${name}: the map has ${x.shape[3]} channels but the weight expects ${weight.shape[axis]}; set inputs: ${x.shape[3]}`,
  );
}

type Shaped = Pick<Spec, 'shape'>;

function geometryOf(x: Shaped, y: Shaped, size: readonly number[], steps: Steps): Conv2dGeometry {
  const [batch, height, width, inputs] = x.shape as Shape4;
  const [, outHeight, outWidth, outputs] = y.shape as Shape4;
  const [sizeHeight, sizeWidth] = size as [number, number];
  const { dilation, padTop, padLeft } = steps;
  return {
    ...{ batch, height, width, inputs, outHeight, outWidth, outputs },
    ...{ sizeHeight, sizeWidth, dilation, padTop, padLeft },
  };
}

const op = defineOp<Steps & { readonly outHeight: number; readonly outWidth: number }>()({
  name: 'conv2d',
  inputs: ['x', 'weight'],
  axes: 'batch height~ _ in, _ _ in out -> batch height _ out',
  reads: ({ x, weight }, attrs, rows) => {
    const first = rows[0] - attrs.padTop;
    const reach = (weight.shape[0]! - 1) * attrs.dilation;
    const read = clampedRows([first, rows[1] - attrs.padTop + reach], x.shape[1]!);
    return { rows: { x: read }, attrs: { ...attrs, padTop: read[0] - first, outHeight: rows[1] - rows[0] } };
  },
  infer: ({ x, weight }, { outHeight, outWidth }) => {
    checkOperands('conv2d', x, weight, 2);
    return { shape: [x.shape[0]!, outHeight, outWidth, weight.shape[3]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x, weight }, y, attrs, target) =>
      productFamily(target).conv2d(geometryOf(x, y, weight.shape, attrs)),
  },
  product: true,
  linear: true,
  gradient: (dy, { x, weight }, { dilation, padTop, padLeft }) => ({
    x: (): Tensor =>
      inputGradientOp({ dy, weight }, { dilation, padTop, padLeft, height: x.shape[1]!, width: x.shape[2]! }),
    weight: (): Tensor =>
      weightGradient(x, dy, { dilation, padTop, padLeft, size: weight.shape.slice(0, 2) }),
  }),
  reference: ({ x, weight }, attrs) => {
    const y = zeros([x.shape[0]!, attrs.outHeight, attrs.outWidth, weight.shape[3]!]);
    forEachProduct(geometryOf(x, y, weight.shape, attrs), (xAt, weightAt, yAt) => {
      y.data[yAt]! += x.data[xAt]! * weight.data[weightAt]!;
    });
    return y.data;
  },
  samples: [
    {
      inputs: { x: [2, 7, 11, 5], weight: [3, 3, 5, 6] },
      attrs: { dilation: 2, padTop: 2, padLeft: 2, outHeight: 7, outWidth: 11 },
    },
    {
      inputs: { x: [1, 5, 13, 3], weight: [2, 5, 3, 4] },
      attrs: { dilation: 1, padTop: 0, padLeft: 2, outHeight: 5, outWidth: 13 },
    },
    {
      inputs: { x: [2, 9, 8, 17], weight: [3, 2, 17, 1] },
      attrs: { dilation: 3, padTop: 0, padLeft: 0, outHeight: 3, outWidth: 5 },
    },
    {
      inputs: { x: [1, 3, 1, 2], weight: [3, 3, 2, 2] },
      attrs: { dilation: 16, padTop: 16, padLeft: 16, outHeight: 3, outWidth: 1 },
    },
  ],
});

const inputGradientOp = defineOp<Steps & { readonly height: number; readonly width: number }>()({
  name: 'conv2dInputGradient',
  inputs: ['dy', 'weight'],
  axes: 'batch height~ _ out, _ _ in out -> batch height _ in',
  reads: ({ dy, weight }, attrs, rows) => {
    const reach = (weight.shape[0]! - 1) * attrs.dilation;
    const first = rows[0] + attrs.padTop - reach;
    const read = clampedRows([first, rows[1] + attrs.padTop], dy.shape[1]!);
    const padTop = attrs.padTop + rows[0] - read[0];
    return { rows: { dy: read }, attrs: { ...attrs, padTop, height: rows[1] - rows[0] } };
  },
  infer: ({ dy, weight }, { height, width }) => {
    checkOperands('conv2dInputGradient', dy, weight, 3);
    return { shape: [dy.shape[0]!, height, width, weight.shape[2]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ dy, weight }, dx, attrs, target) =>
      productFamily(target).conv2dInputGradient(geometryOf(dx, dy, weight.shape, attrs)),
  },
  product: true,
  linear: true,
  gradient: (ddx, { dy, weight }, { dilation, padTop, padLeft }) => ({
    dy: (): Tensor =>
      op({ x: ddx, weight }, { dilation, padTop, padLeft, outHeight: dy.shape[1]!, outWidth: dy.shape[2]! }),
    weight: (): Tensor =>
      weightGradient(ddx, dy, { dilation, padTop, padLeft, size: weight.shape.slice(0, 2) }),
  }),
  reference: ({ dy, weight }, attrs) => {
    const dx = zeros([dy.shape[0]!, attrs.height, attrs.width, weight.shape[2]!]);
    forEachProduct(geometryOf(dx, dy, weight.shape, attrs), (xAt, weightAt, yAt) => {
      dx.data[xAt]! += dy.data[yAt]! * weight.data[weightAt]!;
    });
    return dx.data;
  },
  samples: [
    {
      inputs: { dy: [2, 7, 11, 6], weight: [3, 3, 5, 6] },
      attrs: { dilation: 2, padTop: 2, padLeft: 2, height: 7, width: 11 },
    },
    {
      inputs: { dy: [2, 3, 5, 1], weight: [3, 2, 17, 1] },
      attrs: { dilation: 3, padTop: 0, padLeft: 0, height: 9, width: 8 },
    },
  ],
});

type WeightGradientAttrs = Steps & { readonly size: readonly number[] };

function weightGradient(x: Tensor, dy: Tensor, attrs: WeightGradientAttrs): Tensor {
  return sum(weightGradientOp({ x, dy }, attrs), { from: 0, to: 1 });
}

const weightGradientOp = defineOp<WeightGradientAttrs>()({
  name: 'conv2dWeightGradient',
  inputs: ['x', 'dy'],
  axes: 'batch height~ _ in, batch height _ out -> + _ _ in out',
  reads: ({ x }, attrs, rows) => {
    const first = rows[0] - attrs.padTop;
    const last = rows[1] - 1 - attrs.padTop + (attrs.size[0]! - 1) * attrs.dilation;
    const read = clampedRows([first, last + 1], x.shape[1]!);
    return { rows: { x: read, dy: rows }, attrs: { ...attrs, padTop: read[0] - first } };
  },
  infer: ({ x, dy }, attrs) => {
    const chunks = conv2dWeightGradientChunks(geometryOf(x, dy, attrs.size, attrs));
    return { shape: [chunks, ...attrs.size, x.shape[3]!, dy.shape[3]!], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ x, dy }, _, attrs, target) =>
      productFamily(target).conv2dWeightGradient(geometryOf(x, dy, attrs.size, attrs)),
  },
  product: true,
  linear: true,
  reference: ({ x, dy }, attrs) => {
    const geometry = geometryOf(x, dy, attrs.size, attrs);
    const chunks = conv2dWeightGradientChunks(geometry);
    const { data } = zeros([chunks, ...attrs.size, x.shape[3]!, dy.shape[3]!]);
    forEachProduct(geometry, (xAt, weightAt, yAt) => {
      data[weightAt]! += x.data[xAt]! * dy.data[yAt]!; // only the total matters: all of it in the first partial sum
    });
    return data;
  },
  samples: [
    {
      inputs: { x: [2, 7, 11, 5], dy: [2, 7, 11, 6] },
      attrs: { dilation: 2, padTop: 2, padLeft: 2, size: [3, 3] },
    },
    {
      inputs: { x: [2, 9, 8, 17], dy: [2, 3, 5, 1] },
      attrs: { dilation: 3, padTop: 0, padLeft: 0, size: [3, 2] },
    },
    {
      inputs: { x: [1, 31, 29, 2], dy: [1, 31, 29, 3] },
      attrs: { dilation: 1, padTop: 2, padLeft: 1, size: [5, 3] },
    },
  ],
});

function zeros(shape: readonly number[]): Reference {
  return { shape, data: new Float64Array(elementCount(shape)) };
}

/** Calls `visit` with flat indices into x, weight and y for every product of the convolution. */
function forEachProduct(
  g: Conv2dGeometry,
  visit: (xAt: number, weightAt: number, yAt: number) => void,
): void {
  for (let pair = 0; pair < g.batch * g.outHeight * g.outWidth; pair++) {
    const [b, r] = [
      Math.floor(pair / (g.outHeight * g.outWidth)),
      Math.floor(pair / g.outWidth) % g.outHeight,
    ];
    for (let tap = 0; tap < g.sizeHeight * g.sizeWidth; tap++) {
      const row = r + Math.floor(tap / g.sizeWidth) * g.dilation - g.padTop;
      const column = (pair % g.outWidth) + (tap % g.sizeWidth) * g.dilation - g.padLeft;
      if (row < 0 || row >= g.height || column < 0 || column >= g.width) continue;
      const xStart = ((b * g.height + row) * g.width + column) * g.inputs;
      for (let i = 0; i < g.inputs; i++)
        for (let o = 0; o < g.outputs; o++)
          visit(xStart + i, (tap * g.inputs + i) * g.outputs + o, pair * g.outputs + o);
    }
  }
}
