import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import { type HostTensor, hostTensor } from '../host-tensor.ts';
import { constant } from '../parameter.ts';
import type { Safetensors } from '../safetensors.ts';
import type { Tensor } from '../tensor.ts';
import { relativeError } from '../testing.ts';
import { evaluateOn, noise, opFixtures, parametersOf } from './golden.ts';
import {
  bceProbabilities,
  bceWithLogits,
  clampedPoissonLoss,
  fullPoissonLoss,
  type Loss,
  mseLoss,
  mseUdotLoss,
  poissonLoss,
  poissonMultinomialLoss,
} from './loss.ts';

let device: Device;
let fixtures: Safetensors;
beforeAll(async () => {
  device = await Device.open();
  fixtures = await opFixtures();
});
afterAll(() => device.close());

async function lossAndGradient(loss: Loss, prediction: HostTensor, target: HostTensor) {
  const out = await evaluateOn(device, { prediction, target }, (inputs) => {
    const value = loss(inputs.prediction, inputs.target);
    const [gradient] = gradients(value, constant(1), [inputs.prediction]);
    return { value, gradient: gradient! };
  });
  return {
    shape: out.value!.shape,
    value: Number(out.value!.data[0]),
    gradient: out.gradient!.data as Float32Array,
  };
}

const CASES: readonly (readonly [name: string, prediction: string, loss: Loss])[] = [
  ['loss_poisson_keras', 'pred', poissonLoss],
  ['loss_poisson_full_stirling', 'pred', fullPoissonLoss],
  ['loss_poisson_lucid', 'pred', clampedPoissonLoss],
  ['loss_mse', 'pred', mseLoss],
  ['loss_mse_udot', 'pred', mseUdotLoss],
  ['loss_bce_logits_mean', 'logits', bceWithLogits],
  ['loss_bce_logits_sum', 'logits', (p, t) => bceWithLogits(p, t, { reduction: 'sum' })],
  ['loss_bce_keras_probs', 'prob', bceProbabilities],
  ...(['basenji', 'baskerville'] as const).flatMap((form) =>
    [0.2, 1].map((totalWeight): readonly [string, string, Loss] => [
      `loss_poisson_multinomial_${form}_tw${totalWeight.toFixed(1)}`,
      'pred',
      (p, t) => poissonMultinomialLoss(p, t, { form, totalWeight }),
    ]),
  ),
];

test.each(CASES)('golden %s is met', async (name, key, loss) => {
  const at = (path: string): HostTensor => fixtures.tensors.get(`${name}/${path}`)!;
  const { shape, value, gradient } = await lossAndGradient(loss, at(`in/${key}`), at('in/target'));
  expect(shape).toEqual([]);
  const expected = Number(at('out/y').data[0]);
  expect(Math.abs(value - expected) / Math.abs(expected)).toBeLessThan(1e-5);
  expect(relativeError(gradient, at(`grad/${key}`).data as Float32Array)).toBeLessThan(1e-4);
});

// Expected: baskerville's formula in NumPy, in float64; an even length has no position in its middle.
test.each([
  [9, 1, 2.879678918019674],
  [8, 1, 2.6508832084382274],
  [8, 4, 2.6508832084382274],
])(
  "Borzoi's loss of %i positions in %i parts weights the middle as baskerville does",
  async (length, parts, loss) => {
    const shape = [2, length, 2];
    const step = ({ p, t }: Readonly<Record<string, Tensor>>): Record<string, Tensor> => ({
      loss: poissonMultinomialLoss(p!, t!, { totalWeight: 0.2, weights: { range: 8, exponent: 6 } }),
    });
    const cut = parts === 1 ? {} : { leavesPerSequence: parts };
    const compiled = await compile(step, { device, inputs: { p: shape, t: shape }, ...cut });
    const out = await compiled({
      p: Float32Array.from({ length: 4 * length }, (_, i) => 0.5 + (i % 7) * 0.3),
      t: Float32Array.from({ length: 4 * length }, (_, i) => (i * 5) % 4),
    });
    compiled.close();
    expect(Math.abs(Number(out.loss!.data[0]) / loss - 1)).toBeLessThan(1e-6);
  },
);

test('logits of ±40 give finite losses and saturated gradients', async () => {
  const logits = hostTensor([1, 4], [40, 40, -40, -40]);
  const { value, gradient } = await lossAndGradient(bceWithLogits, logits, hostTensor([1, 4], [1, 0, 1, 0]));
  expect(value).toBeCloseTo(20, 4);
  expect(relativeError(gradient, [0, 0.25, -0.25, 0])).toBeLessThan(1e-6);
});

test('a predicted rate of 0 gives a finite loss and gradient', async () => {
  const prediction = hostTensor([1, 1, 2], [0, 0]);
  const { value, gradient } = await lossAndGradient(poissonLoss, prediction, hostTensor([1, 1, 2], [0, 3]));
  expect(value).toBeCloseTo((-3 * Math.log(1e-7)) / 2, 3);
  expect(relativeError(gradient, [0.5, (1 - 3e7) / 2])).toBeLessThan(1e-5);
});

describe('split over leaves', () => {
  test.each(CASES)('%s adds up to the loss of the whole batch', async (_name, _key, loss) => {
    const shape = [6, 5, 3];
    const step = ({ p, t }: Readonly<Record<string, Tensor>>): Record<string, Tensor> => ({
      loss: loss(p!, t!),
    });
    const run = async (leaves: number): Promise<number> => {
      const compiled = await compile(step, { device, inputs: { p: shape, t: shape }, leaves });
      const out = await compiled({ p: noise(shape, 1, [0.1, 0.9]), t: noise(shape, 2, [0, 1]) });
      compiled.close();
      return Number(out.loss!.data[0]);
    };
    const [whole, split] = [await run(1), await run(3)];
    expect(Math.abs(split / whole - 1)).toBeLessThan(1e-6);
  });
});

test('unequal shapes are refused with both', () => {
  const { p, t } = parametersOf({ p: noise([2, 3], 1), t: noise([3, 2], 1) });
  expect(() => poissonLoss(p!, t!)).toThrow(/prediction is \[2, 3\] but the target is \[3, 2\]/);
});
