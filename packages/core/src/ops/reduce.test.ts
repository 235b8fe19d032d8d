/** Sums of millions of values, where one run of additions in f32 would lose digits. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Device } from '../device.ts';
import { elementCount, hostTensor } from '../host-tensor.ts';
import { evaluateOn } from '../nn/golden.ts';
import { sum } from './reduce.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

// Equal values round the same way at every addition, so that errors add up.
test.each([
  [[4_000_037], 0, 1],
  [[250_007, 3], 0, 1],
  [[200_003, 20], 0, 1],
  [[3, 7_001, 700], 1, 2],
])('a sum of %s over [%i, %i) of values all alike is exact to 3e-6', async (shape, from, to) => {
  const value = Math.fround(0.1);
  const x = hostTensor(shape, new Float32Array(elementCount(shape)).fill(value));
  const { y } = await evaluateOn(device, { x }, (t) => ({ y: sum(t.x, { from, to }) }));
  const expected = value * elementCount(shape.slice(from, to));
  const worst = Math.max(...(y!.data as Float32Array).map((found) => Math.abs(found / expected - 1)));
  expect(worst).toBeLessThan(3e-6);
});
