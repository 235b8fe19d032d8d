/**
 * 1-D convolution in groups and its two gradients: output channel o sums over the channels of its own group alone.
 * Weights are [size, inputs / groups, outputs]. A sum has few products for each load, so kernels are bound by memory: one
 * invocation for each result, lanes along the channels, four at a time where every channel is a group.
 */
import type { KernelBody } from '../kernel.ts';
import type { Range } from '../op.ts';
import { wgsl } from '../wgsl.ts';
import type { Conv1dGeometry } from './conv1d.ts';
import { partialChunks } from './matmul.ts';
import { rowsBehind, spans } from './touches.ts';

type Grouped = Conv1dGeometry & { readonly groups: number };

const LANES = 64;

/** y [batch, outLength, outputs] from inputs `x` and `weight`. Sums run over taps, then channels of the group, in f32. */
export function groupedConv1dKernel(geometry: Grouped): KernelBody {
  const { batch, length, outLength, inputs, outputs, groups, size, stride, dilation, padLeft } = geometry;
  const { width, load, zero } = widthOf(geometry);
  const [groupIn, groupOut, columns] = [inputs / groups, outputs / groups, outputs / width];
  return perResult(
    geometry,
    ['x', 'weight'],
    batch * outLength * columns,
    (store) => [
      `let column = i % ${columns}u;`,
      `let position = i / ${columns}u % ${outLength}u;`,
      `let start = i / ${outLength * columns}u * ${length}u;`,
      `var total = ${zero};`,
      `for (var tap = 0u; tap < ${size}u; tap++) {`,
      `let row = position * ${stride}u + tap * ${dilation}u - ${padLeft >>> 0}u;`, // before the start: a large number
      `if (row < ${length}u) {`,
      `let source = (start + row) * ${inputs / width}u + column / ${groupOut}u * ${groupIn}u;`,
      `for (var channel = 0u; channel < ${groupIn}u; channel++) {`,
      `total = fma(${load}_x(source + channel), ${load}_weight((tap * ${groupIn}u + channel) * ${columns}u + column), total);`,
      '} } }',
      store('total'),
    ],
    (results) => ({
      x: rowsBehind(rowsOf(results, columns), outLength, (row) => sourceRows(geometry, row), [
        length,
        inputs,
      ]),
    }),
  );
}

/** dx [batch, length, inputs] from inputs `dy` and `weight`. Every dx gathers its own sum. */
export function groupedConv1dInputGradientKernel(geometry: Grouped): KernelBody {
  const { batch, length, outLength, inputs, outputs, groups, size, stride, dilation, padLeft } = geometry;
  const { width, load, zero } = widthOf(geometry);
  const [groupIn, groupOut, columns] = [inputs / groups, outputs / groups, inputs / width];
  const out = outputs / width;
  const reach = (row: number): Range => [
    Math.ceil((row + padLeft - (size - 1) * dilation) / stride),
    Math.floor((row + padLeft) / stride) + 1,
  ];
  return perResult(
    geometry,
    ['dy', 'weight'],
    batch * length * columns,
    (store) => [
      `let column = i % ${columns}u;`,
      `let position = i / ${columns}u % ${length}u;`,
      `let start = i / ${length * columns}u * ${outLength}u;`,
      `let first = column / ${groupIn}u * ${groupOut}u;`,
      `var total = ${zero};`,
      `for (var tap = 0u; tap < ${size}u; tap++) {`,
      `let reach = position + ${padLeft >>> 0}u - tap * ${dilation}u;`,
      `let row = reach / ${stride}u;`,
      `if (row < ${outLength}u && row * ${stride}u == reach) {`,
      `let source = (start + row) * ${out}u + first;`,
      `let weights = (tap * ${groupIn}u + column % ${groupIn}u) * ${out}u + first;`,
      `for (var channel = 0u; channel < ${groupOut}u; channel++) {`,
      `total = fma(${load}_dy(source + channel), ${load}_weight(weights + channel), total);`,
      '} } }',
      store('total'),
    ],
    (results) => ({
      dy: rowsBehind(rowsOf(results, columns), length, reach, [outLength, outputs]),
    }),
  );
}

