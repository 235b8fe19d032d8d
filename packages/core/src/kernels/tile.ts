/**
 * Register tiles: the text shared by the register-only kernels.
 *
 * One workgroup of `LANES` invocations computes a tile of a product `y[row, column] = Σ_k left[row, k] · right[k, column]`.
 * One of the two axes lies along the lanes; the other is the same for all lanes, so its loads are uniform. There is no
 * workgroup memory, no barrier and no assumption on the subgroup size.
 */
import { byCost, type Tile } from './tiled-kernel.ts';

/** Invocations of one workgroup: the width of the vectors that software drivers compile to (8 × f32 = 256 bit). */
export const LANES = 8;

/** The part of the result that one invocation keeps in registers. */
export interface RegisterTile extends Tile {
  /** The axis along the lanes: the workgroup covers `LANES` times as many of these. */
  readonly lanes: 'rows' | 'columns';
}

/** What a tile is chosen for: `groups` independent products of [rows, depth] by [depth, columns]. */
export interface ProductShape {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly groups: number;
  /** Elements between neighbouring rows of the left operand, and neighbouring columns of the right one, in memory. */
  readonly rowStride: number;
  readonly columnStride: number;
}

/** Rows of the result that one workgroup computes. */
export function rowSpan(tile: RegisterTile): number {
  return tile.lanes === 'rows' ? tile.rows * LANES : tile.rows;
}

/** Columns of the result that one workgroup computes. */
export function columnSpan(tile: RegisterTile): number {
  return tile.lanes === 'columns' ? tile.columns * LANES : tile.columns;
}

/** All tiles by rising `tileCost`. */
export function tilesByCost(shape: ProductShape): RegisterTile[] {
  return byCost(TILES, (tile) => tileCost(shape, tile));
}

/** More than 16 uniform or 10 varying loads per step spill: 24 × 4 runs at 6.9 GFLOP/s per core, 12 × 8 at 10.3. */
const UNIFORM_SIZES: readonly number[] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const VARYING_SIZES: readonly number[] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/** Accumulators per invocation: compile time on older drivers grows with them, 0.6 s for 64 and 1 s for 100. */
const MAX_SUMS = 100;

/** All tiles to choose from. */
export const TILES: readonly RegisterTile[] = (['columns', 'rows'] as const).flatMap((lanes) =>
  UNIFORM_SIZES.flatMap((uniform) =>
    VARYING_SIZES.filter((varying) => varying * uniform <= MAX_SUMS).map((varying) =>
      lanes === 'columns'
        ? { rows: uniform, columns: varying, lanes }
        : { rows: varying, columns: uniform, lanes },
    ),
  ),
);

/**
 * Nanoseconds on one core of a 2-core server with Mesa 25.0.7 (8 lanes), fitted to GFLOP/s per core of a 512³ product,
 * tiles uniform × varying: 4×4 5.7, 8×4 7.1, 4×8 7.1, 12×4 7.6, 8×6 8.5, 8×8 9.0, 10×8 9.7, 12×8 10.3, 10×10 10.8.
 * Varying loads of neighbouring addresses cost no more than uniform ones there.
 */
const COST = {
  step: 4,
  uniformLoad: 3.3,
  varyingLoad: 3.4,
  /** Per varying load and multiple of what an 8-way cache holds at that stride; at most `maxConflict` in all. */
  conflict: 2.3,
  maxConflict: 7,
  multiplyAdd: 0.88,
  /** Per accumulator, once. */
  store: 10,
  /** Per accumulator: 9 ms of compile time, spread over 10,000 runs. */
  compile: 900,
};

/** Workgroups that are assumed to run at a time. */
const CONCURRENT_WORKGROUPS = 4;

