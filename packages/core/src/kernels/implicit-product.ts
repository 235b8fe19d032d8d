/**
 * Matrix products and convolutions as one thing: products of matrices whose elements lie anywhere in memory.
 * Families that stage tiles in workgroup memory work from this description alone.
 */
import type { Range } from '../op.ts';
import { checkBatch, flattenBatch, type MatmulGeometry, matmulPartialsChunks } from './matmul.ts';
import { box, digits, spans } from './touches.ts';

/**
 * `groups` independent products y[row, column] = Σ_step left[row, step] · right[step, column]. Expressions are WGSL of
 * type u32; all may use the uniform `group`. Index arithmetic wraps around: what is outside is a large number.
 */
export interface ImplicitProduct {
  readonly groups: number;
  readonly rows: number;
  readonly columns: number;
  /** Steps of the longest group. */
  readonly steps: number;
  /** Uniform declarations the expressions use. */
  readonly setup: readonly string[];
  /** A group's range of steps. */
  readonly firstStep: string;
  readonly endStep: string;
  readonly left: Operand;
  readonly right: Operand;
  /** Flat index into y. */
  readonly place: (row: string, column: string) => string;
  /** Elements of the product that are elements of y; all unless given. */
  readonly isInside?: (row: string, column: string) => string;
  /** Elements of inputs and of y behind a part of the product: see `KernelBody.touches`. */
  readonly touches?: (part: ProductPart) => Readonly<Record<string, Range>>;
}

export interface ProductPart {
  readonly group: Range;
  readonly row: Range;
  readonly column: Range;
}

/** The left operand, whose outer coordinate is the row, or the right one, whose outer coordinate is the column. */
export interface Operand {
  readonly name: string;
  /** The coordinate along which neighbours are neighbours in memory. */
  readonly along: 'outer' | 'step';
  /** Fours of neighbours lie at multiples of four, are all inside or all outside. */
  readonly vec4: boolean;
  /** Declarations for one row or column, and for one step, that `at` and `inside` use; `id` makes their names unique. */
  readonly outer: (index: string, id: string) => readonly string[];
  readonly step: (index: string, id: string) => readonly string[];
  readonly at: (outerId: string, stepId: string) => string;
  /** Whether the element exists; it is zero otherwise. All do unless given. */
  readonly inside?: (outerId: string, stepId: string) => string;
}

/** y [batch, m, n]. */
export function matmulProduct(geometry: MatmulGeometry): ImplicitProduct {
  return matrices(flattenBatch(geometry), 1);
}

/** y [chunks, batch, m, n], each chunk over a range of k. */
export function matmulPartialsProduct(geometry: MatmulGeometry): ImplicitProduct {
  return matrices(geometry, matmulPartialsChunks(geometry));
}

function matrices(geometry: MatmulGeometry, chunks: number): ImplicitProduct {
  const { batch, m, k, n, transposeA = false, transposeB = false } = geometry;
  const { batchA = batch, batchB = batch } = geometry;
  checkBatch('a', batchA, batch);
  checkBatch('b', batchB, batch);
  const range = chunked(k, chunks, `group / ${batch}u`);
  return {
    groups: batch * chunks,
    rows: m,
    columns: n,
    setup: [
      `let aStart = ${batchA === 1 ? '0u' : `group % ${batch}u * ${m * k}u`};`,
      `let bStart = ${batchB === 1 ? '0u' : `group % ${batch}u * ${k * n}u`};`,
    ],
    ...range,
    left: transposeA
      ? strided('a', 'aStart', m, 'outer', m % 4 === 0)
      : strided('a', 'aStart', k, 'step', k % 4 === 0 && range.steps % 4 === 0),
    right: transposeB
      ? strided('b', 'bStart', k, 'step', k % 4 === 0 && range.steps % 4 === 0)
      : strided('b', 'bStart', n, 'outer', n % 4 === 0),
    place: (row, column) => `(group * ${m}u + ${row}) * ${n}u + ${column}`,
    touches: ({ group, row, column }) => {
      const [own, chunk] = digits(group, [batch]) as [Range, Range];
      const step = spans(chunk, range.steps, k);
      const matrix = (count: number, rows: Range, columns: Range, size: readonly [number, number]): Range =>
        box({ outer: count === 1 ? [0, 1] : own, row: rows, column: columns }, ...size);
      return {
        a: transposeA ? matrix(batchA, step, row, [k, m]) : matrix(batchA, row, step, [m, k]),
        b: transposeB ? matrix(batchB, column, step, [n, k]) : matrix(batchB, step, column, [k, n]),
        y: box({ outer: group, row, column }, m, n),
      };
    },
  };
}

/** Steps in `chunks` equal ranges, of which the last may be shorter. */
export function chunked(
  terms: number,
  chunks: number,
  chunk: string,
): Pick<ImplicitProduct, 'steps' | 'firstStep' | 'endStep'> {
  if (chunks === 1) return { steps: terms, firstStep: '0u', endStep: `${terms}u` };
  const steps = Math.ceil(terms / chunks);
  return {
    steps,
    firstStep: `min((${chunk}) * ${steps}u, ${terms}u)`,
    endStep: `min((${chunk}) * ${steps}u + ${steps}u, ${terms}u)`,
  };
}

/** A stored matrix; `pitch` elements from one row, or column, to the next along the other coordinate. */
export function strided(
  name: string,
  start: string,
  pitch: number,
  along: Operand['along'],
  vec4: boolean,
): Operand {
  return {
    name,
    along,
    vec4,
    outer: (index, id) => [`let outer${id} = ${index};`],
    step: (index, id) => [`let step${id} = ${index};`],
    at: (outerId, stepId) =>
      along === 'outer'
        ? `${start} + step${stepId} * ${pitch}u + outer${outerId}`
        : `${start} + outer${outerId} * ${pitch}u + step${stepId}`,
  };
}

/** A whole number as a u32 literal. */
export function wrapped(value: number): string {
  return `${value >>> 0}u`;
}
