/** Matrix products with register tiles: see `tile.ts` for the idea. */
import type { KernelBody } from '../kernel.ts';
import type { Range } from '../op.ts';
import { wgsl } from '../wgsl.ts';
import {
  columnSpan,
  declareSums,
  LANES,
  multiplyAdd,
  type ProductShape,
  type RegisterTile,
  resumeSums,
  rowSpan,
  storeSums,
  tileIndices,
  tilesByCost,
} from './tile.ts';
import type { TiledKernel } from './tiled-kernel.ts';
import { box, digits, spans } from './touches.ts';

/** a [batchA, m, k] · b [batchB, k, n] → y [batch, m, n]. */
export interface MatmulGeometry {
  readonly batch: number;
  readonly m: number;
  readonly k: number;
  readonly n: number;
  /** a is stored as [batchA, k, m]. */
  readonly transposeA?: boolean;
  /** b is stored as [batchB, n, k]. */
  readonly transposeB?: boolean;
  /** `batch`, or 1 for one matrix that all products share. */
  readonly batchA?: number;
  readonly batchB?: number;
}

/**
 * y [batch, m, n] = a [batchA, m, k] · b [batchB, k, n], each sum over k in order, in f32.
 * Inputs `a` and `b`, output `y`.
 */
export const matmulKernel: TiledKernel<MatmulGeometry> = {
  tiles: (geometry) => tilesByCost(productShape(flattenBatch(geometry), 1)),
  kernel: (geometry, tile: RegisterTile) => productKernel(flattenBatch(geometry), tile, 1),
};

/**
 * Partial products over equal ranges of k: y [chunks, batch, m, n], to be summed over the first axis.
 * For long sums with a small result, such as the weight gradient xᵀ · dy over all positions.
 */
export const matmulPartialsKernel: TiledKernel<MatmulGeometry> = {
  tiles: (geometry) => tilesByCost(productShape(geometry, matmulPartialsChunks(geometry))),
  kernel: (geometry, tile: RegisterTile) => productKernel(geometry, tile, matmulPartialsChunks(geometry)),
};

/** How many ranges `matmulPartialsKernel` makes of k. */
export function matmulPartialsChunks(geometry: MatmulGeometry): number {
  return partialChunks(geometry.k, geometry.batch * geometry.m * geometry.n);
}

/**
 * Ranges for a sum over `terms` with `results` results: enough to fill a few cores and to keep each f32 sum short, but
 * with at most `MAX_PARTIALS` partial results.
 */
export function partialChunks(terms: number, results: number): number {
  const forCores = Math.ceil(PARTIALS_IN_FLIGHT / results);
  const forAccuracy = Math.ceil(terms / TERMS_PER_CHUNK);
  const wanted = Math.min(Math.max(forCores, forAccuracy), Math.ceil(terms / MIN_TERMS_PER_CHUNK));
  const chunks = Math.max(1, Math.min(wanted, Math.floor(MAX_PARTIALS / results)));
  return Math.ceil(terms / Math.ceil(terms / chunks)); // no empty last range
}

/** Results in registers that keep eight cores busy: 16 tiles of 12 × 64. */
const PARTIALS_IN_FLIGHT = 12_288;
const TERMS_PER_CHUNK = 8_192;
const MIN_TERMS_PER_CHUNK = 64;
/** 8 Mi f32 = 32 MiB of partial results. */
const MAX_PARTIALS = 8_388_608;

/** Shared b and rows in order: all batches are one tall matrix. */
export function flattenBatch(geometry: MatmulGeometry): MatmulGeometry {
  const { batch, m, batchA = batch, batchB = batch, transposeA = false } = geometry;
  if (batch === 1 || batchB !== 1 || batchA !== batch || transposeA) return geometry;
  return { ...geometry, batch: 1, m: batch * m, batchA: 1 };
}

function productShape(geometry: MatmulGeometry, chunks: number): ProductShape {
  const { batch, m, k, n, transposeA = false, transposeB = false } = geometry;
  return {
    rows: m,
    columns: n,
    depth: Math.ceil(k / chunks),
    groups: batch * chunks,
    rowStride: transposeA ? 1 : k,
    columnStride: transposeB ? k : 1,
  };
}