/** Estimated run time in ns, plus the compile time's share. */
export function tileCost(shape: ProductShape, tile: RegisterTile): number {
  const [uniform, varying, stride] =
    tile.lanes === 'columns'
      ? [tile.rows, tile.columns, shape.columnStride]
      : [tile.columns, tile.rows, shape.rowStride];
  const sums = uniform * varying;
  const varyingLoad = COST.varyingLoad + conflictCost(varying * LANES, stride);
  const step = COST.step + COST.uniformLoad * uniform + varyingLoad * varying + COST.multiplyAdd * sums;
  const workgroups =
    shape.groups * Math.ceil(shape.rows / rowSpan(tile)) * Math.ceil(shape.columns / columnSpan(tile));
  const rounds = Math.ceil(workgroups / CONCURRENT_WORKGROUPS);
  return rounds * (shape.depth * step + COST.store * sums) + COST.compile * sums;
}

/**
 * Strides that are multiples of large powers of two fall into few cache sets (64-byte lines, 4 KiB per way): 512³ with rows
 * along the lanes, 2 KiB apart, runs at 6.1 GFLOP/s per core against 9.0.
 */
function conflictCost(lines: number, stride: number): number {
  const bytes = stride * 4;
  if (bytes < 64) return 0;
  let period = 4_096;
  while (bytes % period !== 0) period /= 2;
  const sets = 4_096 / Math.max(period, 64);
  return Math.min(COST.maxConflict, COST.conflict * Math.max(0, lines / (sets * 8) - 1));
}

/** A tile of taps × channels of x (rows) by channels of dy (columns) of a weight gradient. */
export interface WeightGradientTile extends RegisterTile {
  readonly taps: number;
}

/**
 * Tiles of `groups` partial weight gradients [size, inputs, outputs] of `depth` terms by rising cost. Several taps in one
 * tile share the loads of dy: 24 → 28 channels run at 9.2 GFLOP/s per core with 5 taps, 6.7 with 1.
 */
export function weightGradientTiles({
  size,
  inputs,
  outputs,
  depth,
  groups,
}: Readonly<
  Record<'size' | 'inputs' | 'outputs' | 'depth' | 'groups', number>
>): readonly WeightGradientTile[] {
  const shape = { columns: outputs, depth, groups, rowStride: 1, columnStride: 1 };
  const candidates = Array.from({ length: Math.min(size, MAX_TAPS) }, (_, i) => i + 1).flatMap((taps) =>
    TILES.filter((tile) => tile.rows % taps === 0).map((tile) => ({ ...tile, taps })),
  );
  return byCost(candidates, (tile) => {
    const channels = rowSpan({ ...tile, rows: tile.rows / tile.taps });
    const tiles = Math.ceil(size / tile.taps) * Math.ceil(inputs / channels);
    return tileCost({ ...shape, rows: tiles * rowSpan(tile) }, tile);
  });
}

const MAX_TAPS = 8;

/** `count` pieces of text, one per index, as lines of a template. */
export function repeat(count: number, text: (index: number) => string): string[] {
  return Array.from({ length: count }, (_, index) => text(index));
}

/**
 * `let row0 = …; let column0 = …` from `rowTile` and `columnTile`, plus `safeRow0`… that stay inside the result, for loads.
 */
export function tileIndices(tile: RegisterTile, rows: number, columns: number): string[] {
  const axis = (name: string, count: number, span: number, total: number, varying: boolean): string[] =>
    repeat(count, (i) => {
      const index = varying
        ? `${name}Tile * ${span}u + ${i * LANES}u + lane`
        : `${name}Tile * ${span}u + ${i}u`;
      const safe = total % span === 0 ? `${name}${i}` : `min(${name}${i}, ${total - 1}u)`;
      const upper = name[0]!.toUpperCase() + name.slice(1);
      return `let ${name}${i} = ${index}; let safe${upper}${i} = ${safe};`;
    });
  return [
    ...axis('row', tile.rows, rowSpan(tile), rows, tile.lanes === 'rows'),
    ...axis('column', tile.columns, columnSpan(tile), columns, tile.lanes === 'columns'),
  ];
}

/** `var sum0_0 = 0.0; …` */
export function declareSums(tile: RegisterTile): string[] {
  return repeat(tile.rows, (i) => repeat(tile.columns, (j) => `var sum${i}_${j} = 0.0;`).join(' '));
}

