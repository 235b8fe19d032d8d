/** The 1-D convolution and its gradients as implicit products. */
import type { Range } from '../op.ts';
import { type Conv1dGeometry, conv1dWeightGradientChunks } from './conv1d.ts';
import { chunked, type ImplicitProduct, strided, wrapped } from './implicit-product.ts';
import { box, rowsBehind, spans } from './touches.ts';

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
    touches: ({ row, column }) => ({
      x: rowsBehind(row, outLength, (n) => windowAt(geometry, n), [length, inputs]),
      y: box({ outer: [0, 1], row, column }, 1, outputs),
    }),
  };
}

/** Rows of x behind a position of y. */
function windowAt({ size, stride, dilation, padLeft }: Conv1dGeometry, position: number): Range {
  const first = position * stride - padLeft;
  return [first, first + (size - 1) * dilation + 1];
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
      : { isInside: (row: string) => `${row} % ${phaseRows}u * ${stride}u + group < ${length}u` }),
    touches: ({ row, column }) => ({
      dy: rowsBehind(row, phaseRows, (n) => rowsReached(geometry, n), [outLength, outputs]),
      y:
        stride === 1
          ? box({ outer: [0, 1], row, column }, 1, inputs)
          : rowsBehind(row, phaseRows, (n) => [n * stride, (n + 1) * stride], [length, inputs]),
    }),
  };
}

/** Rows of dy behind the positions of row n, of all phases. */
function rowsReached({ size, stride, dilation, padLeft }: Conv1dGeometry, n: number): Range {
  const reach = (size - 1) * dilation;
  return [
    Math.ceil((n * stride + padLeft - reach) / stride),
    Math.floor(((n + 1) * stride - 1 + padLeft) / stride) + 1,
  ];
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
  const range = chunked(batch * outLength, chunks, 'group');
  return {
    groups: chunks,
    rows: size * inputs,
    columns: outputs,
    setup: [],
    ...range,
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
    touches: ({ group, row, column }) => {
      const positions = spans(group, range.steps, batch * outLength);
      return {
        x: rowsBehind(positions, outLength, (n) => windowAt(geometry, n), [length, inputs]),
        dy: spans(positions, outputs),
        y: box({ outer: group, row, column }, size * inputs, outputs),
      };
    },
  };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
