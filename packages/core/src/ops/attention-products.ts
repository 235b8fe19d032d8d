/**
 * The matrix products of attention, over tensors that keep their heads behind the position. Each is linear in both of
 * its operands. Queries may be a part of the sequence; keys are always whole.
 *
 * Where a tensor has a distance instead of a key, distance r stands for the pairs of query i and key j with
 * j − i = r − (keys − 1), positions in the whole sequence.
 */
import { elementCount } from '../host-tensor.ts';
import type { KernelBody } from '../kernel.ts';
import * as registers from '../kernels/attention.ts';
import * as products from '../kernels/attention-product.ts';
import type { ImplicitProduct } from '../kernels/implicit-product.ts';
import { workgroupTileKernel } from '../kernels/workgroup-tile.ts';
import { defineOp, type Named, type OpCall, type Reference, type Rows } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { permute } from './permute.ts';

interface Attrs {
  /** Which queries of the sequence are at hand, if not all. */
  readonly own?: Rows;
}

const WHOLE: Attrs = {};

const AXES = ['batch', 'query', 'head', 'key', 'channel', 'distance'] as const;
type Axis = (typeof AXES)[number];
type Sizes = Readonly<Record<Axis, number>>;
type Layout = readonly Axis[];

const QUERIES: Layout = ['batch', 'query', 'head', 'channel'];
const KEYS: Layout = ['batch', 'key', 'head', 'channel'];
const KEY_COLUMNS: Layout = ['batch', 'head', 'channel', 'key'];
const LOGITS: Layout = ['batch', 'query', 'head', 'key'];
const DISTANCES: Layout = ['distance', 'head', 'channel'];
const DISTANCE_COLUMNS: Layout = ['head', 'channel', 'distance'];

type Operands = readonly ['left', 'right'];

interface Product {
  readonly left: Layout;
  readonly right: Layout;
  readonly result: Layout;
  /** For software drivers. */
  readonly kernel: (sizes: registers.AttentionSizes) => KernelBody;
  /** For GPUs. */
  readonly product: (sizes: registers.AttentionSizes) => ImplicitProduct;
  readonly gradient?: (dy: Tensor, inputs: Named<Operands, Tensor>) => Named<Operands, () => Tensor>;
}

const SAMPLES: readonly Sizes[] = [
  { batch: 2, query: 7, head: 3, key: 7, channel: 5, distance: 13 },
  { batch: 1, query: 67, head: 2, key: 67, channel: 19, distance: 133 }, // larger than a tile
];

function defineProduct(name: string, product: Product): OpCall<Operands, Attrs> {
  const { left, right, result, kernel, gradient } = product;
  const byDistance = [left, right, result].some((layout) => layout.includes('distance'));
  // Keys and distances stay whole where the one depends on the other.
  const axes = (layout: Layout): string =>
    layout.map((axis) => (byDistance && (axis === 'key' || axis === 'distance') ? '_' : axis)).join(' ');
  const position = result.indexOf('query');
  const shape = (layout: Layout, sizes: Sizes): number[] => layout.map((axis) => sizes[axis]);
  return defineOp<Attrs>()({
    name,
    inputs: ['left', 'right'],
    axes: [`${axes(left)}, ${axes(right)}`, axes(result)].join(' -> '),
    ...(byDistance
      ? { atRows: (attrs: Attrs, rows: Rows) => (rows.axis === position ? { own: rows } : attrs) }
      : {}),
    infer: (specs, attrs) => ({ shape: shape(result, sizesOf(name, product, specs, attrs)), dtype: 'f32' }),
    kernel: {
      kind: 'shader',
      body: (specs, _, attrs, target) => {
        const { batch, query, head, key, channel } = sizesOf(name, product, specs, attrs);
        const { own } = attrs;
        const queryStart = own === undefined ? '0' : `(${own.start} + i32(frame.leaf) * ${own.size})`;
        const sizes = { batch, queries: query, heads: head, keys: key, channels: channel, queryStart };
        return target.kind === 'software' ? kernel(sizes) : workgroupTileKernel(product.product(sizes));
      },
    },
    linear: true,
    ...(gradient === undefined ? {} : { gradient }),
    reference: (inputs, attrs) => sumOfProducts(product, inputs, sizesOf(name, product, inputs, attrs)),
    samples: SAMPLES.map((sizes) => ({
      inputs: { left: shape(left, sizes), right: shape(right, sizes) },
      attrs: WHOLE,
    })),
  });
}

function sizesOf(
  name: string,
  { left, right }: Product,
  shapes: Named<Operands, Pick<Spec, 'shape'>>,
  { own }: Attrs,
): Sizes {
  const misfit = (): Error =>
    new Error(
      `${name}: ${shapeText(shapes.left.shape)} and ${shapeText(shapes.right.shape)} must be [${left.join(', ')}] and [${right.join(', ')}] with equal sizes, as many queries as keys and 2 · keys − 1 distances`,
    );
  if (shapes.left.shape.length !== left.length || shapes.right.shape.length !== right.length) throw misfit();
  const found = new Map<Axis, number>(left.map((axis, i) => [axis, shapes.left.shape[i]!]));
  right.forEach((axis, i) => {
    const size = shapes.right.shape[i]!;
    if ((found.get(axis) ?? size) !== size) throw misfit();
    found.set(axis, size);
  });
  const key = found.get('key') ?? (found.get('distance')! + 1) / 2;
  const distance = found.get('distance') ?? 2 * key - 1;
  const relative = [left, right].some((layout) => layout.includes('distance'));
  if (relative && (distance !== 2 * key - 1 || (own?.length ?? found.get('query')) !== key)) throw misfit();
  const size = (axis: Axis): number => found.get(axis) ?? 1;
  return {
    batch: size('batch'),
    query: size('query'),
    head: size('head'),
    key,
    channel: size('channel'),
    distance,
  };
}

