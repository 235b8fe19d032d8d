import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  adam,
  type Compiled,
  compile,
  Device,
  type HostTensor,
  initialState,
  nn,
  readSafetensors,
  type Traceable,
  trainStep,
  withScope,
} from '@cohesin/core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { fromGolden } from './golden.ts';
import { type GoldenCase, goldenInputs } from './golden-case.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

/** The tensors under a prefix, without it. */
function under(tensors: ReadonlyMap<string, HostTensor>, prefix: string): Map<string, HostTensor> {
  const found = [...tensors].filter(([name]) => name.startsWith(prefix));
  return new Map(found.map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}

const FIXTURES = fileURLToPath(new URL('../../../test/fixtures/models', import.meta.url));
async function read(name: string): Promise<{ golden: GoldenCase; tensors: Map<string, HostTensor> }> {
  const { tensors, metadata } = await readSafetensors(join(FIXTURES, `${name}_public.safetensors`));
  return { golden: fromGolden(JSON.parse(metadata.config!)), tensors };
}

const weightsOf = (tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor> =>
  new Map([...under(tensors, 'weight/'), ...under(tensors, 'buffer/')]);

/** Outputs and losses of a fixture's model in inference mode. */
function evaluation({ predict, outputs, extra, loss }: GoldenCase): Traceable {
  return (inputs) =>
    withScope({ training: false }, () => {
      const prediction = predict(inputs);
      const values = { ...(outputs?.(prediction, inputs) ?? prediction), ...extra?.(prediction, inputs) };
      return { ...values, loss: loss(prediction, inputs) };
    });
}

const shapesOf = (inputs: Readonly<Record<string, HostTensor>>): Record<string, readonly number[]> =>
  Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [name, shape]));

function worst(found: HostTensor, expected: HostTensor): number {
  const [a, b] = [found.data as Float32Array, expected.data as Float32Array];
  expect(a.length).toBe(b.length);
  const largest = b.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0) / largest;
}

async function run(
  name: string,
): Promise<{ found: Record<string, HostTensor>; tensors: Map<string, HostTensor> }> {
  const { golden, tensors } = await read(name);
  const inputs = goldenInputs(tensors);
  const weights = golden.weights.toCohesin(weightsOf(tensors));
  const step: Compiled = await compile(evaluation(golden), { device, inputs: shapesOf(inputs) });
  step.state.write(new Map([...weights].filter(([path]) => step.state.has(path))));
  const found = await step(inputs);
  step.close();
  return { found, tensors };
}

// 2e-5: the gate for f32 against float64 that torch's own f32 passes with 2e-6.
test('Basset gives the logits, probabilities and loss of the reference', async () => {
  const { found, tensors } = await run('basset');
  expect(worst(found.logit!, tensors.get('eval_output/logit')!)).toBeLessThan(2e-5);
  expect(worst(found.prob!, tensors.get('eval_output/prob')!)).toBeLessThan(2e-5);
  expect(worst(found.loss!, tensors.get('eval_loss')!)).toBeLessThan(1e-5);
});

test('Basenji2 gives the predictions and losses of the reference', async () => {
  const { found, tensors } = await run('basenji2');
  expect(worst(found.pred!, tensors.get('eval_output/pred')!)).toBeLessThan(2e-5);
  expect(worst(found.loss!, tensors.get('eval_loss')!)).toBeLessThan(1e-5);
  for (const name of [
    'eval_loss_poisson_multinomial_basenji_w1',
    'eval_loss_poisson_multinomial_baskerville_w02',
  ])
    expect(worst(found[name]!, tensors.get(`extra/${name}`)!)).toBeLessThan(1e-5);
});

test.each(['basenji1', 'akita', 'borzoi'])(
  '%s gives the predictions and loss of the reference',
  async (name) => {
    const { found, tensors } = await run(name);
    expect(worst(found.pred!, tensors.get('eval_output/pred')!)).toBeLessThan(2e-5);
    expect(worst(found.loss!, tensors.get('eval_loss')!)).toBeLessThan(1e-5);
  },
);

