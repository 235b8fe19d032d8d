/** Training in mixed precision stays beside f32 on the models' fixtures, within what rounding to f16 explains. */
import { fileURLToPath } from 'node:url';
import { Device, readSafetensors } from '@cohesin/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bandsOf, compareMixed } from './golden/src/mixed.ts';
import { setupOf } from './golden/src/model.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const FIXTURES = fileURLToPath(new URL('fixtures/models/', import.meta.url));
const FIRST_SCALE = 2 ** 16;

// The other models, and 30 steps, by `npm run bench -- --only mixed`: their kernels take longer to compile. BPNet's losses
// are sums over positions, whose gradients overflow under the first loss scale.
test.each([
  ['basset', FIRST_SCALE],
  ['bpnet_lite', FIRST_SCALE / 64],
  ['chrombpnet', FIRST_SCALE / 16],
])('losses of %s stay within the band of f16, and no step is lost', async (model, scale) => {
  const fixture = await readSafetensors(`${FIXTURES}${model}_public.safetensors`);
  const { f32, mixed, bands, scales, still, vanished } = await compareMixed(
    fixture,
    setupOf(fixture, device),
    { steps: 10 },
  );
  const shares = mixed.map((loss, step) => Math.abs(loss - f32[step]!) / bands[step]!);
  expect(Math.max(...shares)).toBeLessThan(1);
  expect(mixed).not.toEqual(f32);
  const afterLostStep = f32.slice(1).map((loss, i) => Math.abs(f32[i]! - loss) / bands[i + 1]!);
  expect(Math.min(...afterLostStep.slice(0, 2))).toBeGreaterThan(10); // the band would show it
  expect(scales.every((one) => one === scale)).toBe(true);
  expect(still.flat()).toEqual([]);
  expect(vanished).toBeLessThan(1e-3);
});

test('the band is √n times the most that a nudge of one rounding has done so far', () => {
  const nudged = [
    [4, 2.5, 3.1],
    [4, 1.5, 2.9],
  ];
  expect(bandsOf([4, 2, 3], nudged, 9)).toEqual([0, 1.5, 1.5]);
});
