/** Maps of pairs of bins, [batch, height, width, channels]: from a sequence of bins, with their distance, made symmetric. */
import { defineOp, type MapSite, type Rows } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { add, multiply } from './arithmetic.ts';
import { declarePair } from './curve.ts';
import { permute } from './permute.ts';
import { repeat, sum } from './reduce.ts';
import { greater, where } from './select.ts';
import { slice } from './shape.ts';

export type PairOperation = 'mean' | 'max' | 'multiply';

/**
 * A map of all pairs of rows: x [batch, length, channels] → y [batch, length, length, channels], where y[b, i, j] is
 * the mean, the larger or the product of x[b, i] and x[b, j] (basenji's OneToTwo). NaN counts as the larger; where both
 * are equal the gradient of `max` goes to x[b, i].
 *
 * @throws when x does not have three axes.
 */
export function oneToTwo(x: Tensor, { operation }: { readonly operation: PairOperation }): Tensor {
  return pairOp({ rows: x, columns: x }, { operation });
}

/**
 * One more channel that holds |i − j|, the distance in bins: x [batch, height, width, channels] →
 * [batch, height, width, channels + 1] (basenji's ConcatDist2D, not normalised).
 */
export function concatDistance2d(x: Tensor): Tensor {
  return distanceOp({ x }, {});
}

/** The mean of a map and its mirror image: x [batch, length, length, channels] → (x + xᵀ) / 2. */
export function symmetrize2d(x: Tensor): Tensor {
  checkMap('symmetrize2d', x);
  return multiply(add(x, permute(x, [0, 2, 1, 3])), 0.5);
}

interface PairAttrs {
  readonly operation: PairOperation;
}

const PAIR: Readonly<Record<PairOperation, (row: number, column: number) => number>> = {
  mean: (row, column) => (row + column) / 2,
  max: (row, column) => Math.max(row, column),
  multiply: (row, column) => row * column,
};

/** Rows and columns are two inputs, so that a device can hold a few rows and all columns. */
const pairOp = defineOp<PairAttrs>()({
  name: 'oneToTwo',
  inputs: ['rows', 'columns'],
  axes: 'batch height channels, batch width channels -> batch height width channels',
  infer: ({ rows, columns }) => {
    const [batch, height, channels] = rows.shape as [number, number, number];
    if (rows.shape.length !== 3 || columns.shape[0] !== batch || columns.shape[2] !== channels) {
      throw new Error(
        `oneToTwo: rows are ${shapeText(rows.shape)} and columns ${shapeText(columns.shape)}; both must be [batch, length, channels] with the same batch and channels`,
      );
    }
    return { shape: [batch, height, columns.shape[1]!, channels], dtype: 'f32' };
  },
  kernel: {
    kind: 'map',
    index: (input, _, { i, y }) => {
      const [, height, width, channels] = y.shape as [number, number, number, number];
      const row = `${i} / ${width * channels}u`; // of all rows of the batch
      return input === 'rows'
        ? `${row} * ${channels}u + ${i} % ${channels}u`
        : `${row} / ${height}u * ${width * channels}u + ${i} % ${width * channels}u`;
    },
    expression: ({ rows, columns }, { operation }) =>
      ({
        mean: `((${rows} + ${columns}) * 0.5)`,
        max: `pair_maximum(${rows}, ${columns})`,
        multiply: `(${rows} * ${columns})`,
      })[operation],
    declarations: () => declarePair('maximum', 'max(a, b)'),
  },
  gradient: (dy, { rows, columns }, { operation }, y) => {
    const row = repeat(rows, y, { from: 2, to: 3 }); // [batch, height, width, channels]
    const column = repeat(columns, y, { from: 1, to: 2 });
    const { ofRow, ofColumn } = slopes(operation, dy, row, column);
    return {
      rows: () => sum(ofRow, { from: 2, to: 3 }),
      columns: () => sum(ofColumn, { from: 1, to: 2 }),
    };
  },
  reference: ({ rows, columns }, { operation }) => {
    const [batch, height, channels] = rows.shape as [number, number, number];
    const width = columns.shape[1]!;
    return Float64Array.from({ length: batch * height * width * channels }, (_, i) => {
      const row = Math.floor(i / (width * channels));
      const column = Math.floor(row / height) * width + (Math.floor(i / channels) % width);
      const channel = i % channels;
      return PAIR[operation](
        rows.data[row * channels + channel]!,
        columns.data[column * channels + channel]!,
      );
    });
  },
  samples: (['mean', 'max', 'multiply'] as const).map((operation) => ({
    inputs: { rows: [2, 7, 3], columns: [2, 5, 3] },
    attrs: { operation },
  })),
});