/** result += left · right over all batches, queries, heads, keys and channels. */
function sumOfProducts(
  { left, right, result }: Product,
  inputs: Named<Operands, Reference>,
  sizes: Sizes,
): Float64Array {
  const strides = [left, right, result].map((layout) =>
    AXES.map((axis) => {
      const at = layout.indexOf(axis);
      return at < 0 ? 0 : elementCount(layout.slice(at + 1).map((inner) => sizes[inner]));
    }),
  );
  const y = new Float64Array(elementCount(result.map((axis) => sizes[axis])));
  const looped = [sizes.batch, sizes.query, sizes.head, sizes.key, sizes.channel];
  for (let i = 0; i < elementCount(looped); i++) {
    let rest = i;
    const at = looped.toReversed().map((size) => {
      const position = rest % size;
      rest = Math.floor(rest / size);
      return position;
    });
    const [channel, key, head, query, batch] = at as [number, number, number, number, number];
    const distance = key - query + sizes.key - 1;
    const place = [batch, query, head, key, channel, distance];
    const [l, r, o] = strides.map((stride) =>
      stride.reduce((sum, step, axis) => sum + step * place[axis]!, 0),
    );
    y[o!]! += inputs.left.data[l!]! * inputs.right.data[r!]!;
  }
  return y;
}

const queryKeyOp = defineProduct('queryKey', {
  left: QUERIES,
  right: KEY_COLUMNS,
  result: LOGITS,
  kernel: registers.queryKeyKernel,
  product: products.queryKeyProduct,
  gradient: (dy, { left, right }) => ({
    left: () => sumOverKeysOp({ left: dy, right: permute(right, [0, 3, 1, 2]) }, WHOLE),
    right: () => permute(sumOverQueriesOp({ left: dy, right: left }, WHOLE), [0, 2, 3, 1]),
  }),
});

const sumOverKeysOp = defineProduct('sumOverKeys', {
  left: LOGITS,
  right: KEYS,
  result: QUERIES,
  kernel: registers.sumOverKeysKernel,
  product: products.sumOverKeysProduct,
  gradient: (dy, { left, right }) => ({
    left: () => queryKeyOp({ left: dy, right: permute(right, [0, 2, 3, 1]) }, WHOLE),
    right: () => sumOverQueriesOp({ left, right: dy }, WHOLE),
  }),
});

const sumOverQueriesOp = defineProduct('sumOverQueries', {
  left: LOGITS,
  right: QUERIES,
  result: KEYS,
  kernel: registers.sumOverQueriesKernel,
  product: products.sumOverQueriesProduct,
});

const relativeQueryKeyOp = defineProduct('relativeQueryKey', {
  left: QUERIES,
  right: DISTANCE_COLUMNS,
  result: LOGITS,
  kernel: registers.relativeQueryKeyKernel,
  product: products.relativeQueryKeyProduct,
  gradient: (dy, { left, right }) => ({
    left: () => sumOverDistancesOp({ left: dy, right: permute(right, [2, 0, 1]) }, WHOLE),
    right: () => permute(sumByDistanceOp({ left: dy, right: left }, WHOLE), [1, 2, 0]),
  }),
});

const sumOverDistancesOp = defineProduct('sumOverDistances', {
  left: LOGITS,
  right: DISTANCES,
  result: QUERIES,
  kernel: registers.sumOverDistancesKernel,
  product: products.sumOverDistancesProduct,
});

const sumByDistanceOp = defineProduct('sumByDistance', {
  left: LOGITS,
  right: QUERIES,
  result: DISTANCES,
  kernel: registers.sumByDistanceKernel,
  product: products.sumByDistanceProduct,
});

/** q [batch, query, head, channel] · k [batch, head, channel, key] → [batch, query, head, key]. */
export function queryKey(q: Tensor, k: Tensor): Tensor {
  return queryKeyOp({ left: q, right: k }, WHOLE);
}

/** q [batch, query, head, channel] · k [head, channel, distance], each at the distance of its key → [batch, query, head, key]. */
export function relativeQueryKey(q: Tensor, k: Tensor): Tensor {
  return relativeQueryKeyOp({ left: q, right: k }, WHOLE);
}

/** w [batch, query, head, key] · v [batch, key, head, channel] → [batch, query, head, channel]. */
export function sumOverKeys(w: Tensor, v: Tensor): Tensor {
  return sumOverKeysOp({ left: w, right: v }, WHOLE);
}

/** w [batch, query, head, key] and q [batch, query, head, channel] → [batch, key, head, channel]. */
export function sumOverQueries(w: Tensor, q: Tensor): Tensor {
  return sumOverQueriesOp({ left: w, right: q }, WHOLE);
}

/** w [batch, query, head, key] · k [distance, head, channel] → [batch, query, head, channel]. */
export function sumOverDistances(w: Tensor, k: Tensor): Tensor {
  return sumOverDistancesOp({ left: w, right: k }, WHOLE);
}

/** w [batch, query, head, key] and q [batch, query, head, channel] → [distance, head, channel]. */
export function sumByDistance(w: Tensor, q: Tensor): Tensor {
  return sumByDistanceOp({ left: w, right: q }, WHOLE);
}
