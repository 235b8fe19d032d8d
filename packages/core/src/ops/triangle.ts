/** The upper triangle of a map of pairs as a vector, and its order. */
import { defineOp } from '../op.ts';
import { sameShape, shapeText, type Tensor } from '../tensor.ts';
import { perElement } from './per-element.ts';

export interface TriangleOptions {
  /** Diagonals left out, the main one first: 2 begins at |i − j| = 2. */
  readonly offset: number;
}

/**
 * Pairs at least `offset` bins apart, as basenji's UpperTri: x [batch, length, length, channels] → [batch, pairs, channels].
 * With (r, c) the k-th pair of `numpy.triu_indices(length, offset)`, rows first, element k is x[b, c, r]: the mirror
 * image, which is the same on a symmetric map.
 *
 * @throws when the map is not square, or no pair is that far apart.
 */
export function upperTriangular(x: Tensor, { offset }: TriangleOptions): Tensor {
  return triangleOp({ x }, { offset });
}

/** Number of pairs i ≤ j of `length` bins with j − i ≥ offset. */
export function trianglePairs(length: number, { offset }: TriangleOptions): number {
  const rows = length - offset;
  return (rows * (rows + 1)) / 2;
}

/**
 * The order of a triangle vector under reverse complement: element k of the flipped vector is element `order[k]` of the
 * vector, because both axes of the map turn around.
 */
export function reverseTriangle(length: number, { offset }: TriangleOptions): Uint32Array {
  const order = new Uint32Array(trianglePairs(length, { offset }));
  let k = 0;
  for (let row = 0; row < length - offset; row++)
    for (let column = row + offset; column < length; column++)
      order[k++] = pairIndex(length - offset, length - 1 - column, column - row - offset);
  return order;
}

/**
 * The targets that belong to `augmentSequence` where they are the triangle of a map: targets [batch, pairs, tracks],
 * augment [batch, 2] → [batch, pairs, tracks], in the order of `reverseTriangle` where a sequence is reverse-complemented.
 * A shift leaves targets as they are.
 *
 * @throws when no triangle has as many pairs.
 */
export function augmentTriangle(targets: Tensor, augment: Tensor): Tensor {
  return augmentOp({ targets, augment }, undefined);
}

/** Index of the pair (row, row + offset + beyond) where the first row has `rows` pairs. */
const pairIndex = (rows: number, row: number, beyond: number): number =>
  (row * (2 * rows - row + 1)) / 2 + beyond;

/**
 * `triangle_row(k, rows)`, the row that pair k is in, found by halving: all in whole numbers, where a square root would
 * have to be corrected. Rows are fewer than 2¹⁵, so that products fit in 32 bits.
 */
const TRIANGLE = `fn triangle_start(row: u32, rows: u32) -> u32 { return row * (2u * rows - row + 1u) / 2u; }
fn triangle_row(k: u32, rows: u32) -> u32 {
  var row = 0u;
  for (var step = 16384u; step > 0u; step >>= 1u) {
    let next = row + step;
    if (next < rows && triangle_start(next, rows) <= k) { row = next; }
  }
  return row;
}
fn triangle_reversed(k: u32, rows: u32) -> u32 {
  let row = triangle_row(k, rows);
  let beyond = k - triangle_start(row, rows);
  return triangle_start(rows - 1u - row - beyond, rows) + beyond;
}
fn triangle_source(k: u32, rows: u32, length: u32, offset: u32) -> u32 {
  let row = triangle_row(k, rows);
  let column = row + offset + (k - triangle_start(row, rows));
  return column * length + row;
}
fn triangle_place(row: u32, column: u32, rows: u32, offset: u32) -> u32 {
  return triangle_start(row, rows) + column - row - offset;
}`;
const MAX_ROWS = 32_768;

const triangleOp = defineOp<TriangleOptions>()({
  name: 'upperTriangular',
  inputs: ['x'],
  axes: 'batch _ _ channels -> batch _ channels',
  infer: ({ x }, { offset }) => {
    const [batch, height, width, channels] = x.shape as [number, number, number, number];
    if (x.shape.length !== 4 || height !== width || offset < 0 || offset >= height || height > MAX_ROWS) {
      throw new Error(
        `upperTriangular: x is ${shapeText(x.shape)} and offset ${offset}; x must be [batch, length, length, channels] with length > offset ≥ 0 and length ≤ ${MAX_ROWS}`,
      );
    }
    return { shape: [batch, trianglePairs(height, { offset }), channels], dtype: 'f32' };
  },
  kernel: {
    kind: 'map',
    index: (_, { offset }, { i, y, specs }) => {
      const [, pairs, channels] = y.shape as [number, number, number];
      const length = specs.x!.shape[1]!;
      const pair = `${i} / ${channels}u % ${pairs}u`;
      const place = `triangle_source(${pair}, ${length - offset}u, ${length}u, ${offset}u)`;
      return `(${i} / ${pairs * channels}u * ${length * length}u + ${place}) * ${channels}u + ${i} % ${channels}u`;
    },
    expression: ({ x }) => x,
    declarations: () => TRIANGLE,
  },
  linear: true,
  gradient: (dy, { x }, { offset }) => ({ x: () => gradientOp({ dy }, { offset, length: x.shape[1]! }) }),
  reference: ({ x }, { offset }) => {
    const y: number[] = [];
    forEachPair(x.shape, offset, (at) => y.push(x.data[at]!));
    return Float64Array.from(y);
  },
  samples: [
    { inputs: { x: [2, 9, 9, 3] }, attrs: { offset: 2 } },
    { inputs: { x: [3, 5, 5, 1] }, attrs: { offset: 0 } },
    { inputs: { x: [1, 37, 37, 4] }, attrs: { offset: 11 } },
    { inputs: { x: [2, 4, 4, 5] }, attrs: { offset: 3 } },
  ],
});

