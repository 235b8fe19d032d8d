/** What the 1-D convolution and its gradients share: shapes, kernels, and the products they sum. */
import type { KernelBody, KernelTarget } from '../kernel.ts';
import { type Conv1dGeometry, conv1dWeightGradientChunks } from '../kernels/conv1d.ts';
import { productFamily } from '../kernels/family.ts';
import {
  groupedConv1dInputGradientKernel,
  groupedConv1dKernel,
  groupedConv1dWeightGradientChunks,
  groupedConv1dWeightGradientKernel,
} from '../kernels/grouped-conv1d.ts';
import type { Reference } from '../op.ts';
import { type Spec, shapeText } from '../tensor.ts';

export interface Steps {
  readonly stride: number;
  readonly dilation: number;
  /** Zeros in front of x; negative to skip rows. */
  readonly padLeft: number;
  readonly groups: number;
}

export function checkOperands(
  name: string,
  operand: string,
  x: Spec,
  weight: Spec,
  groups: number | 'transpose',
): void {
  if (x.shape.length !== 3 || weight.shape.length !== 3) {
    const layout = groups === 'transpose' ? '[size, out, in]' : '[size, in, out]';
    throw new Error(
      `${name}: ${operand} is ${shapeText(x.shape)} and weight is ${shapeText(weight.shape)}; they must be [batch, length, in] and ${layout}`,
    );
  }
  const [, first, last] = weight.shape as [number, number, number];
  if (groups !== 'transpose' && (!Number.isInteger(groups) || groups < 1 || last % groups !== 0))
    throw new Error(`${name}: ${last} outputs do not divide into ${groups} groups; choose a divisor`);
  const expected = groups === 'transpose' ? last : first * groups;
  if (x.shape[2] === expected) return;
  const parts = groups === 'transpose' || groups === 1 ? '' : ` (${first} for each of ${groups} groups)`;
  throw new Error(
    `${name}: ${operand} has ${x.shape[2]} channels but the weight expects ${expected}${parts}; set inputs: ${x.shape[2]}`,
  );
}

type Geometry = Conv1dGeometry & { readonly groups: number };

export function geometryOf(x: Spec, y: Spec, size: number, steps: Steps): Geometry {
  const { stride, dilation, padLeft, groups } = steps;
  const [batch, length, inputs] = x.shape as [number, number, number];
  const [, outLength, outputs] = y.shape as [number, number, number];
  return { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft, groups };
}

/** Dense convolutions are products of matrices; those in groups have kernels of their own, the same on all targets. */
export function kernelsOf({ groups }: Steps, target: KernelTarget): Kernels {
  return groups === 1 ? productFamily(target) : GROUPED;
}

type Kernels = Readonly<
  Record<'conv1d' | 'conv1dInputGradient' | 'conv1dWeightGradient', (geometry: Geometry) => KernelBody>
>;

const GROUPED: Kernels = {
  conv1d: groupedConv1dKernel,
  conv1dInputGradient: groupedConv1dInputGradientKernel,
  conv1dWeightGradient: groupedConv1dWeightGradientKernel,
};

export function weightGradientChunks(geometry: Geometry): number {
  return geometry.groups === 1
    ? conv1dWeightGradientChunks(geometry)
    : groupedConv1dWeightGradientChunks(geometry);
}

export const asSpec = ({ shape }: Reference): Spec => ({ shape, dtype: 'f32' });
export const emptyLike = (shape: readonly number[]): Reference => {
  return { shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) };
};

/** Calls `visit` with flat indices into x, weight and y for every product of the convolution. */
export function forEachProduct(
  { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft, groups }: Geometry,
  visit: (xAt: number, weightAt: number, yAt: number) => void,
): void {
  const [groupIn, groupOut] = [inputs / groups, outputs / groups];
  for (let b = 0; b < batch; b++) {
    for (let p = 0; p < outLength; p++) {
      for (let t = 0; t < size; t++) {
        const row = p * stride + t * dilation - padLeft;
        if (row < 0 || row >= length) continue;
        for (let c = 0; c < groupIn; c++) {
          for (let o = 0; o < outputs; o++) {
            const xAt = (b * length + row) * inputs + Math.floor(o / groupOut) * groupIn + c;
            visit(xAt, (t * groupIn + c) * outputs + o, (b * outLength + p) * outputs + o);
          }
        }
      }
    }
  }
}
