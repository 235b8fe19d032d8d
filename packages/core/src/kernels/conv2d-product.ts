/** The 2-D convolution and its gradients as implicit products. */
import type { Range } from '../op.ts';
import { type Conv2dGeometry, conv2dWeightGradientChunks } from './conv2d.ts';
import { chunked, type ImplicitProduct, type Operand, strided, wrapped } from './implicit-product.ts';
import { box, digits, rowsBehind, spans } from './touches.ts';

/** y [batch, outHeight, outWidth, outputs]: rows are all pairs, steps are taps × channels. */
export function conv2dProduct(geometry: Conv2dGeometry): ImplicitProduct {
  const { batch, height, width, outHeight, outWidth, inputs, outputs } = geometry;
  const { sizeHeight, sizeWidth, dilation, padTop, padLeft } = geometry;
  return {
    groups: 1,
    rows: batch * outHeight * outWidth,
    columns: outputs,
    setup: [],
    ...chunked(sizeHeight * sizeWidth * inputs, 1, '0u'),
    left: taps({
      ...{ name: 'x', sourceHeight: height, sourceWidth: width, channels: inputs, sizeWidth },
      ...{ height: outHeight, width: outWidth, firstRow: -padTop, firstColumn: -padLeft, apart: dilation },
    }),
    right: strided('weight', '0u', outputs, 'outer', outputs % 4 === 0),
    place: (row, column) => `${row} * ${outputs}u + ${column}`,
    touches: ({ row, column }) => ({
      x: mapsBehind(geometry, row),
      y: box({ outer: [0, 1], row, column }, 1, outputs),
    }),
  };
}

/** Elements of x behind pairs of y, in whole rows of the maps. */
function mapsBehind(geometry: Conv2dGeometry, pairs: Range): Range {
  const { height, width, outHeight, outWidth, inputs, sizeHeight, dilation, padTop } = geometry;
  const reach = (row: number): Range => [row - padTop, row - padTop + (sizeHeight - 1) * dilation + 1];
  return rowsBehind(rowsOf(pairs, outWidth), outHeight, reach, [height, width * inputs]);
}

/** Rows of maps that hold a range of pairs. */
function rowsOf(pairs: Range, width: number): Range {
  const [, rows] = digits(pairs, [width]) as [Range, Range];
  return rows;
}

/** dx [batch, height, width, inputs]: as the convolution, with taps that go backwards. */
export function conv2dInputGradientProduct(geometry: Conv2dGeometry): ImplicitProduct {
  const { batch, height, width, outHeight, outWidth, inputs, outputs } = geometry;
  const { sizeHeight, sizeWidth, dilation, padTop, padLeft } = geometry;
  const reach = (row: number): Range => [row + padTop - (sizeHeight - 1) * dilation, row + padTop + 1];
  return {
    groups: 1,
    rows: batch * height * width,
    columns: inputs,
    setup: [],
    ...chunked(sizeHeight * sizeWidth * outputs, 1, '0u'),
    left: taps({
      ...{ name: 'dy', sourceHeight: outHeight, sourceWidth: outWidth, channels: outputs, sizeWidth },
      ...{ height, width, firstRow: padTop, firstColumn: padLeft, apart: -dilation },
    }),
    right: {
      name: 'weight',
      along: 'step',
      vec4: outputs % 4 === 0,
      outer: (column, id) => [`let column${id} = ${column} * ${outputs}u;`],
      step: (step, id) => [
        `let tap${id} = ${step} / ${outputs}u * ${inputs * outputs}u + ${step} % ${outputs}u;`,
      ],
      at: (column, step) => `tap${step} + column${column}`,
    },
    place: (row, column) => `${row} * ${inputs}u + ${column}`,
    touches: ({ row, column }) => ({
      dy: rowsBehind(rowsOf(row, width), height, reach, [outHeight, outWidth * outputs]),
      y: box({ outer: [0, 1], row, column }, 1, inputs),
    }),
  };
}

