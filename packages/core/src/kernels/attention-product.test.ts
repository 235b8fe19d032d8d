import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import '../ops/attention-products.ts';
import { declaredOp } from '../op.ts';
import { asReference } from '../testing/evaluate.ts';
import { randomTensor, relativeError } from '../testing.ts';
import type { AttentionSizes } from './attention.ts';
import * as products from './attention-product.ts';
import type { ImplicitProduct } from './implicit-product.ts';
import { openRawDevice, prepareKernel, type RawDevice } from './run-kernel.ts';
import { workgroupTileKernel } from './workgroup-tile.ts';

let raw: RawDevice;
let device: GPUDevice;
beforeAll(async () => {
  raw = await openRawDevice();
  device = raw.device;
});
afterAll(() => raw.close());

const PRODUCTS: Readonly<Record<string, (sizes: AttentionSizes) => ImplicitProduct>> = {
  queryKey: products.queryKeyProduct,
  sumOverKeys: products.sumOverKeysProduct,
  sumOverQueries: products.sumOverQueriesProduct,
  relativeQueryKey: products.relativeQueryKeyProduct,
  sumOverDistances: products.sumOverDistancesProduct,
  sumByDistance: products.sumByDistanceProduct,
};

/** The sample of odd sizes, with sizes that allow four elements at a time. */
const FOURS: Readonly<Record<number, number>> = { 7: 8, 13: 15, 5: 4 };

/** A sample of the op, run as its implicit product. */
async function error(name: string, sample: number): Promise<number> {
  const op = declaredOp(name);
  const odd = op.samples![sample]!.inputs as { readonly left: number[]; readonly right: number[] };
  const wide = (shape: readonly number[]): number[] => shape.map((size) => FOURS[size] ?? size);
  const shapes = { left: wide(odd.left), right: wide(odd.right) };
  const left = randomTensor(shapes.left, { seed: 1 });
  const right = randomTensor(shapes.right, { seed: 2 });
  const expected = op.reference!({ left: asReference(left), right: asReference(right) }, {});
  const kernel = workgroupTileKernel(PRODUCTS[name]!(SIZES[sample]!), { rows: 1, columns: 1 });
  const values = { left: left.data, right: right.data } as Record<string, Float32Array<ArrayBuffer>>;
  const prepared = await prepareKernel(device, kernel, values, expected.length);
  prepared.dispatch();
  const actual = await prepared.read();
  prepared.close();
  return relativeError(actual, expected);
}

/** Of the samples, in order. */
const SIZES: readonly AttentionSizes[] = [
  { batch: 2, queries: 8, heads: 3, keys: 8, channels: 4, queryStart: '0' },
  { batch: 1, queries: 67, heads: 2, keys: 67, channels: 19, queryStart: '0' },
];

describe('products of attention on tiles in workgroup memory', () => {
  for (const name of Object.keys(PRODUCTS)) {
    it(`${name} agrees with plain loops`, async () => {
      expect(await error(name, 0)).toBeLessThan(1e-6); // at most 67 products in f32
      expect(await error(name, 1)).toBeLessThan(1e-6);
    });
  }
});
