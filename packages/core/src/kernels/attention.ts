/**
 * Products of attention with register tiles (see `tile.ts`). Tensors with a sequence have their heads behind the
 * position, [batch, position, head, channel]; what is summed along its last axis, and so read along the lanes, is
 * [batch, head, channel, position]. Rows of a tile are read at addresses that are the same for all lanes.
 *
 * A relative distance r belongs to query i and key j = i + r − center, center = keys − 1. The kernels work on tiles of
 * queries by distances and read or write the keys' axis shifted, so that logits by distance are never stored.
 */
import type { KernelBody } from '../kernel.ts';
import { wgsl } from '../wgsl.ts';
import {
  columnSpan,
  declareSums,
  LANES,
  multiplyAdd,
  OUTSIDE,
  type ProductShape,
  type RegisterTile,
  rowSpan,
  storeSums,
  TILES,
  tileCost,
  tileIndices,
} from './tile.ts';
import { byCost } from './tiled-kernel.ts';

/** Sizes of one attention. */
export interface AttentionSizes {
  readonly batch: number;
  readonly heads: number;
  /** Queries at hand: all of them, or a range of the sequence. */
  readonly queries: number;
  /** All keys; distances are 2 · keys − 1. */
  readonly keys: number;
  readonly channels: number;
  /** WGSL of the position of the first query at hand: an i32 that does not depend on the invocation. */
  readonly queryStart: string;
}

/** a [batch, query, head, channel] · b [batch, head, channel, key] → y [batch, query, head, key]. */
export function queryKeyKernel({ batch, heads, queries, keys, channels }: AttentionSizes): KernelBody {
  return headProduct({
    rows: queries,
    columns: keys,
    depth: channels,
    groups: batch * heads,
    heads,
    left: ({ row, step }) =>
      `load_left(((batch * ${queries}u + ${row}) * ${heads}u + head) * ${channels}u + ${step})`,
    right: ({ column, step }) => `load_right((group * ${channels}u + ${step}) * ${keys}u + ${column})`,
    target: (row, column) => `((batch * ${queries}u + ${row}) * ${heads}u + head) * ${keys}u + ${column}`,
  });
}

/** w [batch, query, head, key] · x [batch, key, head, channel] → y [batch, query, head, channel]. */
export function sumOverKeysKernel({ batch, heads, queries, keys, channels }: AttentionSizes): KernelBody {
  return headProduct({
    rows: queries,
    columns: channels,
    depth: keys,
    groups: batch * heads,
    heads,
    left: ({ row, step }) =>
      `load_left(((batch * ${queries}u + ${row}) * ${heads}u + head) * ${keys}u + ${step})`,
    right: ({ column, step }) =>
      `load_right(((batch * ${keys}u + ${step}) * ${heads}u + head) * ${channels}u + ${column})`,
    target: (row, column) => `((batch * ${queries}u + ${row}) * ${heads}u + head) * ${channels}u + ${column}`,
  });
}

/** w [batch, query, head, key] and x [batch, query, head, channel], summed over queries → y [batch, key, head, channel]. */
export function sumOverQueriesKernel({ batch, heads, queries, keys, channels }: AttentionSizes): KernelBody {
  return headProduct({
    rows: keys,
    columns: channels,
    depth: queries,
    groups: batch * heads,
    heads,
    left: ({ row, step }) =>
      `load_left(((batch * ${queries}u + ${step}) * ${heads}u + head) * ${keys}u + ${row})`,
    right: ({ column, step }) =>
      `load_right(((batch * ${queries}u + ${step}) * ${heads}u + head) * ${channels}u + ${column})`,
    target: (row, column) => `((batch * ${keys}u + ${row}) * ${heads}u + head) * ${channels}u + ${column}`,
  });
}

