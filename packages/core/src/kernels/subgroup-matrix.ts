/**
 * Products on matrix units: a workgroup of 2 × 2 subgroups stages a tile of both operands as f16 in workgroup memory and
 * multiplies it by subgroup matrices that sum in f32. Sizes follow the matrices that the adapter lists. Operands are
 * rounded to f16: what exceeds 65,504 becomes infinite, never wrong in silence.
 */
import type { KernelBody, SubgroupMatrices } from '../kernel.ts';
import { wgsl } from '../wgsl.ts';
import type { ImplicitProduct } from './implicit-product.ts';
import { stage, storeInside, tileStarts, wideOperands } from './staging.ts';
import { repeat } from './tile.ts';
import { byCost, type Tile } from './tiled-kernel.ts';

/** Subgroups along rows and along columns of a tile. */
const GRID = 2;
/** Matrices that are staged at a time along the steps. */
const DEPTH = 2;
/** f16 elements between rows of a staged tile beyond its size: 16 bytes, so that rows lie in different memory banks. */
const PADDING = 8;

const SIZES = [1, 2, 4];
/** Result matrices of one subgroup; the workgroup's tile is 2 × 2 times as large. */
const TILES: readonly Tile[] = SIZES.flatMap((rows) => SIZES.map((columns) => ({ rows, columns })));

/** Tiles for a product, those of the least estimated time first. */
export function matrixTiles(product: ImplicitProduct, matrices: SubgroupMatrices): readonly Tile[] {
  return byCost(TILES, (tile) => cost(product, matrices, tile));
}

/** The kernel of a product, by default with the cheapest tile; inputs and output are named as the product names them. */
export function subgroupMatrixKernel(
  product: ImplicitProduct,
  matrices: SubgroupMatrices,
  own: Tile = matrixTiles(product, matrices)[0]!,
): KernelBody {
  const { m, n, k, subgroupSize } = matrices;
  const tile = tileOf(matrices, own);
  const steps = DEPTH * k;
  const lanes = GRID * GRID * subgroupSize;
  const { text: starts, workgroups, touched } = tileStarts(product, tile);
  const [leftPitch, rightPitch] = [steps + PADDING, tile.columns + PADDING];
  const left = stage(
    'left',
    product,
    {
      outer: tile.rows,
      steps,
      keep: (row, step, value) => `leftTile[(${row}) * ${leftPitch}u + ${step}] = f16(${value});`,
    },
    lanes,
  );
  const right = stage(
    'right',
    product,
    {
      outer: tile.columns,
      steps,
      keep: (column, step, value) => `rightTile[(${step}) * ${rightPitch}u + ${column}] = f16(${value});`,
    },
    lanes,
  );
  const body = wgsl`
    ${starts}
    ${product.setup}
    let endStep = ${product.endStep};
    let subgroupRow = subgroup / ${GRID}u * ${own.rows * m}u;
    let subgroupColumn = subgroup % ${GRID}u * ${own.columns * n}u;
    ${left.before}
    ${right.before}
    ${repeat(own.rows, (i) => repeat(own.columns, (j) => `var sum${i}_${j}: Sum;`).join(' '))}
    for (var block = ${product.firstStep}; block < endStep; block += ${steps}u) {
      ${left.fill}
      ${right.fill}
      workgroupBarrier(); // the tiles are complete
      for (var step = 0u; step < ${steps}u; step += ${k}u) {
        ${repeat(own.rows, (i) => `let left${i} = subgroupMatrixLoad<Left, row_major>(&leftTile, (subgroupRow + ${i * m}u) * ${leftPitch}u + step, ${leftPitch}u);`)}
        ${repeat(
          own.columns,
          (
            j,
          ) => `let right${j} = subgroupMatrixLoad<Right, row_major>(&rightTile, step * ${rightPitch}u + subgroupColumn + ${j * n}u, ${rightPitch}u);
        ${repeat(own.rows, (i) => `sum${i}_${j} = subgroupMatrixMultiplyAccumulate(left${i}, right${j}, sum${i}_${j});`).join('\n')}`,
        )}
      }
      workgroupBarrier(); // the tiles may be overwritten
    }
    ${storeSums(product, matrices, own, lanes)}
  `;
  const declarations = wgsl`
    alias Left = subgroup_matrix_left<f16, ${k}, ${m}>;
    alias Right = subgroup_matrix_right<f16, ${n}, ${k}>;
    alias Sum = subgroup_matrix_result<f32, ${n}, ${m}>;
    var<workgroup> leftTile: array<f16, ${tile.rows * leftPitch}>;
    var<workgroup> rightTile: array<f16, ${steps * rightPitch}>;
    var<workgroup> results: array<f32, ${GRID * GRID * m * n}>;`;
  return {
    body,
    declarations,
    enables: ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix'],
    workgroupSize: lanes,
    workgroups,
    vec4: wideOperands(product),
    ...touched,
  };
}

/** Elements of a matrix can only be had through memory: each subgroup puts down one at a time. */
function storeSums(product: ImplicitProduct, { m, n }: SubgroupMatrices, own: Tile, lanes: number): string[] {
  const putDown = (part: number): string =>
    `case ${part}u: { subgroupMatrixStore<row_major>(&results, subgroup * ${m * n}u, sum${Math.floor(part / own.columns)}_${part % own.columns}, ${n}u); }`;
  return [
    `for (var part = 0u; part < ${own.rows * own.columns}u; part++) {`,
    `switch part { ${repeat(own.rows * own.columns, putDown).join('\n')} default: {} }`,
    'workgroupBarrier(); // all subgroups have put down a matrix',
    `for (var k = lane; k < ${GRID * GRID * m * n}u; k += ${lanes}u) {`,
    `let owner = k / ${m * n}u; let element = k % ${m * n}u;`,
    `let row = rowStart + (owner / ${GRID}u * ${own.rows}u + part / ${own.columns}u) * ${m}u + element / ${n}u;`,
    `let column = columnStart + (owner % ${GRID}u * ${own.columns}u + part % ${own.columns}u) * ${n}u + element % ${n}u;`,
    storeInside(product, 'results[k]'),
    '}',
    'workgroupBarrier(); // the next matrices may take their place',
    '}',
  ];
}

function tileOf({ m, n }: SubgroupMatrices, own: Tile): Tile {
  return { rows: GRID * own.rows * m, columns: GRID * own.columns * n };
}

/** Workgroups that a large GPU runs at a time: three on each of 132 multiprocessors. */
const WORKGROUPS_IN_FLIGHT = 396;
/** Cost of staging and loading a matrix, and of storing one, in products of two matrices. Not measured. */
const LOAD = 1;
const STORE = 4;

/** Time of the whole product in matrix products of one subgroup, from the logical shape alone. */
function cost(product: ImplicitProduct, matrices: SubgroupMatrices, own: Tile): number {
  const { workgroups } = tileStarts(product, tileOf(matrices, own));
  const sums = own.rows * own.columns;
  const step = sums + LOAD * (own.rows + own.columns);
  const steps = Math.ceil(product.steps / matrices.k);
  return Math.max(1, workgroups / WORKGROUPS_IN_FLIGHT) * (steps * step + STORE * sums);
}
