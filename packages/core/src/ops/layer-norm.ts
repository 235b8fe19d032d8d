/** Layer norm and RMS norm: normalisation of the last axis by itself, whatever the batch. */
import { type RowNorm, rowNormGradientKernel, rowNormKernel } from '../kernels/layer-norm.ts';
import { linesAlong } from '../kernels/line.ts';
import { defineOp, type Reference, type Sample } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { multiply } from './arithmetic.ts';
import { axisNames, sum } from './reduce.ts';

export interface RowNormOptions {
  /** Added to the variance (the mean square). Keras 1e-3, PyTorch and Sonnet 1e-5. */
  readonly epsilon: number;
}

/**
 * (x − mean) / √(variance + epsilon) · gamma + beta over the last axis (Ba et al. 2016), the variance biased:
 * x `[…, channels]`, gamma and beta `[channels]` → the shape of x. @throws when the channels differ.
 */
export function layerNormalize(x: Tensor, gamma: Tensor, beta: Tensor, { epsilon }: RowNormOptions): Tensor {
  return affineOp({ x, gamma, beta }, { epsilon, centred: true, rank: x.shape.length });
}

/** x / √(mean(x²) + epsilon) · gamma + beta over the last axis (Zhang & Sennrich 2019); shapes as `layerNormalize`. */
export function rmsNormalize(x: Tensor, gamma: Tensor, beta: Tensor, { epsilon }: RowNormOptions): Tensor {
  return affineOp({ x, gamma, beta }, { epsilon, centred: false, rank: x.shape.length });
}

interface Attrs extends RowNorm {
  readonly rank: number;
}

const rowAxes = ({ rank }: Attrs): string => [...axisNames(rank - 1), '_'].join(' ');
const rowsOf = ({ shape }: Spec): ReturnType<typeof linesAlong> => linesAlong(shape, shape.length - 1);

function checkChannels({ centred }: Attrs, x: Spec, scales: readonly Spec[]): void {
  const channels = x.shape.at(-1);
  for (const { shape } of scales) {
    if (shape.length === 1 && shape[0] === channels) continue;
    throw new Error(
      `${centred ? 'layerNormalize' : 'rmsNormalize'}: x ${shapeText(x.shape)} has ${channels} channels but gamma or beta is ${shapeText(shape)}; set channels: ${channels}`,
    );
  }
}

/** 1 / √(variance + epsilon) and x̂ of each row. */
function normalized(
  x: Reference,
  { epsilon, centred }: RowNorm,
): { readonly inverse: Float64Array; readonly normal: Float64Array } {
  const { outer, count } = rowsOf({ ...x, dtype: 'f32' });
  const inverse = new Float64Array(outer);
  const normal = new Float64Array(x.data.length);
  for (let row = 0; row < outer; row++) {
    const values = x.data.subarray(row * count, (row + 1) * count);
    const mean = centred ? values.reduce((a, b) => a + b, 0) / count : 0;
    const variance = values.reduce((total, value) => total + (value - mean) ** 2, 0) / count;
    inverse[row] = 1 / Math.sqrt(variance + epsilon);
    values.forEach((value, k) => {
      normal[row * count + k] = (value - mean) * inverse[row]!;
    });
  }
  return { inverse, normal };
}

const NORMS: readonly RowNorm[] = [
  { epsilon: 1e-3, centred: true },
  { epsilon: 1e-5, centred: false },
];

const affineOp = defineOp<Attrs>()({
  name: 'rowNormalize',
  inputs: ['x', 'gamma', 'beta'],
  axes: (attrs) => `${rowAxes(attrs)}, _, _ -> ${rowAxes(attrs)}`,
  infer: ({ x, gamma, beta }, attrs) => {
    checkChannels(attrs, x, [gamma, beta]);
    return { shape: x.shape, dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    light: true,
    body: ({ x }, _, norm, target) => rowNormKernel(rowsOf(x), { ...norm, affine: true }, target),
  },
  gradient: (dy, { x, gamma }, attrs) => {
    const leading = { from: 0, to: attrs.rank - 1 };
    return {
      x: () => gradientOp({ dy, x, gamma }, attrs),
      gamma: () => sum(multiply(standardizeOp({ x }, attrs), dy), leading),
      beta: () => sum(dy, leading),
    };
  },
  reference: ({ x, gamma, beta }, norm) => {
    const channels = gamma.data.length;
    return normalized(x, norm).normal.map(
      (value, i) => value * gamma.data[i % channels]! + beta.data[i % channels]!,
    );
  },
  samples: NORMS.flatMap((norm): Sample<readonly ['x', 'gamma', 'beta'], Attrs>[] => [
    { inputs: { x: [2, 5, 8], gamma: [8], beta: [8] }, attrs: { ...norm, rank: 3 } },
    { inputs: { x: [37, 7], gamma: [7], beta: [7] }, attrs: { ...norm, rank: 2 } },
  ]),
});

const standardizeOp = defineOp<Attrs>()({
  name: 'rowStandardize',
  inputs: ['x'],
  axes: (attrs) => `${rowAxes(attrs)} -> ${rowAxes(attrs)}`,
  infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }, _, norm, target) => rowNormKernel(rowsOf(x), { ...norm, affine: false }, target),
  },
  reference: ({ x }, norm) => normalized(x, norm).normal,
  samples: [{ inputs: { x: [37, 7] }, attrs: { epsilon: 1e-3, centred: true, rank: 2 } }],
});

const gradientOp = defineOp<Attrs>()({
  name: 'rowNormalizeGradient',
  inputs: ['dy', 'x', 'gamma'],
  axes: (attrs) => `${rowAxes(attrs)}, ${rowAxes(attrs)}, _ -> ${rowAxes(attrs)}`,
  infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ x }, _, norm, target) => rowNormGradientKernel(rowsOf(x), norm, target),
  },
  reference: ({ dy, x, gamma }, norm) => {
    const { outer, count } = rowsOf({ ...x, dtype: 'f32' });
    const { inverse, normal } = normalized(x, norm);
    const dx = new Float64Array(x.data.length);
    for (let row = 0; row < outer; row++) {
      const own = normal.subarray(row * count, (row + 1) * count);
      const slopes = own.map((_, k) => dy.data[row * count + k]! * gamma.data[k]!);
      const mean = norm.centred ? slopes.reduce((a, b) => a + b, 0) / count : 0;
      const product = slopes.reduce((total, slope, k) => total + slope * own[k]!, 0) / count;
      slopes.forEach((slope, k) => {
        dx[row * count + k] = (slope - mean - own[k]! * product) * inverse[row]!;
      });
    }
    return dx;
  },
  samples: NORMS.flatMap((norm): Sample<readonly ['dy', 'x', 'gamma'], Attrs>[] => [
    { inputs: { dy: [37, 7], x: [37, 7], gamma: [7] }, attrs: { ...norm, rank: 2 } },
  ]),
});