/** a [batch, query, head, channel] · b [head, channel, distance] → y [batch, query, head, key], shifted. */
export function relativeQueryKeyKernel(sizes: AttentionSizes): KernelBody {
  const { batch, heads, queries, keys, channels } = sizes;
  const distances = 2 * keys - 1;
  // Column c of a tile whose last row is query q: distance center − q + c, so key c of that query and c − 1 of the one before.
  const overhang = (tile: RegisterTile): number => rowSpan(tile) - 1;
  return headProduct({
    rows: queries,
    columns: keys,
    extraColumns: overhang,
    depth: channels,
    groups: batch * heads,
    heads,
    prepare: (tile) => firstDistance(sizes, tile),
    left: ({ row, step }) =>
      `load_left(((batch * ${queries}u + ${row}) * ${heads}u + head) * ${channels}u + ${step})`,
    right: ({ column, step }) =>
      `load_right((head * ${channels}u + ${step}) * ${distances}u + u32(clamp(first + i32(${column}), 0, ${distances - 1})))`,
    target: (row, column) => `((batch * ${queries}u + ${row}) * ${heads}u + head) * ${keys}u + (${column})`,
    shift: (tile, i) => overhang(tile) - i,
  });
}

/** w [batch, query, head, key] · x [distance, head, channel], by distance → y [batch, query, head, channel]. */
export function sumOverDistancesKernel(sizes: AttentionSizes): KernelBody {
  const { batch, heads, queries, keys, channels } = sizes;
  return headProduct({
    rows: queries,
    columns: channels,
    depth: keys,
    extraDepth: (tile) => rowSpan(tile) - 1,
    groups: batch * heads,
    heads,
    prepare: (tile) => firstDistance(sizes, tile),
    left: ({ row, step, tile, index }) => {
      const shift = rowSpan(tile) - 1 - index;
      const inside = `${step} >= ${shift}u && ${step} < ${keys + shift}u`;
      const key = `clamp(${step}, ${shift}u, ${keys + shift - 1}u) - ${shift}u`;
      return `select(0.0, load_left(((batch * ${queries}u + ${row}) * ${heads}u + head) * ${keys}u + ${key}), ${inside})`;
    },
    right: ({ column, step }) =>
      `load_right((u32(clamp(first + i32(${step}), 0, ${2 * keys - 2})) * ${heads}u + head) * ${channels}u + ${column})`,
    target: (row, column) => `((batch * ${queries}u + ${row}) * ${heads}u + head) * ${channels}u + ${column}`,
  });
}

/** Declares the distance of key 0 and the last query of a tile: negative where the tile reaches beyond the queries. */
function firstDistance({ keys, queryStart }: AttentionSizes, tile: RegisterTile): string {
  return `let first = ${keys - rowSpan(tile)} - ${queryStart} - i32(rowTile * ${rowSpan(tile)}u);`;
}

/** w [batch, query, head, key] and x [batch, query, head, channel], by distance → y [distance, head, channel]. */
export function sumByDistanceKernel(sizes: AttentionSizes): KernelBody {
  const { batch, heads, queries, keys, channels, queryStart } = sizes;
  const distances = 2 * keys - 1;
  return headProduct({
    rows: distances,
    columns: channels,
    depth: queries,
    groups: heads,
    heads,
    prepare: () => `let center = ${keys - 1} - ${queryStart};`, // distance of key 0 and the first query
    // Queries that have a key at any distance of the tile, for each sequence in turn.
    loop: (tile, body) => [
      `let distance = i32(rowTile * ${rowSpan(tile)}u);`,
      `let firstStep = u32(clamp(center - distance - ${rowSpan(tile) - 1}, 0, ${queries}));`,
      `let endStep = u32(clamp(center + ${keys} - distance, 0, ${queries}));`,
      `for (var b = 0u; b < ${batch}u; b++) { for (var step = firstStep; step < endStep; step++) {`,
      ...body,
      '} }',
    ],
    left: ({ row, step }) => {
      const key = `i32(${row}) + i32(${step}) - center`;
      const safe = `u32(clamp(${key}, 0, ${keys - 1}))`;
      const value = `load_left(((b * ${queries}u + ${step}) * ${heads}u + head) * ${keys}u + ${safe})`;
      return `select(0.0, ${value}, ${key} >= 0 && ${key} < ${keys})`;
    },
    right: ({ column, step }) =>
      `load_right(((b * ${queries}u + ${step}) * ${heads}u + head) * ${channels}u + ${column})`,
    target: (row, column) => `(${row} * ${heads}u + head) * ${channels}u + ${column}`,
  });
}