/** As `declareSums`, for sums that go on from what `index` of the output holds: see `FoldedBody`. */
export function resumeSums(
  tile: RegisterTile,
  rows: number,
  columns: number,
  index: (row: number, column: number) => string,
  sum: (row: number, column: number) => string = (i, j) => `sum${i}_${j}`,
): string[] {
  const inside = (i: number, j: number): string => `row${i} < ${rows}u && column${j} < ${columns}u`;
  return repeat(tile.rows, (i) =>
    repeat(tile.columns, (j) => `var ${sum(i, j)} = resumed(${inside(i, j)}, ${index(i, j)});`).join(' '),
  );
}

/** One step of the inner loop: `sum += left · right` for every accumulator; values of the lane axis are loaded first. */
export function multiplyAdd(
  tile: RegisterTile,
  left: (row: number) => string,
  right: (column: number) => string,
): string[] {
  const sum = (i: number, j: number): string => `sum${i}_${j} = fma(left${i}, right${j}, sum${i}_${j});`;
  const row = (i: number): string => `let left${i} = ${left(i)};`;
  const column = (j: number): string => `let right${j} = ${right(j)};`;
  if (tile.lanes === 'columns') {
    return [
      ...repeat(tile.columns, column),
      ...repeat(tile.rows, (i) => `${row(i)} ${repeat(tile.columns, (j) => sum(i, j)).join(' ')}`),
    ];
  }
  return [
    ...repeat(tile.rows, row),
    ...repeat(tile.columns, (j) => `${column(j)} ${repeat(tile.rows, (i) => sum(i, j)).join(' ')}`),
  ];
}

/** A bounds check of one axis of the result at the end of a kernel. */
export interface StoreAxis {
  /** The expression that must be below `count`, for the index i of the tile. */
  readonly name: (index: number) => string;
  readonly count: number;
  /** Tiles cover the axis exactly: no check. */
  readonly exact: boolean;
}

/**
 * Stores of all accumulators that lie inside the result; `index` gives the flat output index. They go through a loop, so
 * that an epilogue, which `store` holds, stands in the text once and not at each of ~100 accumulators: written out, the
 * software driver took 5–17 s to compile a kernel with a GELU's gradient or a residual behind it.
 */
export function storeSums(
  tile: RegisterTile,
  rows: number | StoreAxis,
  columns: number,
  index: (row: number, column: number) => string,
  sum: (row: number, column: number) => string = (i, j) => `sum${i}_${j}`,
): string[] {
  const rowAxis =
    typeof rows === 'number'
      ? { name: (i: number) => `row${i}`, count: rows, exact: rows % rowSpan(tile) === 0 }
      : rows;
  const columnsExact = columns % columnSpan(tile) === 0;
  const count = tile.rows * tile.columns;
  const inside = (i: number, j: number): string[] => [
    ...(rowAxis.exact ? [] : [`${rowAxis.name(i)} < ${rowAxis.count}u`]),
    ...(columnsExact ? [] : [`column${j} < ${columns}u`]),
  ];
  const keep = (i: number, j: number): string => {
    const guards = inside(i, j);
    const place =
      guards.length === 0 ? index(i, j) : `select(${OUTSIDE}, ${index(i, j)}, ${guards.join(' && ')})`;
    const k = i * tile.columns + j;
    return `kept[${k}] = ${sum(i, j)}; place[${k}] = ${place};`;
  };
  return [
    `{ var kept: array<f32, ${count}>;`,
    `var place: array<u32, ${count}>;`,
    ...repeat(tile.rows, (i) => repeat(tile.columns, (j) => keep(i, j)).join(' ')),
    `for (var k = 0u; k < ${count}u; k++) { if (place[k] != ${OUTSIDE}) { store(place[k], kept[k]); } } }`,
  ];
}

/** An index that no tensor reaches: what is stored there is dropped. */
export const OUTSIDE = '0xffffffffu';
