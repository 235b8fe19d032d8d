import { afterAll, beforeAll, expect, test } from 'vitest';
import { Device } from '../device.ts';
import { compileSmallStep, SMALL_INPUTS, smallStep, smallStepResult } from '../testing/small-network.ts';
import { expectClose, GRADIENT_TOLERANCE } from '../testing/values.ts';
import { build } from './compile.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(async () => {
  await device.close();
});

test('without fusing there are more kernels, and the plan is another one', () => {
  const [fused, unfused] = [true, false].map((fuse) => {
    const { bitsId, segments } = build(smallStep(), { inputs: SMALL_INPUTS, fuse }).program;
    return { bitsId, kernels: segments.flatMap(({ once, leaf }) => [...once, ...leaf]).length };
  });
  expect(unfused!.kernels).toBeGreaterThan(1.3 * fused!.kernels);
  expect(unfused!.bitsId).not.toBe(fused!.bitsId);
});

test('fused and unfused kernels train alike within f32 rounding', async () => {
  const steps = [await compileSmallStep({ device }), await compileSmallStep({ device, fuse: false })];
  const [fused, unfused] = [await smallStepResult(steps[0]!), await smallStepResult(steps[1]!)];
  for (const [name, values] of Object.entries(fused))
    expectClose(name, unfused[name]!, values, GRADIENT_TOLERANCE);
  for (const step of steps) step.close();
});