interface Place {
  readonly step: string;
  readonly tile: RegisterTile;
  /** Position in the tile. */
  readonly index: number;
}

/** A product for each `group`, numbered batch · heads + head. */
interface HeadProduct {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly groups: number;
  readonly heads: number;
  /** Columns beyond `columns` that a tile needs. */
  readonly extraColumns?: (tile: RegisterTile) => number;
  readonly extraDepth?: (tile: RegisterTile) => number;
  /** Statements before the sum. */
  readonly prepare?: (tile: RegisterTile) => string;
  /** The loops around one step of the sum; over `depth` by default. */
  readonly loop?: (tile: RegisterTile, body: readonly string[]) => readonly string[];
  /** The same for all lanes. */
  readonly left: (place: Place & { readonly row: string }) => string;
  readonly right: (place: Place & { readonly column: string }) => string;
  /** Flat output index. */
  readonly target: (row: string, column: string) => string;
  /** What to take off the column where row `i` of the tile is stored. */
  readonly shift?: (tile: RegisterTile, i: number) => number;
}

/** Lanes along the columns: everything here is read and written along them. */
const COLUMN_TILES = TILES.filter(({ lanes }) => lanes === 'columns');

function headProduct(product: HeadProduct): KernelBody {
  const { rows, columns, depth, groups, heads, extraColumns, extraDepth, shift } = product;
  const shape: ProductShape = { rows, columns, depth, groups, rowStride: depth, columnStride: 1 };
  const tile = byCost(COLUMN_TILES, (candidate) => tileCost(shape, candidate))[0]!;
  const span = columns + (extraColumns?.(tile) ?? 0);
  const rowTiles = Math.ceil(rows / rowSpan(tile));
  const columnTiles = Math.ceil(span / columnSpan(tile));
  const steps = depth + (extraDepth?.(tile) ?? 0);
  const step = multiplyAdd(
    tile,
    (index) => product.left({ row: `safeRow${index}`, step: 'step', tile, index }),
    (index) => product.right({ column: `safeColumn${index}`, step: 'step', tile, index }),
  );
  const plainLoop = [`for (var step = 0u; step < ${steps}u; step++) {`, ...step, '}'];
  // Neighbouring workgroups share a column tile: its part of the right operand stays in the cache while the rows go by.
  const body = wgsl`
    let rowTile = wg % ${rowTiles}u;
    let columnTile = wg / ${rowTiles}u % ${columnTiles}u;
    let group = wg / ${rowTiles * columnTiles}u;
    let head = group % ${heads}u;
    let batch = group / ${heads}u;
    ${product.prepare?.(tile) ?? ''}
    ${tileIndices(tile, rows, span)}
    ${declareSums(tile)}
    ${product.loop?.(tile, step) ?? plainLoop}
    ${shift === undefined ? plainStores(product, tile) : shiftedStores(product, tile)}
  `;
  return { body, workgroupSize: LANES, workgroups: rowTiles * columnTiles * groups };
}

function plainStores({ rows, columns, target }: HeadProduct, tile: RegisterTile): string[] {
  return storeSums(tile, rows, columns, (i, j) => target(`row${i}`, `column${j}`));
}

/** Stores with each row moved by its own number of columns; what falls outside is dropped. */
function shiftedStores({ rows, columns, target, shift }: HeadProduct, tile: RegisterTile): string[] {
  return storeSums(tile, rows, columnSpan(tile), (i, j) => {
    const by = shift!(tile, i);
    const inside = `column${j} >= ${by}u && column${j} < ${columns + by}u`;
    return `select(${OUTSIDE}, ${target(`row${i}`, `column${j} - ${by}u`)}, ${inside})`;
  });
}
