import { elementCount } from '../host-tensor.ts';
import { productFamily } from '../kernels/family.ts';
import { type MatmulGeometry, matmulPartialsChunks } from '../kernels/matmul.ts';
import { defineOp, type Reference } from '../op.ts';
import { type Spec, sameShape, shapeText, type Tensor } from '../tensor.ts';
import { sum } from './reduce.ts';

export interface MatmulOptions {
  /** a is stored as [..., k, m]. */
  readonly transposeA?: boolean;
  /** b is stored as [..., n, k]. */
  readonly transposeB?: boolean;
}

/**
 * The matrix product over the last two axes: a [..., m, k] · b [..., k, n] → [..., m, n], leading axes equal.
 * With one matrix b [k, n] for any a [..., k] it is a linear layer or a pointwise convolution: → [..., n].
 *
 * @throws when the inner sizes or the leading axes differ.
 */
export function matmul(
  a: Tensor,
  b: Tensor,
  { transposeA = false, transposeB = false }: MatmulOptions = {},
): Tensor {
  return op({ a, b }, { transposeA, transposeB, rankA: a.shape.length, rankB: b.shape.length });
}

interface Attrs extends Required<MatmulOptions> {
  readonly rankA: number;
  readonly rankB: number;
}

interface Product {
  readonly geometry: MatmulGeometry;
  readonly shape: readonly number[];
}

/** One matrix b for all rows of a: the leading axes of a are rows. */
function isShared({ transposeA, rankB }: Attrs): boolean {
  return rankB === 2 && !transposeA;
}

function productOf(a: readonly number[], b: readonly number[], attrs: Attrs): Product {
  const { transposeA, transposeB } = attrs;
  if (a.length < 2 || b.length < 2) throw misfit(a, b, 'both need two axes or more');
  const [bFirst, bLast] = b.slice(-2) as [number, number];
  const [inner, n] = transposeB ? [bLast, bFirst] : [bFirst, bLast];
  const [aFirst, aLast] = a.slice(-2) as [number, number];
  const [m, k] = transposeA ? [aLast, aFirst] : [aFirst, aLast];
  if (k !== inner) throw misfit(a, b, `the inner sizes ${k} and ${inner} must be equal`);
  if (isShared(attrs)) {
    const rows = elementCount(a.slice(0, -1));
    return { geometry: { batch: 1, m: rows, k, n, transposeB }, shape: [...a.slice(0, -1), n] };
  }
  const leading = a.slice(0, -2);
  if (!sameShape(leading, b.slice(0, -2)))
    throw misfit(
      a,
      b,
      `the leading axes ${shapeText(leading)} and ${shapeText(b.slice(0, -2))} must be equal`,
    );
  return {
    geometry: { batch: elementCount(leading), m, k, n, transposeA, transposeB },
    shape: [...leading, m, n],
  };
}

function misfit(a: readonly number[], b: readonly number[], fix: string): Error {
  return new Error(`matmul: a is ${a.join('×')} but b is ${b.join('×')}; ${fix}`);
}

/** Names of the leading axes of activations; the first is the one a batch is split along. */
function leadingAxes(count: number): string[] {
  return Array.from({ length: count }, (_, axis) => (axis === 0 ? 'batch' : `axis${axis}`));
}

function matmulAxes(attrs: Attrs): string {
  const { transposeA, transposeB, rankA } = attrs;
  if (isShared(attrs)) {
    const rows = leadingAxes(rankA - 1).join(' ');
    return `${rows} in, ${transposeB ? 'out in' : 'in out'} -> ${rows} out`;
  }
  const leading = leadingAxes(rankA - 2).join(' ');
  const a = transposeA ? 'inner rows' : 'rows inner';
  const b = transposeB ? 'columns inner' : 'inner columns';
  return `${leading} ${a}, ${leading} ${b} -> ${leading} rows columns`;
}

