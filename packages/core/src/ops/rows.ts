/**
 * What the shard pass puts in where a sequence is cut into row leaves. `frame.leaf` is the part of the sequence. Rows
 * outside the whole axis do not exist and read as zeros. None of these ops is ever differentiated.
 */
import { elementCount } from '../host-tensor.ts';
import { defineOp, type Edges, type MapSite, type OpCall, type PartEdges, type Rows } from '../op.ts';
import type { Spec, Tensor } from '../tensor.ts';
import { reshape } from './shape.ts';

/** Rows before and after a part's own; negative to leave some of its own out. */
export interface Margins {
  readonly left: number;
  readonly right: number;
}

/** Sizes before and after the axis. */
function around(shape: readonly number[], axis: number): { readonly outer: number; readonly inner: number } {
  return { outer: elementCount(shape.slice(0, axis)), inner: elementCount(shape.slice(axis + 1)) };
}

interface OwnAttrs extends Rows, Margins {}

/** WGSL of the row of the whole axis behind output element i, as i32. */
function globalRow({ i, y }: MapSite, { axis, start, size, left }: OwnAttrs): string {
  const { inner } = around(y.shape, axis);
  return `(i32(${i} / ${inner}u % ${y.shape[axis]}u) + ${start - left} + i32(frame.leaf) * ${size})`;
}

const isInside = (row: string, { length }: Rows): string => `(${row} >= 0 && ${row} < ${length})`;
const clampedTo = (row: string, { length }: Rows): string => `u32(clamp(${row}, 0, ${length - 1}))`;

function withMargins({ shape }: Spec, { axis, size, left, right }: OwnAttrs): Spec {
  return { shape: shape.with(axis, left + size + right), dtype: 'f32' };
}

const ownOp = defineOp<OwnAttrs>()({
  name: 'ownRows',
  inputs: ['x'],
  infer: ({ x }, attrs) => withMargins(x, attrs),
  kernel: {
    kind: 'map',
    index: (_, attrs, site) => {
      const { inner } = around(site.y.shape, attrs.axis);
      const outer = `${site.i} / ${inner * site.y.shape[attrs.axis]!}u * ${attrs.length}u`;
      return `(${outer} + ${clampedTo(globalRow(site, attrs), attrs)}) * ${inner}u + ${site.i} % ${inner}u`;
    },
    expression: ({ x }, attrs, site) => `select(0.0, ${x}, ${isInside(globalRow(site, attrs), attrs)})`,
  },
});

/** A part's own rows, with margins, of x that every part holds whole; zeros outside x. */
export function ownRows(x: Tensor, rows: Rows, margins: Margins = { left: 0, right: 0 }): Tensor {
  return ownOp({ x }, { ...rows, ...margins });
}

/** The rows of each part that others need for margins: all of them where margins reach over whole parts. */
export function marginsNeeded({ left, right }: Margins, { size }: Rows): Edges {
  const head = Math.min(Math.max(right, 0), size);
  const tail = Math.min(Math.max(left, 0), size);
  return head + tail >= size ? { head: size, tail: 0 } : { head, tail };
}

/** WGSL of the row of a part of `size` rows behind a row of its edges. */
export function rowOfEdge(row: string, size: number, { head, tail }: Edges): string {
  return tail === 0 ? row : `(${row} + select(0u, ${size - head - tail}u, ${row} >= ${head}u))`;
}

interface EdgeAttrs extends Rows, Edges {}

const edgesOp = defineOp<EdgeAttrs>()({
  name: 'edgeRows',
  inputs: ['x'],
  infer: ({ x }, { axis, head, tail }) => ({ shape: x.shape.with(axis, head + tail), dtype: 'f32' }),
  kernel: {
    kind: 'view',
    index: (i, x, y, { axis, size, ...edges }) => {
      const { inner } = around(x.shape, axis);
      const from = rowOfEdge(`(${i} / ${inner}u % ${y.shape[axis]}u)`, size, edges);
      return `(${i} / ${inner * y.shape[axis]!}u * ${size}u + ${from}) * ${inner}u + ${i} % ${inner}u`;
    },
  },
});