function slopes(
  operation: PairOperation,
  dy: Tensor,
  row: Tensor,
  column: Tensor,
): { readonly ofRow: Tensor; readonly ofColumn: Tensor } {
  switch (operation) {
    case 'mean':
      return { ofRow: multiply(dy, 0.5), ofColumn: multiply(dy, 0.5) };
    case 'max': {
      const later = greater(column, row);
      return { ofRow: where(later, 0, dy), ofColumn: where(later, dy, 0) };
    }
    case 'multiply':
      return { ofRow: multiply(dy, column), ofColumn: multiply(dy, row) };
  }
}

interface DistanceAttrs {
  /** Which rows of the whole map these are; all of them if not given. */
  readonly own?: Rows;
}

/** WGSL of the row of the whole map behind element `i`. */
function mapRow({ i, y }: MapSite, own: Rows | undefined): string {
  const [, height, width, channels] = y.shape as [number, number, number, number];
  const row = `${i} / ${width * channels}u % ${height}u`;
  return own === undefined ? row : `u32(${own.start} + i32(frame.leaf) * ${own.size} + i32(${row}))`;
}

const distanceOp = defineOp<DistanceAttrs>()({
  name: 'concatDistance2d',
  inputs: ['x'],
  axes: 'batch height _ _ -> batch height _ _',
  atRows: (_, own) => ({ own }),
  infer: ({ x }) => {
    checkMap('concatDistance2d', x);
    return { shape: x.shape.with(3, x.shape[3]! + 1), dtype: 'f32' };
  },
  kernel: {
    kind: 'map',
    index: (_, __, { i, y }) => {
      const channels = y.shape[3]! - 1;
      return `${i} / ${channels + 1}u * ${channels}u + min(${i} % ${channels + 1}u, ${channels - 1}u)`;
    },
    expression: ({ x }, { own }, site) => {
      const [, , width, channels] = site.y.shape as [number, number, number, number];
      const column = `${site.i} / ${channels}u % ${width}u`;
      const distance = `f32(abs(i32(${mapRow(site, own)}) - i32(${column})))`;
      return `select(${x}, ${distance}, ${site.i} % ${channels}u == ${channels - 1}u)`;
    },
  },
  gradient: (dy, { x }) => ({ x: () => slice(dy, { from: 0, to: x.shape[3]!, axis: 3 }) }),
  reference: ({ x }) => {
    const [batch, height, width, channels] = x.shape as [number, number, number, number];
    return Float64Array.from({ length: batch * height * width * (channels + 1) }, (_, i) => {
      const [pair, channel] = [Math.floor(i / (channels + 1)), i % (channels + 1)];
      if (channel < channels) return x.data[pair * channels + channel]!;
      return Math.abs((Math.floor(pair / width) % height) - (pair % width));
    });
  },
  samples: [
    { inputs: { x: [2, 7, 5, 3] }, attrs: {} },
    { inputs: { x: [1, 3, 11, 1] }, attrs: {} },
  ],
});

function checkMap(name: string, x: Spec): void {
  if (x.shape.length === 4) return;
  throw new Error(`${name}: x is ${shapeText(x.shape)}; it must be [batch, height, width, channels]`);
}