const op = defineOp<Attrs>()({
  name: 'matmul',
  inputs: ['a', 'b'],
  axes: matmulAxes,
  infer: ({ a, b }, attrs) => ({ shape: productOf(a.shape, b.shape, attrs).shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: ({ a, b }, _, attrs, target) =>
      productFamily(target).matmul(productOf(a.shape, b.shape, attrs).geometry),
  },
  product: true,
  linear: true,
  gradient: (dy, { a, b }, attrs) => {
    const { transposeA, transposeB } = attrs;
    const gradientOfB = (): Tensor => {
      const [left, right] = transposeB ? [dy, a] : [a, dy];
      if (isShared(attrs))
        return sum(partialsOp({ a: left, b: right }, { rank: a.shape.length }), { from: 0, to: 1 });
      return transposeB
        ? matmul(dy, a, { transposeA: true, transposeB: transposeA })
        : matmul(a, dy, { transposeA: !transposeA });
    };
    const gradientOfA = (): Tensor =>
      transposeA
        ? matmul(b, dy, { transposeA: transposeB, transposeB: true })
        : matmul(dy, b, { transposeB: !transposeB });
    return { a: gradientOfA, b: gradientOfB };
  },
  reference: ({ a, b }, attrs) => {
    const { geometry, shape } = productOf(a.shape, b.shape, attrs);
    return multiplyMatrices(a, b, geometry, new Float64Array(elementCount(shape)));
  },
  samples: [
    { inputs: { a: [13, 7], b: [7, 11] }, attrs: sampleAttrs(2, 2) },
    { inputs: { a: [7, 13], b: [7, 11] }, attrs: sampleAttrs(2, 2, { transposeA: true }) },
    { inputs: { a: [2, 37, 19], b: [19, 23] }, attrs: sampleAttrs(3, 2) },
    { inputs: { a: [3, 5, 17], b: [1, 17] }, attrs: sampleAttrs(3, 2, { transposeB: true }) },
    { inputs: { a: [3, 5, 17], b: [3, 17, 2] }, attrs: sampleAttrs(3, 3) },
    { inputs: { a: [2, 3, 17, 12], b: [2, 3, 10, 12] }, attrs: sampleAttrs(4, 4, { transposeB: true }) },
    {
      inputs: { a: [2, 17, 5], b: [2, 3, 17] },
      attrs: sampleAttrs(3, 3, { transposeA: true, transposeB: true }),
    },
  ],
});

/**
 * Partial sums [partials, m, n] of aᵀ · b over all rows: a [..., m], b [..., n]. The sum is as long as batch · length, its
 * result as small as a weight: only ranges of rows give enough independent work and short f32 sums.
 */
const partialsOp = defineOp<{ readonly rank: number }>()({
  name: 'matmulPartials',
  inputs: ['a', 'b'],
  axes: ({ rank }) => {
    const rows = leadingAxes(rank - 1).join(' ');
    return `${rows} in, ${rows} out -> + in out`;
  },
  infer: ({ a, b }) => {
    const geometry = partialsGeometry(a, b);
    return { shape: [matmulPartialsChunks(geometry), geometry.m, geometry.n], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ a, b }, _, __, target) => productFamily(target).matmulPartials(partialsGeometry(a, b)),
  },
  product: true,
  linear: true,
  reference: ({ a, b }) => {
    const geometry = partialsGeometry(a, b);
    const partials = new Float64Array(matmulPartialsChunks(geometry) * geometry.m * geometry.n);
    return multiplyMatrices(a, b, geometry, partials); // only the total matters: all of it in the first partial sum
  },
  samples: [
    { inputs: { a: [2, 37, 19], b: [2, 37, 23] }, attrs: { rank: 3 } },
    { inputs: { a: [5, 3], b: [5, 2] }, attrs: { rank: 2 } },
    { inputs: { a: [3, 1009, 2], b: [3, 1009, 1] }, attrs: { rank: 3 } },
  ],
});

function partialsGeometry(a: Pick<Spec, 'shape'>, b: Pick<Spec, 'shape'>): MatmulGeometry {
  const [rows, otherRows] = [a.shape.slice(0, -1), b.shape.slice(0, -1)];
  if (!sameShape(rows, otherRows))
    throw misfit(a.shape, b.shape, `all axes but the last must be equal to sum over them`);
  return { batch: 1, m: a.shape.at(-1)!, k: elementCount(rows), n: b.shape.at(-1)!, transposeA: true };
}

/** Float64 products added to the front of `y`. */
function multiplyMatrices(
  a: Reference,
  b: Reference,
  geometry: MatmulGeometry,
  y: Float64Array,
): Float64Array {
  const { batch, m, k, n, transposeA = false, transposeB = false } = geometry;
  for (let group = 0; group < batch; group++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let total = 0;
        for (let step = 0; step < k; step++) {
          const aAt = transposeA ? step * m + i : i * k + step;
          const bAt = transposeB ? j * k + step : step * n + j;
          total += a.data[group * m * k + aAt]! * b.data[group * k * n + bAt]!;
        }
        y[(group * m + i) * n + j] = total;
      }
    }
  }
  return y;
}

function sampleAttrs(rankA: number, rankB: number, transposes: MatmulOptions = {}): Attrs {
  return { transposeA: false, transposeB: false, ...transposes, rankA, rankB };
}