/** The first and last rows of a part. */
export function edgeRows(x: Tensor, rows: Rows, edges: Edges): Tensor {
  return edgesOp({ x }, { ...rows, ...edges });
}

interface ExtendAttrs extends OwnAttrs, PartEdges {}

/** WGSL of the index into the gathered edges `[parts, …, head + tail, …]` of the row behind element i. */
function edgeIndex(site: MapSite, attrs: ExtendAttrs): string {
  const { axis, start, size, head, tail, first } = attrs;
  const { outer, inner } = around(site.y.shape, axis);
  const row = `(${clampedTo(globalRow(site, attrs), attrs)} - u32(${start + first * size}))`;
  const inPart = `i32(${row} % ${size}u)`;
  const place =
    tail === 0
      ? inPart
      : `select(${inPart}, max(${inPart} - ${size - head - tail}, 0), ${inPart} >= ${head})`;
  const outerIndex = `(${site.i} / ${inner * site.y.shape[axis]!}u)`;
  return `((${row} / ${size}u * ${outer}u + ${outerIndex}) * ${head + tail}u + u32(${place})) * ${inner}u + ${site.i} % ${inner}u`;
}

const extendOp = defineOp<ExtendAttrs>()({
  name: 'extendRows',
  inputs: ['x', 'edges'],
  infer: ({ x }, attrs) => withMargins(x, attrs),
  kernel: {
    kind: 'map',
    cheap: false,
    stored: ['edges'],
    index: (input, attrs, site) => {
      if (input === 'edges') return edgeIndex(site, attrs);
      const { axis, left, size } = attrs;
      const { inner } = around(site.y.shape, axis);
      const rows = site.y.shape[axis]!;
      const row = `u32(clamp(i32(${site.i} / ${inner}u % ${rows}u) - ${left}, 0, ${size - 1}))`;
      return `(${site.i} / ${inner * rows}u * ${size}u + ${row}) * ${inner}u + ${site.i} % ${inner}u`;
    },
    expression: ({ x, edges }, attrs, site) => {
      const { axis, left, size } = attrs;
      const row = `(${site.i} / ${around(site.y.shape, axis).inner}u % ${site.y.shape[axis]}u)`;
      const isOwn = `(${row} >= ${Math.max(left, 0)}u && ${row} < ${left + size}u)`;
      return `select(0.0, select(${edges}, ${x}, ${isOwn}), ${isInside(globalRow(site, attrs), attrs)})`;
    },
  },
});

/**
 * A part's rows with margins from the parts around it, however many they reach over; zeros outside the sequence.
 * `edges` are those of all parts that hold rows of x, from part `first` on: `[parts, …, head + tail, …]`.
 */
export function extendRows(x: Tensor, edges: Tensor, rows: Rows, margins: Margins & PartEdges): Tensor {
  return extendOp({ x, edges }, { ...rows, ...margins });
}

const maskedOp = defineOp<OwnAttrs>()({
  name: 'maskRows',
  inputs: ['x'],
  infer: ({ x }, attrs) => withMargins(x, attrs),
  kernel: {
    kind: 'map',
    index: (_, { axis, left, size }, { i, y }) => {
      const { inner } = around(y.shape, axis);
      const rows = y.shape[axis]!;
      return `(${i} / ${inner * rows}u * ${size}u + ${i} / ${inner}u % ${rows}u + ${-left}u) * ${inner}u + ${i} % ${inner}u`;
    },
    expression: ({ x }, attrs, site) => `select(0.0, ${x}, ${isInside(globalRow(site, attrs), attrs)})`,
  },
});

/** A part's own rows, without some at the ends; zeros where they are outside the sequence. */
export function maskRows(x: Tensor, rows: Rows, margins: Margins): Tensor {
  return maskedOp({ x }, { ...rows, ...margins });
}