/** Partial sums of dweight [chunks, sizeHeight, sizeWidth, inputs, outputs]: rows are taps × channels, steps all pairs. */
export function conv2dWeightGradientProduct(geometry: Conv2dGeometry): ImplicitProduct {
  const { batch, height, width, outHeight, outWidth, inputs, outputs } = geometry;
  const { sizeHeight, sizeWidth, dilation, padTop, padLeft } = geometry;
  const rows = sizeHeight * sizeWidth * inputs;
  const chunks = conv2dWeightGradientChunks(geometry);
  const range = chunked(batch * outHeight * outWidth, chunks, 'group');
  return {
    groups: chunks,
    rows,
    columns: outputs,
    setup: [],
    ...range,
    left: {
      name: 'x',
      along: 'outer',
      vec4: inputs % 4 === 0,
      outer: (row, id) => [
        `let down${id} = ${row} / ${sizeWidth * inputs}u * ${dilation}u - ${wrapped(padTop)};`,
        `let across${id} = ${row} / ${inputs}u % ${sizeWidth}u * ${dilation}u - ${wrapped(padLeft)};`,
        `let channel${id} = ${row} % ${inputs}u;`,
      ],
      step: (step, id) => [
        `let start${id} = ${step} / ${outHeight * outWidth}u * ${height}u;`,
        `let row${id} = ${step} / ${outWidth}u % ${outHeight}u;`,
        `let column${id} = ${step} % ${outWidth}u;`,
      ],
      at: (row, step) =>
        `((start${step} + row${step} + down${row}) * ${width}u + column${step} + across${row}) * ${inputs}u + channel${row}`,
      inside: (row, step) =>
        `row${step} + down${row} < ${height}u && column${step} + across${row} < ${width}u`,
    },
    right: strided('dy', '0u', outputs, 'outer', outputs % 4 === 0),
    place: (row, column) => `(group * ${rows}u + ${row}) * ${outputs}u + ${column}`,
    touches: ({ group, row, column }) => {
      const pairs = spans(group, range.steps, batch * outHeight * outWidth);
      return {
        x: mapsBehind(geometry, pairs),
        dy: spans(pairs, outputs),
        y: box({ outer: group, row, column }, rows, outputs),
      };
    },
  };
}

/** A padded map [sourceHeight, sourceWidth, channels] under the taps of a [height, width] result. */
interface Taps {
  readonly name: string;
  readonly sourceHeight: number;
  readonly sourceWidth: number;
  readonly channels: number;
  readonly sizeWidth: number;
  readonly height: number;
  readonly width: number;
  /** Where the first tap of the first pair reads. */
  readonly firstRow: number;
  readonly firstColumn: number;
  /** Places from one tap to the next. */
  readonly apart: number;
}

function taps(map: Taps): Operand {
  const { name, sourceHeight, sourceWidth, channels, sizeWidth, height, width, apart } = map;
  const { firstRow, firstColumn } = map;
  return {
    name,
    along: 'step',
    vec4: channels % 4 === 0,
    outer: (row, id) => [
      `let start${id} = ${row} / ${height * width}u * ${sourceHeight}u;`,
      `let row${id} = ${row} / ${width}u % ${height}u + ${wrapped(firstRow)};`,
      `let column${id} = ${row} % ${width}u + ${wrapped(firstColumn)};`,
    ],
    step: (step, id) => [
      `let down${id} = ${step} / ${sizeWidth * channels}u * ${wrapped(apart)};`,
      `let across${id} = ${step} / ${channels}u % ${sizeWidth}u * ${wrapped(apart)};`,
      `let channel${id} = ${step} % ${channels}u;`,
    ],
    at: (row, step) =>
      `((start${row} + row${row} + down${step}) * ${sourceWidth}u + column${row} + across${step}) * ${channels}u + channel${step}`,
    inside: (row, step) =>
      `row${row} + down${step} < ${sourceHeight}u && column${row} + across${step} < ${sourceWidth}u`,
  };
}
