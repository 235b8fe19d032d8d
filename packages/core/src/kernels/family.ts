/** Kernels of products and convolutions by the kind of device: one interface, several ways to compute. */
import type { KernelBody, KernelTarget } from '../kernel.ts';
import {
  type Conv1dGeometry,
  conv1dInputGradientKernel,
  conv1dKernel,
  conv1dWeightGradientKernel,
} from './conv1d.ts';
import { conv1dInputGradientProduct, conv1dProduct, conv1dWeightGradientProduct } from './conv1d-product.ts';
import {
  type Conv2dGeometry,
  conv2dInputGradientKernel,
  conv2dKernel,
  conv2dWeightGradientKernel,
} from './conv2d.ts';
import { conv2dInputGradientProduct, conv2dProduct, conv2dWeightGradientProduct } from './conv2d-product.ts';
import { type ImplicitProduct, matmulPartialsProduct, matmulProduct } from './implicit-product.ts';
import { type MatmulGeometry, matmulKernel, matmulPartialsKernel } from './matmul.ts';
import { subgroupMatrixKernel } from './subgroup-matrix.ts';
import { workgroupTileKernel } from './workgroup-tile.ts';

/**
 * Builders of the kernels of one family. They choose by logical shape alone. Inputs and outputs are those that
 * `matmul.ts`, `conv1d.ts` and `conv2d.ts` describe; the number of partial sums is the same in all families.
 */
export interface ProductFamily {
  readonly matmul: (geometry: MatmulGeometry) => KernelBody;
  readonly matmulPartials: (geometry: MatmulGeometry) => KernelBody;
  readonly conv1d: (geometry: Conv1dGeometry) => KernelBody;
  readonly conv1dInputGradient: (geometry: Conv1dGeometry) => KernelBody;
  readonly conv1dWeightGradient: (geometry: Conv1dGeometry) => KernelBody;
  readonly conv2d: (geometry: Conv2dGeometry) => KernelBody;
  readonly conv2dInputGradient: (geometry: Conv2dGeometry) => KernelBody;
  readonly conv2dWeightGradient: (geometry: Conv2dGeometry) => KernelBody;
}

/** The family for a target. */
export function productFamily(target: KernelTarget): ProductFamily {
  switch (target.kind) {
    case 'software':
      return REGISTERS;
    case 'gpu':
      return WORKGROUP_TILES;
    case 'tensor-core':
      return implicitFamily((product) => subgroupMatrixKernel(product, target.matrices));
    default:
      return target satisfies never;
  }
}

const REGISTERS: ProductFamily = {
  matmul: matmulKernel,
  matmulPartials: matmulPartialsKernel,
  conv1d: conv1dKernel,
  conv1dInputGradient: conv1dInputGradientKernel,
  conv1dWeightGradient: conv1dWeightGradientKernel,
  conv2d: conv2dKernel,
  conv2dInputGradient: conv2dInputGradientKernel,
  conv2dWeightGradient: conv2dWeightGradientKernel,
};

const WORKGROUP_TILES = implicitFamily((product) => workgroupTileKernel(product));

/** The family of a kernel that computes any implicit product. */
export function implicitFamily(kernel: (product: ImplicitProduct) => KernelBody): ProductFamily {
  return {
    matmul: (geometry) => kernel(matmulProduct(geometry)),
    matmulPartials: (geometry) => kernel(matmulPartialsProduct(geometry)),
    conv1d: (geometry) => kernel(conv1dProduct(geometry)),
    conv1dInputGradient: (geometry) => kernel(conv1dInputGradientProduct(geometry)),
    conv1dWeightGradient: (geometry) => kernel(conv1dWeightGradientProduct(geometry)),
    conv2d: (geometry) => kernel(conv2dProduct(geometry)),
    conv2dInputGradient: (geometry) => kernel(conv2dInputGradientProduct(geometry)),
    conv2dWeightGradient: (geometry) => kernel(conv2dWeightGradientProduct(geometry)),
  };
}