/** Every element of the map takes the element of the vector that came from it, or 0. */
const gradientOp = defineOp<TriangleOptions & { readonly length: number }>()({
  name: 'upperTriangularGradient',
  inputs: ['dy'],
  axes: 'batch _ channels -> batch _ _ channels',
  infer: ({ dy }, { length }) => ({ shape: [dy.shape[0]!, length, length, dy.shape[2]!], dtype: 'f32' }),
  kernel: {
    kind: 'map',
    index: (_, { offset, length }, { i, specs }) => {
      const [, pairs, channels] = specs.dy!.shape as [number, number, number];
      const { row, column } = mirrored(i, length, channels);
      // Outside the triangle the value is not used: any place inside will do.
      const inside = `min(${row}, ${length - 1 - offset}u), max(${column}, min(${row}, ${length - 1 - offset}u) + ${offset}u)`;
      const place = `triangle_place(${inside}, ${length - offset}u, ${offset}u)`;
      return `(${i} / ${length * length * channels}u * ${pairs}u + ${place}) * ${channels}u + ${i} % ${channels}u`;
    },
    expression: ({ dy }, { offset, length }, { i, y }) => {
      const { row, column } = mirrored(i, length, y.shape[3]!);
      return `select(0.0, ${dy}, ${column} >= ${row} + ${offset}u)`;
    },
    declarations: () => TRIANGLE,
  },
  linear: true,
  gradient: (ddx, _, { offset }) => ({ dy: () => upperTriangular(ddx, { offset }) }),
  reference: ({ dy }, { offset, length }) => {
    const shape = [dy.shape[0]!, length, length, dy.shape[2]!];
    const dx = new Float64Array(shape.reduce((a, b) => a * b));
    let k = 0;
    forEachPair(shape, offset, (at) => {
      dx[at] = dy.data[k++]!;
    });
    return dx;
  },
  samples: [
    { inputs: { dy: [2, 28, 3] }, attrs: { offset: 2, length: 9 } },
    { inputs: { dy: [3, 15, 1] }, attrs: { offset: 0, length: 5 } },
    { inputs: { dy: [2, 1, 4] }, attrs: { offset: 3, length: 4 } },
  ],
});

/** Rows of the triangle with this many pairs. */
function triangleRows(pairs: number): number {
  return (Math.sqrt(8 * pairs + 1) - 1) / 2;
}

const augmentOp = defineOp()({
  name: 'augmentTriangle',
  inputs: ['targets', 'augment'],
  axes: 'batch _ tracks, batch _ -> batch _ tracks',
  infer: ({ targets, augment }) => {
    const [batch, pairs] = targets.shape as [number, number];
    if (targets.shape.length !== 3 || !sameShape(augment.shape, [batch, 2])) {
      throw new Error(
        `augmentTriangle: targets is ${shapeText(targets.shape)} and augment ${shapeText(augment.shape)}; they must be [batch, pairs, tracks] and [batch, 2]`,
      );
    }
    if (Number.isInteger(triangleRows(pairs))) return { shape: targets.shape, dtype: 'f32' };
    const rows = Math.floor(triangleRows(pairs));
    throw new Error(
      `augmentTriangle: targets has ${pairs} pairs, but triangles of ${rows} and ${rows + 1} rows have ${trianglePairs(rows, { offset: 0 })} and ${trianglePairs(rows + 1, { offset: 0 })}; give the whole triangle`,
    );
  },
  kernel: {
    kind: 'shader',
    body: ({ targets }, y) => {
      const [, pairs, tracks] = targets.shape as [number, number, number];
      const text = `
        let pair = i / ${tracks}u % ${pairs}u;
        let batch = i / ${pairs * tracks}u;
        let mirrored = triangle_reversed(pair, ${triangleRows(pairs)}u);
        let place = select(mirrored, pair, load_augment(2u * batch) == 0.0);
        store(i, load_targets((batch * ${pairs}u + place) * ${tracks}u + i % ${tracks}u));`;
      return perElement(y, text, TRIANGLE);
    },
  },
  reference: ({ targets, augment }) => {
    const [, pairs, tracks] = targets.shape as [number, number, number];
    const order = reverseTriangle(triangleRows(pairs), { offset: 0 });
    return targets.data.map((value, i) => {
      const [batch, pair] = [Math.floor(i / (pairs * tracks)), Math.floor(i / tracks) % pairs];
      if (augment.data[2 * batch] === 0) return value;
      return targets.data[(batch * pairs + order[pair]!) * tracks + (i % tracks)]!;
    });
  },
  samples: [
    {
      inputs: { targets: [5, 28, 3], augment: [5, 2] },
      attrs: undefined,
      range: { augment: [0, 2] },
      integers: ['augment'],
    },
  ],
});

/** WGSL of row and column of the pair behind element `i` of a map: the map holds the mirror image of the triangle. */
function mirrored(i: string, length: number, channels: number): { row: string; column: string } {
  return {
    row: `(${i} / ${channels}u % ${length}u)`,
    column: `(${i} / ${length * channels}u % ${length}u)`,
  };
}

/** Calls `visit` with the flat index into a map for every element of the vector, in the vector's order. */
function forEachPair(shape: readonly number[], offset: number, visit: (at: number) => void): void {
  const [batch, length, , channels] = shape as [number, number, number, number];
  for (let b = 0; b < batch; b++)
    for (let row = 0; row < length - offset; row++)
      for (let column = row + offset; column < length; column++)
        for (let channel = 0; channel < channels; channel++)
          visit(((b * length + column) * length + row) * channels + channel);
}
