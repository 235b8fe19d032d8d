/**
 * Register tiles: the text shared by the register-only kernels.
 *
 * One workgroup of `LANES` invocations computes a tile of a product `y[row, column] = Σ_k left[row, k] · right[k, column]`.
 * One of the two axes lies along the lanes; the other is the same for all lanes, so its loads are uniform. There is no
 * workgroup memory, no barrier and no assumption on the subgroup size.
 */

/** Invocations of one workgroup: the width of the vectors that software drivers compile to (8 × f32 = 256 bit). */
export const LANES = 8;

/** The part of the result that one invocation keeps in registers. */
export interface RegisterTile {
  readonly rows: number;
  readonly columns: number;
  /** The axis along the lanes: the workgroup covers `LANES` times as many of these. */
  readonly lanes: 'rows' | 'columns';
}

/** What a tile is chosen for: `groups` independent products of [rows, depth] by [depth, columns]. */
export interface ProductShape {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly groups: number;
}

/** Rows of the result that one workgroup computes. */
export function rowSpan(tile: RegisterTile): number {
  return tile.lanes === 'rows' ? tile.rows * LANES : tile.rows;
}

/** Columns of the result that one workgroup computes. */
export function columnSpan(tile: RegisterTile): number {
  return tile.lanes === 'columns' ? tile.columns * LANES : tile.columns;
}

/**
 * The cheapest tile by instruction counts: see `COST`. Depends on logical shapes only.
 * Rows and columns of the product may change places: the chosen `lanes` say which of them is contiguous in a workgroup.
 */
export function chooseTile(
  shape: ProductShape,
  uniformSizes: readonly number[] = UNIFORM_SIZES,
): RegisterTile {
  let best: RegisterTile = { rows: 1, columns: 1, lanes: 'columns' };
  let bestCost = Number.POSITIVE_INFINITY;
  for (const lanes of ['columns', 'rows'] as const) {
    for (const uniform of uniformSizes) {
      for (const varying of VARYING_SIZES) {
        if (uniform * varying > MAX_SUMS) continue;
        const [rows, columns] = lanes === 'columns' ? [uniform, varying] : [varying, uniform];
        const cost = tileCost(shape, { rows, columns, lanes });
        if (cost < bestCost) [best, bestCost] = [{ rows, columns, lanes }, cost];
      }
    }
  }
  return best;
}

const UNIFORM_SIZES: readonly number[] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32];
const VARYING_SIZES: readonly number[] = [1, 2, 3, 4, 5, 6, 7, 8];

/** Accumulators per invocation: compile time on older drivers grows faster than linearly with them. */
const MAX_SUMS = 96;

/** Instructions on an 8-lane software driver: per load, per accumulator and step, per step, and per accumulator at the end. */
const COST = { uniformLoad: 8, varyingLoad: 25, multiplyAdd: 3, step: 20, store: 40 };

/** Workgroups that are assumed to run at a time. */
const CONCURRENT_WORKGROUPS = 4;

function tileCost(shape: ProductShape, tile: RegisterTile): number {
  const [uniform, varying] = tile.lanes === 'columns' ? [tile.rows, tile.columns] : [tile.columns, tile.rows];
  const sums = uniform * varying;
  const step = COST.uniformLoad * uniform + COST.varyingLoad * varying + COST.multiplyAdd * sums + COST.step;
  const workgroups =
    shape.groups * Math.ceil(shape.rows / rowSpan(tile)) * Math.ceil(shape.columns / columnSpan(tile));
  return Math.ceil(workgroups / CONCURRENT_WORKGROUPS) * (shape.depth * step + COST.store * sums);
}

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

/** Stores of all accumulators that lie inside the result; `index` gives the flat output index. */
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
  const guard = (inside: string, exact: boolean, text: string): string =>
    exact ? text : `if (${inside}) { ${text} }`;
  return repeat(tile.rows, (i) => {
    const stores = repeat(tile.columns, (j) =>
      guard(`column${j} < ${columns}u`, columnsExact, `store(${index(i, j)}, ${sum(i, j)});`),
    );
    return guard(`${rowAxis.name(i)} < ${rowAxis.count}u`, rowAxis.exact, stores.join(' '));
  });
}
