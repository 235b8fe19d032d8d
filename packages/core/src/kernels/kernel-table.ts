/**
 * Kernel tables: for classes of products, tiles that were measured to be faster than those of the least estimated time.
 * A class is a family and the sizes that matter to its tiles. All else goes by the estimate.
 */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import type { KernelTarget } from '../kernel.ts';
import { explain, replacePath } from '../replace-file.ts';
import type { Product } from './family.ts';
import { flattenBatch } from './matmul.ts';
import { SHIPPED_TABLE } from './shipped-table.ts';
import { type Tile, tileName } from './tiled-kernel.ts';

/** Names of tiles by `productClass`. */
export type KernelTable = Readonly<Record<string, string>>;

const TABLE_FORMAT = 'cohesin kernel table 1';

/** A table that does not fit the kernels it is for. */
export class KernelTableError extends Error {
  override name = 'KernelTableError';
}

/**
 * The tile for a product: the table's, or the first of `tiles`, which has the least estimated time.
 *
 * @throws KernelTableError when the table names a tile that is none of them.
 */
export function chosenTile(target: KernelTarget, product: Product, tiles: readonly Tile[]): Tile {
  const own = productClass(target, product);
  const name = (target.table ?? SHIPPED_TABLE)[own];
  if (name === undefined) return tiles[0]!;
  const tile = tiles.find((candidate) => tileName(candidate) === name);
  if (tile !== undefined) return tile;
  const some = tiles.slice(0, 3).map(tileName).join("', '");
  throw new KernelTableError(
    `the kernel table gives '${own}' the tile '${name}', but its kernels have none of that name; they have '${some}' and ${tiles.length - 3} more. Measure again with cohesin tune`,
  );
}

/**
 * The class of a product, as `software conv1d 64>96 m1024+ b1 5 taps`. Channels and taps are exact. The positions m that share
 * them, and the b products side by side, count as the next power of two, and from some size on as long.
 */
export function productClass(target: KernelTarget, product: Product): string {
  const family =
    target.kind === 'tensor-core'
      ? `tensor-core ${target.matrices.m}x${target.matrices.n}x${target.matrices.k}`
      : target.kind;
  const { channels, m, b, more } = sizesOf(product);
  const sizes = [`m${sizeClass(m, LONG[target.kind])}`, `b${sizeClass(b, MANY)}`, ...more];
  return `${family} ${product.kind} ${channels.join('>')} ${sizes.join(' ')}`;
}

/** Positions from which on a tile's time grows in proportion: a software driver has a few cores, a GPU many. */
const LONG = { software: 1_024, gpu: 65_536, 'tensor-core': 65_536 } as const;
const MANY = 16;

function sizeClass(size: number, long: number): string {
  return size >= long ? `${long}+` : `${2 ** Math.ceil(Math.log2(Math.max(size, 1)))}`;
}

interface Sizes {
  readonly channels: readonly [number, number];
  readonly m: number;
  readonly b: number;
  readonly more: readonly string[];
}

function sizesOf({ kind, geometry }: Product): Sizes {
  switch (kind) {
    case 'matmul': {
      const { batch, m, k, n, transposeA, transposeB } = flattenBatch(geometry);
      const more = [transposeA === true ? 'aT' : '', transposeB === true ? 'bT' : ''].filter(Boolean);
      return { channels: [k, n], m, b: batch, more };
    }
    case 'matmulPartials': {
      const { batch, m, k, n } = geometry;
      return { channels: [m, n], m: k, b: batch, more: [] };
    }
    case 'conv1d':
    case 'conv1dInputGradient':
    case 'conv1dWeightGradient': {
      const { batch, outLength, inputs, outputs, size, stride } = geometry;
      const more = [`${size} taps`, ...(stride === 1 ? [] : [`stride ${stride}`])];
      return { channels: [inputs, outputs], m: outLength, b: batch, more };
    }
    case 'conv2d':
    case 'conv2dInputGradient':
    case 'conv2dWeightGradient': {
      const { batch, outHeight, outWidth, inputs, outputs, sizeHeight, sizeWidth } = geometry;
      const more = [`${sizeHeight}x${sizeWidth} taps`];
      return { channels: [inputs, outputs], m: outWidth, b: batch * outHeight, more };
    }
    default:
      return kind satisfies never;
  }
}

/** Reads a table that `cohesin tune` wrote. @throws when it cannot be read or is no kernel table. */
export async function readKernelTable(path: string): Promise<KernelTable> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new Error(
      `${path}: ${(cause as Error).message}; a kernel table is JSON, as cohesin tune writes it`,
      {
        cause,
      },
    );
  }
  const { format, tiles } = (content ?? {}) as { readonly format?: unknown; readonly tiles?: unknown };
  if (format !== TABLE_FORMAT)
    throw new Error(
      `${path}: its format is '${String(format)}', not '${TABLE_FORMAT}'; make one with cohesin tune`,
    );
  const entries = Object.entries((tiles ?? {}) as Record<string, unknown>);
  const wrong = entries.find(([, tile]) => typeof tile !== 'string');
  if (wrong !== undefined)
    throw new Error(`${path}: the tile of '${wrong[0]}' is ${JSON.stringify(wrong[1])}; it must be its name`);
  return sortedTable(entries as [string, string][]);
}

/** Writes a table file; `measured` says, for people, what its choices rest on. */
export async function writeKernelTable(path: string, tiles: KernelTable, measured: unknown): Promise<void> {
  const text = JSON.stringify({ format: TABLE_FORMAT, tiles, measured }, undefined, 1);
  await replacePath(path, (aside) => writeFile(aside, `${text}\n`));
}

/** In the order of the classes, so that equal tables are equal texts. */
export function sortedTable(entries: readonly (readonly [string, string])[]): KernelTable {
  return Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** SHA-256 of a table. */
export function kernelTableHash(table: KernelTable): string {
  return createHash('sha256')
    .update(JSON.stringify(sortedTable(Object.entries(table))))
    .digest('hex');
}
