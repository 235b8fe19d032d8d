import { elementCount } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { type Spec, sameShape, shapeText, type Tensor } from '../tensor.ts';

const reshapeOp = defineOp<{ readonly shape: readonly number[] }>()({
  name: 'reshape',
  inputs: ['x'],
  axes: 'batch _ -> batch _',
  infer: ({ x }, { shape }) => {
    const count = elementCount(x.shape);
    const known = elementCount(shape.filter((size) => size !== -1));
    const filled = shape.map((size) => (size === -1 ? count / known : size));
    if (elementCount(filled) !== count || filled.some((size) => !Number.isInteger(size))) {
      throw new Error(
        `reshape: ${shapeText(x.shape)} has ${count} elements, which ${shapeText(shape)} cannot hold`,
      );
    }
    return { shape: filled, dtype: x.dtype };
  },
  kernel: { kind: 'view', alias: true, index: (i) => i },
  linear: true,
  gradient: (dy, { x }) => ({ x: () => reshape(dy, [-1, ...x.shape.slice(1)]) }),
  reference: ({ x }) => x.data.slice(),
  samples: [
    { inputs: { x: [2, 3, 5] }, attrs: { shape: [-1, 15] } },
    { inputs: { x: [2, 12] }, attrs: { shape: [-1, 3, 4] } },
  ],
});

/** The same elements in another shape; one size may be -1. Write the leading axis as -1, so that a batch can be split. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  return reshapeOp({ x }, { shape });
}

interface SliceAttrs {
  readonly from: number;
  readonly to: number;
}

interface AlongAxis {
  readonly axis: number;
  readonly rank: number;
}

/** Axis names of x and of the result of an op that works along one axis; the others keep their names. */
function axesAround({ axis, rank }: AlongAxis, inputs = 1): string {
  const names = Array.from({ length: rank }, (_, i) => (i === axis ? '_' : i === 0 ? 'batch' : `axis${i}`));
  return `${Array.from({ length: inputs }, () => names.join(' ')).join(', ')} -> ${names.join(' ')}`;
}

/** Elements in one row of the axis, and in all rows of it. */
function rowsOf({ shape }: Pick<Spec, 'shape'>, axis: number): readonly [row: number, rows: number] {
  return [elementCount(shape.slice(axis + 1)), elementCount(shape.slice(axis))];
}

const sliceOp = defineOp<SliceAttrs & AlongAxis>()({
  name: 'slice',
  inputs: ['x'],
  axes: (attrs) => axesAround(attrs),
  infer: ({ x }, { from, to, axis }) => {
    if (axis >= x.shape.length || from < 0 || to > x.shape[axis]! || from >= to) {
      throw new Error(
        `slice: rows [${from}, ${to}) along axis ${axis} of ${shapeText(x.shape)}; the axis must exist and have these rows`,
      );
    }
    return { shape: x.shape.with(axis, to - from), dtype: x.dtype };
  },
  kernel: {
    kind: 'view',
    index: (i, x, y, { from, axis }) => {
      const [row, rows] = rowsOf(x, axis);
      const [, kept] = rowsOf(y, axis);
      return `${i} / ${kept}u * ${rows}u + ${i} % ${kept}u + ${from * row}u`;
    },
  },
  linear: true,
  gradient: (dy, { x }, { from, to, axis }) => ({
    x: () => pad(dy, { before: from, after: x.shape[axis]! - to, axis }),
  }),
  reference: ({ x }, { from, to, axis }) => {
    const [row, rows] = rowsOf(x, axis);
    const kept = (to - from) * row;
    return Float64Array.from(
      { length: (x.data.length / rows) * kept },
      (_, i) => x.data[Math.floor(i / kept) * rows + from * row + (i % kept)]!,
    );
  },
  samples: [
    { inputs: { x: [2, 11, 3] }, attrs: { from: 2, to: 9, axis: 1, rank: 3 } },
    { inputs: { x: [2, 3, 5, 7] }, attrs: { from: 0, to: 6, axis: 3, rank: 4 } },
    { inputs: { x: [2, 3, 5, 7] }, attrs: { from: 1, to: 5, axis: 2, rank: 4 } },
  ],
});

/** Rows `[from, to)` of x along `axis`: of the rows of `[batch, length, channels]` by default. */
export function slice(x: Tensor, { from, to, axis = 1 }: SliceAttrs & { readonly axis?: number }): Tensor {
  return sliceOp({ x }, { from, to, axis, rank: x.shape.length });
}

interface PadAttrs {
  readonly before: number;
  readonly after: number;
}