/** Parts' rows `[1, …, size, …]`, gathered as `[parts, …, size, …]`, in the order of the whole axis. */
const joinOp = defineOp<{ readonly axis: number }>()({
  name: 'joinRows',
  inputs: ['x'],
  infer: ({ x }, { axis }) => {
    const shape = [1, ...x.shape.slice(1)].with(axis, x.shape[0]! * x.shape[axis]!);
    return { shape, dtype: x.dtype };
  },
  kernel: {
    kind: 'view',
    index: (i, x, y, { axis }) => {
      const { outer, inner } = around(y.shape, axis);
      const [size, rows] = [x.shape[axis]!, y.shape[axis]!];
      const row = `(${i} / ${inner}u % ${rows}u)`;
      const place = `(${row} / ${size}u * ${outer}u + ${i} / ${inner * rows}u) * ${size}u + ${row} % ${size}u`;
      return `(${place}) * ${inner}u + ${i} % ${inner}u`;
    },
  },
});

/** The whole axis, of pieces of all parts: `[parts, …, size, …]` → `[1, …, parts · size, …]`. */
export function joinRows(pieces: Tensor, axis: number): Tensor {
  const [parts, ...rest] = pieces.shape as [number, ...number[]];
  if (elementCount(pieces.shape.slice(1, axis)) > 1) return joinOp({ x: pieces }, { axis });
  return reshape(pieces, [1, ...rest].with(axis, parts * pieces.shape[axis]!));
}

interface Tiling {
  readonly axis: number;
  /** Of the sequence. */
  readonly parts: number;
}

const tilesOp = defineOp<Tiling>()({
  name: 'tileRows',
  inputs: ['x'],
  infer: ({ x }, { axis, parts }) => {
    return { shape: [parts, ...x.shape.slice(1)].with(axis, x.shape[axis]! / parts), dtype: x.dtype };
  },
  kernel: {
    kind: 'view',
    index: (i, x, y, { axis }) => {
      const { outer, inner } = around(x.shape, axis);
      const [size, rows] = [y.shape[axis]!, x.shape[axis]!];
      const row = `${i} / ${outer * size * inner}u * ${size}u + ${i} / ${inner}u % ${size}u`;
      return `(${i} / ${size * inner}u % ${outer}u * ${rows}u + ${row}) * ${inner}u + ${i} % ${inner}u`;
    },
  },
});

/** The rows of another axis than a part's own, which it holds whole, by the part they go to: `[1, …]` → `[parts, …]`. */
export function tileRows(x: Tensor, tiling: Tiling): Tensor {
  return tilesOp({ x }, tiling);
}

const joinTilesOp = defineOp<Tiling>()({
  name: 'joinTiles',
  inputs: ['x'],
  infer: ({ x }, { axis, parts }) => {
    return { shape: [1, ...x.shape.slice(1)].with(axis, x.shape[axis]! * parts), dtype: 'f32' };
  },
  kernel: {
    kind: 'map',
    index: (_, { axis, parts }, { i, y }) => {
      const { outer, inner } = around(y.shape, axis);
      const rows = y.shape[axis]!;
      const size = rows / parts;
      const row = `(${i} / ${inner}u % ${rows}u)`;
      const tile = `(${row} / ${size}u * ${parts}u + frame.leaf)`;
      const outerIndex = `${i} / ${inner * rows}u`;
      return `((${tile} * ${outer}u + ${outerIndex}) * ${size}u + ${row} % ${size}u) * ${inner}u + ${i} % ${inner}u`;
    },
    expression: ({ x }) => x,
  },
});

/** The tiles that go to this part, one of each: `[parts · parts, …]` → `[1, …]`; what was cut along `axis` is whole. */
export function joinTiles(tiles: Tensor, tiling: Tiling): Tensor {
  return joinTilesOp({ x: tiles }, tiling);
}

/** Values that parts hold together, one row a sequence, of all sequences of the step: `[1, …]` → `[sequences, …]`. */
export const gatherSequences: OpCall<readonly ['x'], { readonly sequences: number }> = defineOp<{
  readonly sequences: number;
}>()({
  name: 'gatherSequences',
  inputs: ['x'],
  infer: ({ x }, { sequences }) => ({ shape: [sequences, ...x.shape.slice(1)], dtype: x.dtype }),
  kernel: { kind: 'exchange', exchange: 'combine' },
});
