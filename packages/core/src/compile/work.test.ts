import { expect, test } from 'vitest';
import * as nn from '../nn/index.ts';
import { adam } from '../optim/index.ts';
import { trainStep } from '../train-step.ts';
import { build } from './compile.ts';
import { type KernelWork, stepWork } from './work.ts';

/** Two convolutions on [2, 64, 4], in two leaves, and a norm that gathers nothing. */
const model = nn.sequential({
  first: nn.conv1d({ inputs: 4, outputs: 6, size: 5 }),
  norm: nn.batchNorm({ channels: 6 }),
  activation: nn.relu,
  second: nn.conv1d({ inputs: 6, outputs: 8, size: 3 }),
});
const step = trainStep({ model, loss: nn.mseLoss, optimizer: adam({ learningRate: 1e-3 }) });
const inputs = { x: [2, 64, 4], y: [2, 64, 8] };

const products = (kernels: readonly KernelWork[], path: string, phase: string): number =>
  kernels
    .filter((kernel) => kernel.path.startsWith(path) && kernel.phase === phase)
    .reduce((sum, { multiplyAdds, leaves }) => sum + multiplyAdds * leaves, 0);

test('work counts the products of each layer and phase once', () => {
  const { kernels, gradients, state } = stepWork(step, { inputs, leaves: 2 });
  const [first, second] = [2 * 64 * 5 * 4 * 6, 2 * 64 * 3 * 6 * 8];
  expect(products(kernels, 'first', 'F')).toBe(first);
  expect(products(kernels, 'first', 'W')).toBe(first);
  expect(products(kernels, 'first', 'I')).toBe(0); // nobody asks for the gradient of x
  expect(products(kernels, '', 'F')).toBe(first + second); // the second shares its kernels with loss and activation
  expect(products(kernels, '', 'I')).toBe(second);
  expect(products(kernels, 'second', 'W')).toBe(second);
  expect(gradients['first.weight']).toBe(5 * 4 * 6);
  expect(state['optimizer/adam.m/second.weight']).toBe(3 * 6 * 8);
});

test('work knows what is kept and who reads it', () => {
  const { program } = build(step, { inputs, leaves: 2 });
  const { tensors } = stepWork(step, { inputs, leaves: 2 });
  const kept = tensors.filter((tensor) => tensor.kept).reduce((sum, { bytes }) => sum + bytes, 0);
  const { device, leaf } = program.activations!;
  expect(kept / 2).toBe(device + leaf - 4); // of one leaf, besides its loss
  const [output] = tensors.filter(({ path }) => path === 'first');
  expect(output!.bytes).toBe(2 * 64 * 6 * 4);
  expect(output!.readers).toContain('norm');
});

test('work of parts of a sequence names what they gather', () => {
  const whole = stepWork(step, { inputs });
  const parts = stepWork(step, { inputs, leavesPerSequence: 4 });
  expect(whole.gathers.filter(({ phase }) => phase === 'F')).toEqual([]);
  expect([parts.rounds, parts.leaves]).toEqual([2, 4]);
  const forward = parts.gathers.filter(({ phase }) => phase === 'F');
  expect(forward.map(({ path }) => path)).toEqual(['norm', 'first']); // moments, and the rows that the second reads
  expect(forward[0]!.segment).toBe(forward[1]!.segment);
});