const padOp = defineOp<PadAttrs & AlongAxis>()({
  name: 'pad',
  inputs: ['x'],
  axes: (attrs) => axesAround(attrs),
  infer: ({ x }, { before, after, axis }) => {
    if (axis >= x.shape.length || before < 0 || after < 0) {
      throw new Error(
        `pad: ${before} and ${after} rows along axis ${axis} of ${shapeText(x.shape)}; the axis must exist, rows be ≥ 0`,
      );
    }
    return { shape: x.shape.with(axis, x.shape[axis]! + before + after), dtype: x.dtype };
  },
  kernel: {
    kind: 'map',
    index: (_, { before, axis }, { i, y, specs }) => {
      const length = specs.x!.shape[axis]!;
      const [inner, all] = rowsOf(y, axis);
      const row = `clamp(i32(${i} / ${inner}u % ${y.shape[axis]}u) - ${before}, 0, ${length - 1})`;
      return `(${i} / ${all}u * ${length}u + u32(${row})) * ${inner}u + ${i} % ${inner}u`;
    },
    expression: ({ x }, { before, axis }, { i, y, specs }) => {
      const row = `${i} / ${rowsOf(y, axis)[0]}u % ${y.shape[axis]}u`;
      return `select(0.0, ${x}, ${row} >= ${before}u && ${row} < ${before + specs.x!.shape[axis]!}u)`;
    },
  },
  linear: true,
  gradient: (dy, { x }, { before, axis }) => ({
    x: () => slice(dy, { from: before, to: before + x.shape[axis]!, axis }),
  }),
  reference: ({ x }, { before, after, axis }) => {
    const [row, rows] = rowsOf(x, axis);
    const padded = rows + (before + after) * row;
    const out = new Float64Array((x.data.length / rows) * padded);
    for (let o = 0; o * rows < x.data.length; o++)
      out.set(x.data.subarray(o * rows, (o + 1) * rows), o * padded + before * row);
    return out;
  },
  samples: [
    { inputs: { x: [2, 7, 3] }, attrs: { before: 2, after: 3, axis: 1, rank: 3 } },
    { inputs: { x: [2, 3, 5, 7] }, attrs: { before: 0, after: 1, axis: 3, rank: 4 } },
    { inputs: { x: [2, 3, 5, 7] }, attrs: { before: 2, after: 0, axis: 2, rank: 4 } },
  ],
});

/** x with rows of zeros around it along `axis`, 1 by default: the transpose of `slice`. */
export function pad(x: Tensor, { before, after, axis = 1 }: PadAttrs & { readonly axis?: number }): Tensor {
  return padOp({ x }, { before, after, axis, rank: x.shape.length });
}

/** x [batch, height, width, channels] without its outer `crop` rows and columns on every side. */
export function crop2d(x: Tensor, { crop }: { readonly crop: number }): Tensor {
  const rows = slice(x, { from: crop, to: x.shape[1]! - crop });
  return slice(rows, { from: crop, to: x.shape[2]! - crop, axis: 2 });
}

const concatOp = defineOp<AlongAxis>()({
  name: 'concat',
  inputs: ['a', 'b'],
  axes: (attrs) => axesAround(attrs, 2),
  infer: ({ a, b }, { axis }) => {
    if (axis >= a.shape.length || !sameShape(a.shape.toSpliced(axis, 1), b.shape.toSpliced(axis, 1))) {
      throw new Error(
        `concat: ${shapeText(a.shape)} and ${shapeText(b.shape)} along axis ${axis}; their other axes must be equal`,
      );
    }
    return { shape: a.shape.with(axis, a.shape[axis]! + b.shape[axis]!), dtype: 'f32' };
  },
  kernel: {
    kind: 'map',
    index: (input, { axis }, { i, y, specs }) => {
      const [, all] = rowsOf(y, axis);
      const [[, first], [, own]] = [rowsOf(specs.a!, axis), rowsOf(specs[input]!, axis)];
      const within =
        input === 'a' ? `min(${i} % ${all}u, ${own - 1}u)` : `max(${i} % ${all}u, ${first}u) - ${first}u`;
      return `${i} / ${all}u * ${own}u + ${within}`;
    },
    expression: ({ a, b }, { axis }, { i, y, specs }) =>
      `select(${b}, ${a}, ${i} % ${rowsOf(y, axis)[1]}u < ${rowsOf(specs.a!, axis)[1]}u)`,
  },
  gradient: (dy, { a, b }, { axis }) => {
    const [first, all] = [a.shape[axis]!, a.shape[axis]! + b.shape[axis]!];
    return {
      a: () => slice(dy, { from: 0, to: first, axis }),
      b: () => slice(dy, { from: first, to: all, axis }),
    };
  },
  reference: ({ a, b }, { axis }) => {
    const [[, first], [, second]] = [rowsOf(a, axis), rowsOf(b, axis)];
    const all = first + second;
    return Float64Array.from({ length: a.data.length + b.data.length }, (_, i) => {
      const [outer, within] = [Math.floor(i / all), i % all];
      return within < first ? a.data[outer * first + within]! : b.data[outer * second + within - first]!;
    });
  },
  samples: [
    { inputs: { a: [2, 7, 5], b: [2, 7, 3] }, attrs: { axis: 2, rank: 3 } },
    { inputs: { a: [2, 3, 5], b: [2, 4, 5] }, attrs: { axis: 1, rank: 3 } },
  ],
});

/**
 * Tensors one after another along `axis`, the last by default: `[batch, length, a]`, `[batch, length, b]`, … →
 * `[batch, length, a + b + …]`.
 *
 * @throws when there are none, or another axis differs.
 */
export function concat(tensors: readonly Tensor[], { axis }: { readonly axis?: number } = {}): Tensor {
  const [first, ...rest] = tensors;
  if (first === undefined) throw new Error('concat: there are no tensors; give one or more');
  const rank = first.shape.length;
  return rest.reduce((a, b) => concatOp({ a, b }, { axis: axis ?? rank - 1, rank }), first);
}
