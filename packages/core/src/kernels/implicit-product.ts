/**
 * Matrix products and convolutions as one thing: products of matrices whose elements lie anywhere in memory.
 * Families that stage tiles in workgroup memory work from this description alone.
 */
import { type Conv1dGeometry, conv1dWeightGradientChunks } from './conv1d.ts';
import { checkBatch, flattenBatch, type MatmulGeometry, matmulPartialsChunks } from './matmul.ts';

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
  /** Rows of the product that are rows of y; all unless given. */
  readonly isRow?: (row: string) => string;
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

/** y [batch, outLength, outputs]: rows are all positions, steps are taps × channels. */
export function conv1dProduct(geometry: Conv1dGeometry): ImplicitProduct {
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  return {
    groups: 1,
    rows: batch * outLength,
    columns: outputs,
    setup: [],
    ...chunked(size * inputs, 1, '0u'),
    left: {
      name: 'x',
      along: 'step',
      vec4: inputs % 4 === 0,
      outer: (row, id) => [
        `let start${id} = ${row} / ${outLength}u * ${length * inputs}u;`,
        `let first${id} = ${row} % ${outLength}u * ${stride}u - ${wrapped(padLeft)};`,
      ],
      step: (step, id) => [
        `let offset${id} = ${step} / ${inputs}u * ${dilation}u;`,
        `let channel${id} = ${step} % ${inputs}u;`,
      ],
      at: (row, step) => `start${row} + (first${row} + offset${step}) * ${inputs}u + channel${step}`,
      inside: (row, step) => `first${row} + offset${step} < ${length}u`,
    },
    right: strided('weight', '0u', outputs, 'outer', outputs % 4 === 0),
    place: (row, column) => `${row} * ${outputs}u + ${column}`,
  };
}

/**
 * dx [batch, length, inputs]. Positions q with the same phase = q mod stride, the group, see the same taps: every
 * `period`th from `firstTap`, and from one to the next they reach dilation / gcd rows of dy less.
 */
export function conv1dInputGradientProduct(geometry: Conv1dGeometry): ImplicitProduct {
  const { batch, length, outLength, inputs, outputs, size, stride, dilation } = geometry;
  const divisor = greatestCommonDivisor(stride, dilation);
  const period = stride / divisor;
  const phaseRows = Math.ceil(length / stride);
  const isTap = (_: string, step: string): string => `tap${step} < ${size}u`;
  const tap = (step: string, id: string): string[] => [
    `let tap${id} = firstTap + ${step} / ${outputs}u * ${period}u;`,
    `let channel${id} = ${step} % ${outputs}u;`,
  ];
  return {
    groups: stride,
    rows: batch * phaseRows,
    columns: inputs,
    setup: firstTap(geometry, period),
    ...chunked(Math.ceil(size / period) * outputs, 1, '0u'),
    left: {
      name: 'dy',
      along: 'step',
      vec4: outputs % 4 === 0,
      outer: (row, id) => [
        `let start${id} = ${row} / ${phaseRows}u * ${outLength * outputs}u;`,
        `let first${id} = ${row} % ${phaseRows}u + firstOffset;`,
      ],
      step: (step, id) => [
        ...tap(step, id),
        `let offset${id} = ${step} / ${outputs}u * ${dilation / divisor}u;`,
      ],
      at: (row, step) => `start${row} + (first${row} - offset${step}) * ${outputs}u + channel${step}`,
      inside: (row, step) => `first${row} - offset${step} < ${outLength}u && ${isTap(row, step)}`,
    },
    right: {
      name: 'weight',
      along: 'step',
      vec4: outputs % 4 === 0,
      outer: (column, id) => [`let column${id} = ${column};`],
      step: tap,
      at: (column, step) => `(tap${step} * ${inputs}u + column${column}) * ${outputs}u + channel${step}`,
      inside: isTap,
    },
    place: (row, column) =>
      stride === 1
        ? `${row} * ${inputs}u + ${column}`
        : `(${row} / ${phaseRows}u * ${length}u + ${row} % ${phaseRows}u * ${stride}u + group) * ${inputs}u + ${column}`,
    ...(length % stride === 0
      ? {}
      : { isRow: (row: string) => `${row} % ${phaseRows}u * ${stride}u + group < ${length}u` }),
  };
}

/** The first tap that reaches positions of phase `group`, `size` if none does, and the row of dy it reaches from row 0. */
function firstTap({ size, stride, dilation, padLeft }: Conv1dGeometry, period: number): string[] {
  if (stride === 1) return ['let firstTap = 0u;', `let firstOffset = ${wrapped(padLeft)};`];
  const reach = (tap: string): string => `(i32(group) + ${padLeft}i - i32(${tap}) * ${dilation}i)`;
  return [
    `var firstTap = ${size}u;`,
    `for (var tap = 0u; tap < ${period}u; tap++) {`,
    `if (${reach('tap')} % ${stride}i == 0i) { firstTap = min(firstTap, tap); } }`,
    `let firstOffset = u32(${reach('firstTap')} / ${stride}i);`,
  ];
}

/** Partial sums of dweight [chunks, size, inputs, outputs]: rows are taps × channels, steps are all positions. */
export function conv1dWeightGradientProduct(geometry: Conv1dGeometry): ImplicitProduct {
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  const chunks = conv1dWeightGradientChunks(geometry);
  return {
    groups: chunks,
    rows: size * inputs,
    columns: outputs,
    setup: [],
    ...chunked(batch * outLength, chunks, 'group'),
    left: {
      name: 'x',
      along: 'outer',
      vec4: inputs % 4 === 0,
      outer: (row, id) => [
        `let first${id} = ${row} / ${inputs}u * ${dilation}u - ${wrapped(padLeft)};`,
        `let channel${id} = ${row} % ${inputs}u;`,
      ],
      step: (step, id) => [
        `let start${id} = ${step} / ${outLength}u * ${length}u;`,
        `let position${id} = ${step} % ${outLength}u * ${stride}u;`,
      ],
      at: (row, step) => `(start${step} + position${step} + first${row}) * ${inputs}u + channel${row}`,
      inside: (row, step) => `position${step} + first${row} < ${length}u`,
    },
    right: strided('dy', '0u', outputs, 'outer', outputs % 4 === 0),
    place: (row, column) => `(group * ${size * inputs}u + ${row}) * ${outputs}u + ${column}`,
  };
}

/** A whole number as a u32 literal. */
export function wrapped(value: number): string {
  return `${value >>> 0}u`;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
