import { afterAll, beforeAll, expect, it } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { adam } from '../optim/index.ts';
import { relativeError } from '../testing.ts';
import { trainStep } from '../train-step.ts';
import { conv1d, separableConv1d, standardizedConv1d } from './conv.ts';
import { noise } from './golden.ts';
import type { Layer } from './layer.ts';
import { mseLoss } from './loss.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const X = [4, 13, 4];
const Y = [4, 13, 8];

const LAYERS: readonly (readonly [string, () => Layer])[] = [
  ['in groups', () => conv1d({ inputs: 4, outputs: 8, size: 3, groups: 2 })],
  ['separable', () => separableConv1d({ inputs: 4, outputs: 8, size: 3 })],
  ['standardised', () => standardizedConv1d({ inputs: 4, outputs: 8, size: 3 })],
];

it.each(LAYERS)('a convolution %s learns, and its leaves add up', async (_, build) => {
  const run = async (leaves: number) => {
    const step = await compile(
      trainStep({ model: build(), loss: mseLoss, optimizer: adam({ learningRate: 0.01 }) }),
      { device, inputs: { x: X, y: Y }, leaves, seed: 3 },
    );
    const batch = { x: noise(X, 1), y: noise(Y, 2) };
    const losses: number[] = [];
    for (let i = 0; i < 8; i++) losses.push((await step(batch)).loss!.data[0] as number);
    step.close();
    return losses;
  };
  const [whole, split] = [await run(1), await run(2)];
  expect(whole.at(-1)).toBeLessThan(0.97 * whole[0]!);
  expect(relativeError(split, whole)).toBeLessThan(1e-5); // sums in another order
});