/**
 * Partial weight gradients [chunks, size, inputs / groups, outputs] from inputs `x` and `dy`; their sum over the first
 * axis is the gradient. Each chunk is a fixed range of all positions, summed in order.
 */
export function groupedConv1dWeightGradientKernel(geometry: Grouped): KernelBody {
  const { batch, length, outLength, inputs, outputs, groups, size, stride, dilation, padLeft } = geometry;
  const { width, load, zero } = widthOf(geometry);
  const [groupIn, groupOut, columns] = [inputs / groups, outputs / groups, outputs / width];
  const chunks = groupedConv1dWeightGradientChunks(geometry);
  const positions = batch * outLength;
  const perChunk = Math.ceil(positions / chunks);
  return perResult(
    geometry,
    ['x', 'dy'],
    chunks * size * groupIn * columns,
    (store) => [
      `let column = i % ${columns}u;`,
      `let channel = i / ${columns}u % ${groupIn}u + column / ${groupOut}u * ${groupIn}u;`,
      `let tap = i / ${groupIn * columns}u % ${size}u;`,
      `let chunk = i / ${size * groupIn * columns}u;`,
      `var total = ${zero};`,
      `for (var k = chunk * ${perChunk}u; k < min((chunk + 1u) * ${perChunk}u, ${positions}u); k++) {`,
      `let row = k % ${outLength}u * ${stride}u + tap * ${dilation}u - ${padLeft >>> 0}u;`,
      `if (row < ${length}u) {`,
      `let source = (k / ${outLength}u * ${length}u + row) * ${inputs / width}u + channel;`,
      `total = fma(${load}_x(source), ${load}_dy(k * ${columns}u + column), total);`,
      '} }',
      store('total'),
    ],
    (results) => {
      const used = spans(rowsOf(results, size * groupIn * columns), perChunk, positions);
      return {
        x: rowsBehind(used, outLength, (row) => sourceRows(geometry, row), [length, inputs]),
        dy: spans(used, outputs),
      };
    },
  );
}

/** Rows of x behind a row of y. */
function sourceRows({ size, stride, dilation, padLeft }: Grouped, row: number): Range {
  const first = row * stride - padLeft;
  return [first, first + (size - 1) * dilation + 1];
}

/** Rows of `columns` results each that a range of results lies in. */
function rowsOf([from, to]: Range, columns: number): Range {
  return [Math.floor(from / columns), Math.ceil(to / columns)];
}

/** The first axis of the output of `groupedConv1dWeightGradientKernel`. */
export function groupedConv1dWeightGradientChunks({
  batch,
  outLength,
  inputs,
  outputs,
  groups,
  size,
}: Grouped): number {
  return partialChunks(batch * outLength, (size * inputs * outputs) / groups);
}

/** Four channels at a time where every channel is a group of its own. */
function widthOf({ inputs, outputs, groups }: Grouped): {
  readonly width: 1 | 4;
  readonly load: string;
  readonly zero: string;
} {
  const wide = inputs === groups && outputs === groups && groups % 4 === 0;
  return wide ? { width: 4, load: 'load4', zero: 'vec4f()' } : { width: 1, load: 'load', zero: '0.0' };
}

function perResult(
  geometry: Grouped,
  inputs: readonly string[],
  count: number,
  text: (store: (value: string) => string) => readonly string[],
  touched: (results: Range) => Readonly<Record<string, Range>>,
): KernelBody {
  const wide = widthOf(geometry).width === 4;
  const body = wgsl`
    let i = wg * ${LANES}u + lane;
    if (i < ${count}u) {
      ${text((value) => `${wide ? 'store4' : 'store'}(i, ${value});`)}
    }`;
  const vec4 = wide ? [...inputs, 'y'] : [];
  const touches: KernelBody['touches'] = (from, to) => {
    const results = spans([from, to], LANES, count);
    return { ...touched(results), y: spans(results, wide ? 4 : 1) };
  };
  return { body, vec4, workgroupSize: LANES, workgroups: Math.ceil(count / LANES), touches };
}
