/** Compositions for contact maps, where no single op's tests reach. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import { hostTensor } from '../host-tensor.ts';
import { asTensors, evaluateOnDevice } from '../testing/evaluate.ts';
import { randomTensor } from '../testing/values.ts';
import { maxPool2d } from './pool.ts';
import { augmentTriangle, reverseTriangle, trianglePairs, upperTriangular } from './triangle.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

it('max-pooling of a map gives ties to the first element, rows before columns, and drops the rest', async () => {
  // Windows: 5 5 / 5 1 has its first maximum at (0, 0), 1 2 / 2 0 at (0, 1).
  const { x } = asTensors({ x: hostTensor([1, 3, 5, 1], [5, 5, 1, 2, 9, 5, 1, 2, 0, 9, 9, 9, 9, 9, 9]) });
  const { seed } = asTensors({ seed: hostTensor([1, 1, 2, 1], [3, 4]) });
  const y = maxPool2d(x!, { size: 2 });
  expect(y.shape).toEqual([1, 1, 2, 1]);
  const [dx] = gradients(y, seed!, [x!]);
  const result = await evaluateOnDevice(device, { y, dx: dx! });
  expect([...result.y!]).toEqual([5, 2]);
  expect([...result.dx!]).toEqual([3, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
});

it.each([
  [12, 2],
  [7, 0],
  [5, 4],
])('a triangle of %i bins from diagonal %i turns around with its map', async (length, offset) => {
  const order = reverseTriangle(length, { offset });
  expect(order.length).toBe(trianglePairs(length, { offset }));
  expect(Array.from(order, (k) => order[k])).toEqual(Array.from(order, (_, k) => k));
  const map = randomTensor([1, length, length, 1], { seed: 5 });
  const data = map.data as Float32Array;
  // A symmetric map, whose mirror image has the same triangle.
  const symmetric = data.map((_, i) => {
    const [row, column] = [Math.floor(i / length), i % length];
    return data[Math.min(row, column) * length + Math.max(row, column)]!;
  });
  const { x, turned } = asTensors({
    x: hostTensor(map.shape, symmetric),
    turned: hostTensor(map.shape, symmetric.toReversed()),
  });
  const { augment } = asTensors({ augment: hostTensor([1, 2], [1, 0]) });
  const vector = upperTriangular(x!, { offset });
  const result = await evaluateOnDevice(device, {
    vector,
    flipped: upperTriangular(turned!, { offset }),
    augmented: augmentTriangle(vector, augment!),
  });
  expect([...result.augmented!]).toEqual([...result.flipped!]);
  expect([...result.flipped!]).toEqual(Array.from(order, (k) => result.vector![k]));
});

it('a triangle that no pair is in says so', () => {
  const { x } = asTensors({ x: hostTensor([1, 2, 2, 1], [1, 2, 3, 4]) });
  expect(() => upperTriangular(x!, { offset: 2 })).toThrow('length > offset ≥ 0');
  const { vector, augment } = asTensors({
    vector: hostTensor([1, 5, 1], [1, 2, 3, 4, 5]),
    augment: hostTensor([1, 2], [1, 0]),
  });
  expect(() => augmentTriangle(vector!, augment!)).toThrow('2 and 3 rows have 3 and 6');
});
