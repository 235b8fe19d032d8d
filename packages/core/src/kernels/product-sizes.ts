/** How large products are, and shorter ones of the same class: what measurements need to know of them. */
import { conv1dWeightGradientChunks } from './conv1d.ts';
import { conv2dWeightGradientChunks } from './conv2d.ts';
import type { Product } from './family.ts';
import { type MatmulGeometry, matmulPartialsChunks } from './matmul.ts';

/** What the kernel of a product reads and writes. */
export interface ProductSizes {
  /** Elements of each input, in the order of the bindings. */
  readonly inputs: Readonly<Record<string, number>>;
  /** Elements of the result; the output holds `chunks` partial results of it. */
  readonly result: number;
  readonly chunks: number;
  readonly multiplyAdds: number;
}

export function productSizes({ kind, geometry }: Product): ProductSizes {
  switch (kind) {
    case 'matmul':
      return matmulSizes(geometry, 1);
    case 'matmulPartials':
      return matmulSizes(geometry, matmulPartialsChunks(geometry));
    case 'conv1d':
    case 'conv1dInputGradient':
    case 'conv1dWeightGradient': {
      const { batch, length, outLength, inputs, outputs, size } = geometry;
      const x = batch * length * inputs;
      const y = batch * outLength * outputs;
      const chunks = kind === 'conv1dWeightGradient' ? conv1dWeightGradientChunks(geometry) : 1;
      return convolutionSizes(kind, { x, y, weight: size * inputs * outputs }, y * inputs * size, chunks);
    }
    case 'conv2d':
    case 'conv2dInputGradient':
    case 'conv2dWeightGradient': {
      const { batch, height, width, outHeight, outWidth, inputs, outputs } = geometry;
      const taps = geometry.sizeHeight * geometry.sizeWidth;
      const x = batch * height * width * inputs;
      const y = batch * outHeight * outWidth * outputs;
      const chunks = kind === 'conv2dWeightGradient' ? conv2dWeightGradientChunks(geometry) : 1;
      return convolutionSizes(kind, { x, y, weight: taps * inputs * outputs }, y * inputs * taps, chunks);
    }
    default:
      return kind satisfies never;
  }
}

function matmulSizes({ batch, m, k, n, batchA, batchB }: MatmulGeometry, chunks: number): ProductSizes {
  return {
    inputs: { a: (batchA ?? batch) * m * k, b: (batchB ?? batch) * k * n },
    result: batch * m * n,
    chunks,
    multiplyAdds: batch * m * n * k,
  };
}

function convolutionSizes(
  kind: Exclude<Product['kind'], 'matmul' | 'matmulPartials'>,
  { x, y, weight }: Readonly<Record<'x' | 'y' | 'weight', number>>,
  multiplyAdds: number,
  chunks: number,
): ProductSizes {
  if (kind.endsWith('InputGradient')) return { inputs: { dy: y, weight }, result: x, chunks, multiplyAdds };
  if (kind.endsWith('WeightGradient')) return { inputs: { x, dy: y }, result: weight, chunks, multiplyAdds };
  return { inputs: { x, weight }, result: y, chunks, multiplyAdds };
}

/** Positions that are left at least, so that the ends of a tile and of a sum weigh little. */
const SHORTEST = 256;

/**
 * The product over fewer positions, so that it takes about `multiplyAdds`; itself if it takes no more. At least `least`
 * positions are left of those there are.
 */
export function shortened(product: Product, multiplyAdds: number, least: number = SHORTEST): Product {
  const part = multiplyAdds / productSizes(product).multiplyAdds;
  if (part >= 1) return product;
  const { kind, geometry } = product;
  const batch = Math.max(1, Math.floor(geometry.batch * part));
  const ofRest = (part * geometry.batch) / batch;
  const less = (count: number, fewest = least): number =>
    Math.min(count, Math.max(fewest, Math.floor(count * ofRest)));
  switch (kind) {
    case 'matmul': {
      const { batchA, batchB, m } = geometry;
      const own = (count = geometry.batch): number => (count === geometry.batch ? batch : 1);
      return {
        kind,
        geometry: { ...geometry, batch, batchA: own(batchA), batchB: own(batchB), m: less(m) },
      };
    }
    case 'matmulPartials':
      return { kind, geometry: { ...geometry, batch, k: less(geometry.k) } };
    case 'conv1d':
    case 'conv1dInputGradient':
    case 'conv1dWeightGradient': {
      const outLength = less(geometry.outLength);
      const length = geometry.length - (geometry.outLength - outLength) * geometry.stride;
      return { kind, geometry: { ...geometry, batch, length, outLength } };
    }
    case 'conv2d':
    case 'conv2dInputGradient':
    case 'conv2dWeightGradient': {
      const outHeight = less(geometry.outHeight, Math.max(4, Math.ceil(least / geometry.outWidth)));
      const height = geometry.height - (geometry.outHeight - outHeight);
      return { kind, geometry: { ...geometry, batch, height, outHeight } };
    }
    default:
      return kind satisfies never;
  }
}
