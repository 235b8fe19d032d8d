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
import { chosenTile } from './kernel-table.ts';
import { type MatmulGeometry, matmulKernel, matmulPartialsKernel } from './matmul.ts';
import { matrixTiles, subgroupMatrixKernel } from './subgroup-matrix.ts';
import type { Tile, TiledKernel } from './tiled-kernel.ts';
import { workgroupTileKernel, workgroupTiles } from './workgroup-tile.ts';

/** The kinds of products, and what describes one of each. */
export interface Geometries {
  readonly matmul: MatmulGeometry;
  readonly matmulPartials: MatmulGeometry;
  readonly conv1d: Conv1dGeometry;
  readonly conv1dInputGradient: Conv1dGeometry;
  readonly conv1dWeightGradient: Conv1dGeometry;
  readonly conv2d: Conv2dGeometry;
  readonly conv2dInputGradient: Conv2dGeometry;
  readonly conv2dWeightGradient: Conv2dGeometry;
}

export type ProductKind = keyof Geometries;

/**
 * Builders of the kernels of one family. They choose by logical shape alone. Inputs and outputs are those that
 * `matmul.ts`, `conv1d.ts` and `conv2d.ts` describe; the number of partial sums is the same in all families.
 */
export type ProductFamily = { readonly [K in ProductKind]: (geometry: Geometries[K]) => KernelBody };

/** A family before its tiles are chosen. */
export type TiledFamily = { readonly [K in ProductKind]: TiledKernel<Geometries[K]> };

/** A product that a program computes. */
export type Product = {
  readonly [K in ProductKind]: { readonly kind: K; readonly geometry: Geometries[K] };
}[ProductKind];

let asked: ((product: Product) => void) | undefined;

/** The family for a target, with the tiles that its kernel table names, or else those of the least estimated time. */
export function productFamily(target: KernelTarget): ProductFamily {
  const tiled = tiledFamily(target);
  return eachKind((kind) => (geometry) => {
    const product: Product = { kind, geometry };
    asked?.(product);
    return tiled[kind].kernel(geometry, chosenTile(target, product, tiled[kind].tiles(geometry)));
  });
}

/** The products whose kernels `body` asks a family for, in order: those of a program that it builds. */
export function productsOf(body: () => void): Product[] {
  const products: Product[] = [];
  asked = (product) => products.push(product);
  try {
    body();
  } finally {
    asked = undefined;
  }
  return products;
}

/** The family for a target with all its tiles. */
export function tiledFamily(target: KernelTarget): TiledFamily {
  switch (target.kind) {
    case 'software':
      return REGISTERS;
    case 'gpu':
      return WORKGROUP_TILES;
    case 'tensor-core':
      return tiledProducts(
        (product) => matrixTiles(product, target.matrices),
        (product, tile) => subgroupMatrixKernel(product, target.matrices, tile),
      );
    default:
      return target satisfies never;
  }
}

const REGISTERS: TiledFamily = {
  matmul: matmulKernel,
  matmulPartials: matmulPartialsKernel,
  conv1d: conv1dKernel,
  conv1dInputGradient: conv1dInputGradientKernel,
  conv1dWeightGradient: conv1dWeightGradientKernel,
  conv2d: conv2dKernel,
  conv2dInputGradient: conv2dInputGradientKernel,
  conv2dWeightGradient: conv2dWeightGradientKernel,
};

const IMPLICIT: { readonly [K in ProductKind]: (geometry: Geometries[K]) => ImplicitProduct } = {
  matmul: matmulProduct,
  matmulPartials: matmulPartialsProduct,
  conv1d: conv1dProduct,
  conv1dInputGradient: conv1dInputGradientProduct,
  conv1dWeightGradient: conv1dWeightGradientProduct,
  conv2d: conv2dProduct,
  conv2dInputGradient: conv2dInputGradientProduct,
  conv2dWeightGradient: conv2dWeightGradientProduct,
};

const WORKGROUP_TILES = tiledProducts(workgroupTiles, workgroupTileKernel);

function tiledProducts(
  tiles: (product: ImplicitProduct) => readonly Tile[],
  kernel: (product: ImplicitProduct, tile: Tile) => KernelBody,
): TiledFamily {
  return eachKind((kind) => ({
    tiles: (geometry) => tiles(IMPLICIT[kind](geometry)),
    kernel: (geometry, tile) => kernel(IMPLICIT[kind](geometry), tile),
  }));
}

/** The family of a kernel that computes any implicit product. */
export function implicitFamily(kernel: (product: ImplicitProduct) => KernelBody): ProductFamily {
  return eachKind((kind) => (geometry) => kernel(IMPLICIT[kind](geometry)));
}

/** One builder for each kind. `make` sees them all as `matmul`: TypeScript cannot follow which geometry belongs to which. */
function eachKind<F extends ProductFamily | TiledFamily>(make: (kind: 'matmul') => F['matmul']): F {
  const kinds = Object.keys(IMPLICIT) as 'matmul'[];
  return Object.fromEntries(kinds.map((kind) => [kind, make(kind)])) as unknown as F;
}