test('Enformer gives the predictions of both heads and the loss of the reference', async () => {
  const { found, tensors } = await run('enformer');
  for (const head of ['human', 'mouse'])
    expect(worst(found[head]!, tensors.get(`eval_output/${head}`)!)).toBeLessThan(2e-5);
  expect(worst(found.loss!, tensors.get('eval_loss')!)).toBeLessThan(1e-5);
});

test.each(['bpnet_lite', 'bpnet_basepair', 'bpnet_orig', 'chrombpnet'])(
  '%s gives the profiles, counts and losses of the reference',
  async (name) => {
    const { found, tensors } = await run(name);
    const outputs = [...under(tensors, 'eval_output/')];
    expect(outputs).toHaveLength(4);
    for (const [output, expected] of outputs) expect(worst(found[output]!, expected)).toBeLessThan(2e-5);
    expect(worst(found.loss!, tensors.get('eval_loss')!)).toBeLessThan(1e-5);
  },
);

test("Basenji2 in mixed precision follows the reference's losses under Adam within 0.1 %", async () => {
  const { golden, tensors } = await read('basenji2');
  const batch = goldenInputs(tensors);
  const training = trainStep({
    model: golden.predict,
    trained: golden.model,
    loss: golden.loss,
    prepare: (inputs) => ({ x: inputs, y: inputs }),
    optimizer: adam({ learningRate: 1e-3 }),
    batchNorm: { group: 'step', sequences: 1 },
  });
  const step = await compile(training, { device, inputs: shapesOf(batch), precision: 'mixed' });
  step.state.write(golden.weights.toCohesin(weightsOf(tensors)));
  for (const expected of tensors.get('loss_curve_adam')!.data as Float64Array) {
    const found = (await step(batch)).loss!.data[0] as number;
    expect(Math.abs(found / expected - 1)).toBeLessThan(1e-3); // f16 has 11 bits: 5e-4 for one rounding
  }
  step.close();
});

test.each(['basset', 'basenji2', 'basenji1', 'akita', 'bpnet_lite', 'chrombpnet'])(
  'weights of %s are the same after a round trip',
  async (name) => {
    const { golden, tensors } = await read(name);
    const published = weightsOf(tensors);
    expect(golden.weights.fromCohesin(golden.weights.toCohesin(published))).toEqual(published);
    const own = initialState(nn.parameters(golden.model), 7);
    expect(golden.weights.toCohesin(golden.weights.fromCohesin(own))).toEqual(own);
    expect(golden.weights.trainable.toCohesin(under(tensors, 'grad/')).size).toBe(
      under(tensors, 'weight/').size,
    );
  },
);

test('weights that do not fit are listed, and none is loaded', async () => {
  const { golden, tensors } = await read('basset');
  const weights = weightsOf(tensors);
  weights.delete('conv.1.weight');
  weights.delete('out.bias');
  weights.set('conv.3.weight', weights.get('conv.2.weight')!);
  weights.set('fc.0.bias', weights.get('fc.1.bias')!);
  const message = String(
    await Promise.resolve()
      .then(() => golden.weights.toCohesin(weights))
      .catch((error) => error),
  );
  expect(message).toContain('missing conv.1.weight [20, 24, 11]');
  expect(message).toContain('missing out.bias [16]');
  expect(message).toContain('fc.0.bias is [48] but the model has [64]');
  expect(message).toContain('unexpected conv.3.weight');
});

test('a convolution weight changes places as PyTorch has it', async () => {
  const { golden, tensors } = await read('basset');
  const weights = weightsOf(tensors);
  const published = weights.get('conv.1.weight')!.data;
  const own = golden.weights.toCohesin(weights).get('convolutions.1.conv.weight')!;
  const [outs, ins, sizes] = [20, 24, 11];
  expect(own.shape).toEqual([sizes, ins, outs]);
  expect(own.data[(3 * ins + 5) * outs + 7]).toBe(published[(7 * ins + 5) * sizes + 3]);
  expect(outs * ins * sizes).toBe(own.data.length);
});

test('an unknown model lists the known ones', () => {
  expect(() => fromGolden({ model: 'basset2' })).toThrow(
    /expected one of akita, basset, basenji2, .*found "basset2"/,
  );
});
