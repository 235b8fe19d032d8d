import { elementCount } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { type Spec, sameShape, shapeText, type Tensor } from '../tensor.ts';
import { clampedRows } from './window.ts';

interface ReshapeAttrs {
  /** Sizes of the result: 0 keeps the size of x on that axis, -1 (once) is what is left. */
  readonly shape: readonly number[];
  /** Whether the axis of size -1 holds whole rows of that axis of x, or the other way round: it can then be cut. */
  readonly rows?: boolean;
}

/** Leading axes that stay as they are. */
const keptAxes = ({ shape }: ReshapeAttrs): number => shape.findIndex((size) => size !== 0);

const reshapeOp = defineOp<ReshapeAttrs>()({
  name: 'reshape',
  inputs: ['x'],
  axes: (attrs) => {
    const kept = Array.from({ length: Math.max(1, keptAxes(attrs)) }, (_, axis) => `axis${axis}`).join(' ');
    const next = attrs.rows === true ? 'rows' : '_';
    return `${kept} ${next} -> ${kept} ${next}`;
  },
  infer: ({ x }, { shape }) => {
    const count = elementCount(x.shape);
    const sizes = shape.map((size, axis) => (size === 0 ? x.shape[axis]! : size));
    const known = elementCount(sizes.filter((size) => size !== -1));
    const filled = sizes.map((size) => (size === -1 ? count / known : size));
    if (elementCount(filled) !== count || filled.some((size) => !Number.isInteger(size))) {
      throw new Error(
        `reshape: ${shapeText(x.shape)} has ${count} elements, which ${shapeText(filled)} cannot hold`,
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
    { inputs: { x: [2, 6, 12] }, attrs: { shape: [0, 0, 3, 4] } },
    { inputs: { x: [2, 6, 5, 3] }, attrs: { shape: [0, -1, 3], rows: true } },
    { inputs: { x: [2, 30, 3] }, attrs: { shape: [0, -1, 5, 3], rows: true } },
  ],
});

/** The same elements in another shape; one size may be -1. Write the leading axis as -1, so that a batch can be split. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const { shape: sizes } = reshapeOp({ x }, { shape });
  const changed = sizes.findIndex((size, axis) => size !== x.shape[axis]);
  const kept = Math.min(changed < 0 ? sizes.length : changed, x.shape.length);
  return reshapeOp(
    { x },
    { shape: kept === 0 ? shape : sizes.map((size, axis) => (axis < kept ? 0 : size)) },
  );
}

/** `[batch, rows, …, channels]` → `[batch, rows · …, channels]`, which can be cut where the rows can. */
export function flattenRows(x: Tensor): Tensor {
  return reshapeOp({ x }, { shape: [0, -1, x.shape.at(-1)!], rows: true });
}

interface SliceAttrs {
  readonly from: number;
  readonly to: number;
}

interface AlongAxis {
  readonly axis: number;
  readonly rank: number;
}

/** Axis names, with a name of its own for the axis that an op works along. */
function axesAround({ axis, rank }: AlongAxis, own: string): string {
  return Array.from({ length: rank }, (_, i) => (i === axis ? own : i === 0 ? 'batch' : `axis${i}`)).join(
    ' ',
  );
}

/** Rows of the axis are moved, each to one place. */
const movedRows = (attrs: AlongAxis): string =>
  `${axesAround(attrs, 'rows~')} -> ${axesAround(attrs, 'rows')}`;

/** Elements in one row of the axis, and in all rows of it. */
function rowsOf({ shape }: Pick<Spec, 'shape'>, axis: number): readonly [row: number, rows: number] {
  return [elementCount(shape.slice(axis + 1)), elementCount(shape.slice(axis))];
}

const sliceOp = defineOp<SliceAttrs & AlongAxis>()({
  name: 'slice',
  inputs: ['x'],
  axes: movedRows,
  reads: (_, attrs, [from, to]) => ({
    rows: { x: [attrs.from + from, attrs.from + to] },
    attrs: { ...attrs, from: 0, to: to - from },
  }),
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
  /** Rows of zeros before x. */
  readonly before: number;
  /** Rows of the result. */
  readonly rows: number;
}

const padOp = defineOp<PadAttrs & AlongAxis>()({
  name: 'pad',
  inputs: ['x'],
  axes: movedRows,
  reads: ({ x }, attrs, [from, to]) => {
    const read = clampedRows([from - attrs.before, to - attrs.before], x.shape[attrs.axis]!);
    return { rows: { x: read }, attrs: { ...attrs, before: attrs.before - from + read[0], rows: to - from } };
  },
  infer: ({ x }, { rows, axis }) => ({ shape: x.shape.with(axis, rows), dtype: x.dtype }),
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
  reference: ({ x }, { before, rows, axis }) => {
    const [inner, all] = rowsOf(x, axis);
    return Float64Array.from({ length: (x.data.length / all) * rows * inner }, (_, i) => {
      const row = (Math.floor(i / inner) % rows) - before;
      const isInside = row >= 0 && row * inner < all;
      return isInside ? x.data[Math.floor(i / (inner * rows)) * all + row * inner + (i % inner)]! : 0;
    });
  },
  samples: [
    { inputs: { x: [2, 7, 3] }, attrs: { before: 2, rows: 12, axis: 1, rank: 3 } },
    { inputs: { x: [2, 3, 5, 7] }, attrs: { before: 0, rows: 8, axis: 3, rank: 4 } },
    { inputs: { x: [2, 3, 5, 7] }, attrs: { before: 2, rows: 7, axis: 2, rank: 4 } },
  ],
});

export interface PadOptions {
  /** Rows of zeros before x, and after it. */
  readonly before: number;
  readonly after: number;
  readonly axis?: number;
}

/**
 * x with rows of zeros around it along `axis`, 1 by default: the transpose of `slice`.
 *
 * @throws when there is no such axis, or rows are fewer than 0.
 */
export function pad(x: Tensor, { before, after, axis = 1 }: PadOptions): Tensor {
  if (axis >= x.shape.length || before < 0 || after < 0) {
    throw new Error(
      `pad: ${before} and ${after} rows along axis ${axis} of ${shapeText(x.shape)}; the axis must exist, rows be ≥ 0`,
    );
  }
  return padOp({ x }, { before, rows: before + x.shape[axis]! + after, axis, rank: x.shape.length });
}

/** x [batch, height, width, channels] without its outer `crop` rows and columns on every side. */
export function crop2d(x: Tensor, { crop }: { readonly crop: number }): Tensor {
  const rows = slice(x, { from: crop, to: x.shape[1]! - crop });
  return slice(rows, { from: crop, to: x.shape[2]! - crop, axis: 2 });
}

const concatOp = defineOp<AlongAxis>()({
  name: 'concat',
  inputs: ['a', 'b'],
  axes: (attrs) => {
    const names = axesAround(attrs, '_');
    return `${names}, ${names} -> ${names}`;
  },
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
