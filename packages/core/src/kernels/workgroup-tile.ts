/**
 * Products for GPUs, in f32: a workgroup stages a tile of both operands in workgroup memory, each invocation sums a small
 * tile of the result in registers. Every sum runs over the steps in order.
 */
import type { KernelBody } from '../kernel.ts';
import { wgsl } from '../wgsl.ts';
import type { ImplicitProduct } from './implicit-product.ts';
import { stage, storeInside, tileStarts, wideOperands } from './staging.ts';
import { declareSums, multiplyAdd, repeat } from './tile.ts';
import { byCost, type Tile } from './tiled-kernel.ts';

/** Invocations along rows and along columns of a tile. */
const GRID = 16;
const LANES = GRID * GRID;
/** Steps that are staged at a time. */
const STEPS = 16;
/** Elements between rows of a staged tile beyond its size, so that neighbouring steps lie in different memory banks. */
const PADDING = 4;

const SIZES = [1, 2, 4, 8];
/** Results of one invocation; the workgroup's tile is 16 times as large both ways. */
const TILES: readonly Tile[] = SIZES.flatMap((rows) => SIZES.map((columns) => ({ rows, columns })));

/** Tiles for a product, those of the least estimated time first. */
export function workgroupTiles(product: ImplicitProduct): readonly Tile[] {
  return byCost(TILES, (tile) => cost(product, tile));
}

/** The kernel of a product, by default with the cheapest tile; inputs and output are named as the product names them. */
export function workgroupTileKernel(
  product: ImplicitProduct,
  thread: Tile = workgroupTiles(product)[0]!,
): KernelBody {
  const tile = { rows: thread.rows * GRID, columns: thread.columns * GRID };
  const { text: starts, workgroups, touched } = tileStarts(product, tile);
  const [leftPitch, rightPitch] = [tile.rows + PADDING, tile.columns + PADDING];
  const keep =
    (name: string, pitch: number) =>
    (outer: string, step: string, value: string): string =>
      `${name}[(${step}) * ${pitch}u + ${outer}] = ${value};`;
  const left = stage(
    'left',
    product,
    { outer: tile.rows, steps: STEPS, keep: keep('leftTile', leftPitch) },
    LANES,
  );
  const right = stage(
    'right',
    product,
    { outer: tile.columns, steps: STEPS, keep: keep('rightTile', rightPitch) },
    LANES,
  );
  const sums = { ...thread, lanes: 'columns' } as const;
  const body = wgsl`
    ${starts}
    ${product.setup}
    let endStep = ${product.endStep};
    let laneRow = lane / ${GRID}u * ${thread.rows}u;
    let laneColumn = lane % ${GRID}u;
    ${left.before}
    ${right.before}
    ${declareSums(sums)}
    for (var block = ${product.firstStep}; block < endStep; block += ${STEPS}u) {
      ${left.fill}
      ${right.fill}
      workgroupBarrier(); // the tiles are complete
      for (var step = 0u; step < ${STEPS}u; step++) {
        ${multiplyAdd(
          sums,
          (i) => `leftTile[step * ${leftPitch}u + laneRow + ${i}u]`,
          (j) => `rightTile[step * ${rightPitch}u + laneColumn + ${j * GRID}u]`,
        )}
      }
      workgroupBarrier(); // the tiles may be overwritten
    }
    var kept: array<f32, ${thread.rows * thread.columns}>;
    ${repeat(thread.rows, (i) => repeat(thread.columns, (j) => `kept[${i * thread.columns + j}] = sum${i}_${j};`).join(' '))}
    for (var k = 0u; k < ${thread.rows * thread.columns}u; k++) { // a loop: the epilogue stands in the text once
      let row = rowStart + laneRow + k / ${thread.columns}u;
      let column = columnStart + laneColumn + k % ${thread.columns}u * ${GRID}u;
      ${storeInside(product, 'kept[k]')}
    }
  `;
  const declarations = wgsl`
    var<workgroup> leftTile: array<f32, ${STEPS * leftPitch}>;
    var<workgroup> rightTile: array<f32, ${STEPS * rightPitch}>;`;
  return { body, declarations, workgroupSize: LANES, workgroups, vec4: wideOperands(product), ...touched };
}

/** Workgroups that a large GPU runs at a time: two on each of 132 multiprocessors. */
const WORKGROUPS_IN_FLIGHT = 264;
/** Cost of a load from workgroup memory and of a store, in multiply-adds: 32 lanes a cycle against 128. Not measured. */
const STAGED_LOAD = 4;
const STORE = 16;

/** Time of the whole product in multiply-adds of one invocation, from the logical shape alone. */
function cost(product: ImplicitProduct, { rows, columns }: Tile): number {
  const { workgroups } = tileStarts(product, { rows: rows * GRID, columns: columns * GRID });
  const sums = rows * columns;
  const step = sums + STAGED_LOAD * (rows + columns);
  return Math.max(1, workgroups / WORKGROUPS_IN_FLIGHT) * (product.steps * step + STORE * sums);
}
