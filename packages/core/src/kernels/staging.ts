/** Text shared by the families that stage tiles of both operands in workgroup memory. */
import type { KernelBody } from '../kernel.ts';
import type { Range } from '../op.ts';
import type { ImplicitProduct, ProductPart } from './implicit-product.ts';
import { repeat } from './tile.ts';
import { digits, spans } from './touches.ts';

/** One operand's tile in workgroup memory. */
export interface StagedTile {
  /** Rows of the left operand, or columns of the right one, and steps; powers of two. */
  readonly outer: number;
  readonly steps: number;
  /** The statement that keeps `value`, an f32, in the tile. */
  readonly keep: (outer: string, step: string, value: string) => string;
}

/** How a workgroup fills a tile. */
export interface Staging {
  /** Before the loop over steps: what depends on the row or column only. */
  readonly before: readonly string[];
  /** In the loop: the steps from `block` on; elements outside the product become zero. */
  readonly fill: readonly string[];
}

/** One element, or four neighbours, that a lane stages. */
interface Item {
  readonly id: string;
  readonly outer: string;
  readonly step: string;
  /** Whether the lane has an item at all; undefined if all have. */
  readonly exists: string | undefined;
}

/**
 * Stages one operand of a product with `lanes` invocations: lanes go along the coordinate that is contiguous in memory,
 * four elements each where those lie together. Uses the uniforms `rowStart`, `columnStart`, `block` and `endStep`.
 */
export function stage(
  side: 'left' | 'right',
  product: ImplicitProduct,
  tile: StagedTile,
  lanes: number,
): Staging {
  const operand = product[side];
  const [start, count] = side === 'left' ? ['rowStart', product.rows] : ['columnStart', product.columns];
  const items = itemsOf(side, product, tile, lanes);
  const outerFits = count % tile.outer === 0;
  const stepFits = product.firstStep === '0u' && product.steps % tile.steps === 0;
  const before = items.flatMap(({ id, outer }) => [
    `let outer${id}InTile = ${outer};`,
    `let outer${id}Index = ${start} + outer${id}InTile;`,
    ...operand.outer(`outer${id}Index`, id),
  ]);
  const fill = items.flatMap(({ id, step, exists }) => {
    const inside = [
      ...(outerFits ? [] : [`outer${id}Index < ${count}u`]),
      ...(stepFits ? [] : ['stepIndex < endStep']),
      ...(operand.inside === undefined ? [] : [operand.inside(id, id)]),
    ];
    const load = `${operand.vec4 ? 'load4' : 'load'}_${operand.name}`;
    const at = operand.vec4 ? `(${operand.at(id, id)}) / 4u` : operand.at(id, id);
    return [
      exists === undefined ? '{' : `if (${exists}) {`,
      `let stepInTile = ${step}; let stepIndex = block + stepInTile;`,
      ...operand.step('stepIndex', id),
      `var value = ${operand.vec4 ? 'vec4f()' : '0.0'};`,
      inside.length === 0
        ? `value = ${load}(${at});`
        : `if (${inside.join(' && ')}) { value = ${load}(${at}); }`,
      ...keepAll(operand, tile, `outer${id}InTile`),
      '}',
    ];
  });
  return { before, fill };
}

function itemsOf(side: 'left' | 'right', product: ImplicitProduct, tile: StagedTile, lanes: number): Item[] {
  const { along, vec4 } = product[side];
  const width = vec4 ? 4 : 1;
  const fast = (along === 'outer' ? tile.outer : tile.steps) / width;
  const count = (tile.outer * tile.steps) / width;
  return Array.from({ length: Math.ceil(count / lanes) }, (_, i): Item => {
    const item = `(lane + ${i * lanes}u)`;
    const [near, far] = [`${item} % ${fast}u * ${width}u`, `${item} / ${fast}u`];
    const [outer, step] = along === 'outer' ? [near, far] : [far, near];
    const exists = (i + 1) * lanes <= count ? undefined : `${item} < ${count}u`;
    return { id: `${side === 'left' ? 'L' : 'R'}${i}`, outer, step, exists };
  });
}

function keepAll({ along, vec4 }: ImplicitProduct['left'], tile: StagedTile, outer: string): string[] {
  if (!vec4) return [tile.keep(outer, 'stepInTile', 'value')];
  return repeat(4, (k) =>
    along === 'outer'
      ? tile.keep(`${outer} + ${k}u`, 'stepInTile', `value[${k}]`)
      : tile.keep(outer, `stepInTile + ${k}u`, `value[${k}]`),
  );
}

/** Names of operands that are staged four elements at a time. */
export function wideOperands({ left, right }: ImplicitProduct): string[] {
  return [left, right].filter(({ vec4 }) => vec4).map(({ name }) => name);
}

/** `wg` taken apart: column tiles change fastest, so that workgroups that run together share rows of the left operand. */
export function tileStarts(
  { groups, rows, columns, touches }: ImplicitProduct,
  tile: { readonly rows: number; readonly columns: number },
): { readonly text: string[]; readonly workgroups: number; readonly touched: Pick<KernelBody, 'touches'> } {
  const [rowTiles, columnTiles] = [Math.ceil(rows / tile.rows), Math.ceil(columns / tile.columns)];
  const partOf = (workgroups: Range): ProductPart => {
    const [columnTile, rowTile, group] = digits(workgroups, [columnTiles, rowTiles]) as [Range, Range, Range];
    return {
      group,
      row: spans(rowTile, tile.rows, rows),
      column: spans(columnTile, tile.columns, columns),
    };
  };
  return {
    text: [
      `let columnStart = wg % ${columnTiles}u * ${tile.columns}u;`,
      `let rowStart = wg / ${columnTiles}u % ${rowTiles}u * ${tile.rows}u;`,
      `let group = wg / ${columnTiles * rowTiles}u;`,
    ],
    workgroups: columnTiles * rowTiles * groups,
    touched: touches === undefined ? {} : { touches: (from, to) => touches(partOf([from, to])) },
  };
}

/** Stores `value` at `row` and `column` if the product has them. */
export function storeInside(product: ImplicitProduct, value: string): string {
  const { rows, columns, place, isInside } = product;
  const inside = [
    `row < ${rows}u`,
    `column < ${columns}u`,
    ...(isInside === undefined ? [] : [isInside('row', 'column')]),
  ];
  return `if (${inside.join(' && ')}) { store(${place('row', 'column')}, ${value}); }`;
}