function productKernel(geometry: MatmulGeometry, tile: RegisterTile, chunks: number): KernelBody {
  const { batch, m, k, n, transposeA = false, transposeB = false } = geometry;
  const { batchA = batch, batchB = batch } = geometry;
  checkBatch('a', batchA, batch);
  checkBatch('b', batchB, batch);
  const rowTiles = Math.ceil(m / rowSpan(tile));
  const columnTiles = Math.ceil(n / columnSpan(tile));
  const chunkSize = Math.ceil(k / chunks);
  const aIndex = (i: number): string =>
    transposeA ? `aStart + step * ${m}u + safeRow${i}` : `aStart + safeRow${i} * ${k}u + step`;
  const bIndex = (j: number): string =>
    transposeB ? `bStart + safeColumn${j} * ${k}u + step` : `bStart + step * ${n}u + safeColumn${j}`;
  const place = (i: number, j: number): string => `yStart + row${i} * ${n}u + column${j}`;
  const first = `chunk * ${chunkSize}u`;
  const last = chunks === 1 ? `${k}u` : `min((chunk + 1u) * ${chunkSize}u, ${k}u)`;
  // Neighbouring workgroups share a column tile: its part of b stays in the cache while the rows go by.
  const body = (fold: boolean): string => wgsl`
    let rowTile = wg % ${rowTiles}u;
    let columnTile = (wg / ${rowTiles}u) % ${columnTiles}u;
    let product = wg / ${rowTiles * columnTiles}u;
    let batch = product % ${batch}u;
    let chunk = product / ${batch}u;
    let aStart = ${batchA === 1 ? '0u' : `batch * ${m * k}u`};
    let bStart = ${batchB === 1 ? '0u' : `batch * ${k * n}u`};
    let yStart = product * ${m * n}u;
    ${tileIndices(tile, m, n)}
    ${fold ? resumeSums(tile, m, n, place) : declareSums(tile)}
    for (var step = ${fold ? `max(${first}, termFrom)` : first}; step < ${fold ? `min(${last}, termTo)` : last}; step++) {
      ${multiplyAdd(
        tile,
        (i) => `load_a(${aIndex(i)})`,
        (j) => `load_b(${bIndex(j)})`,
      )}
    }
    ${storeSums(tile, m, n, place)}
  `;
  const touches = (workgroups: Range, terms?: Range): Record<string, Range> => {
    const [rowTile, columnTile, product] = digits(workgroups, [rowTiles, columnTiles]) as [
      Range,
      Range,
      Range,
    ];
    const [batches, chunk] = digits(product, [batch]) as [Range, Range];
    const row = spans(rowTile, rowSpan(tile), m);
    const column = spans(columnTile, columnSpan(tile), n);
    const step = terms ?? spans(chunk, chunkSize, k);
    const [ofA, ofB] = [batchA, batchB].map((count): Range => (count === 1 ? [0, 1] : batches));
    return {
      a: transposeA
        ? box({ outer: ofA!, row: step, column: row }, k, m)
        : box({ outer: ofA!, row, column: step }, m, k),
      b: transposeB
        ? box({ outer: ofB!, row: column, column: step }, n, k)
        : box({ outer: ofB!, row: step, column }, k, n),
      y: box({ outer: product, row, column }, m, n),
    };
  };
  return {
    body: body(false),
    workgroupSize: LANES,
    workgroups: rowTiles * columnTiles * batch * chunks,
    touches: (from, to) => touches([from, to]),
    fold: {
      body: body(true),
      row: rowTiles * columnTiles,
      count: k,
      terms: (product) => {
        const chunk = Math.floor(product / batch);
        return spans([chunk, chunk + 1], chunkSize, k);
      },
      touches,
    },
  };
}

export function checkBatch(name: string, own: number, batch: number): void {
  if (own === batch || own === 1) return;
  throw new Error(`matmul: ${name} has batch ${own}, but the result has batch ${batch}; pass ${batch} or 1`);
}
