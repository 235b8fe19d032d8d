/** What single-input models do not show of `trainStep`: records of tensors, and parameters that keep their values. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { build, type Compiled, compile } from './compile/compile.ts';
import { Device } from './device.ts';
import type { HostTensor } from './host-tensor.ts';
import { noise } from './nn/golden.ts';
import { type Layer, layer } from './nn/layer.ts';
import { linear } from './nn/linear.ts';
import { mseLoss } from './nn/loss.ts';
import { batchNorm } from './nn/norm.ts';
import { sequential } from './nn/sequential.ts';
import { add, multiply } from './ops/arithmetic.ts';
import { adam } from './optim/adam.ts';
import { sgd } from './optim/sgd.ts';
import type { Tensor } from './tensor.ts';
import { predictStep, type TrainStepOptions, trainStep } from './train-step.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

type Pair = Readonly<Record<'left' | 'right', Tensor>>;

const INPUTS = { left: [4, 3], right: [4, 5], wanted: [4, 2] };
const BATCH = { left: noise([4, 3], 1), right: noise([4, 5], 2), wanted: noise([4, 2], 3) };

/** Two linear layers on inputs of their own: their sum and what the right one gives. */
function twoArms(): Layer<Pair, Pair> {
  const arms = { left: linear({ inputs: 3, outputs: 2 }), right: linear({ inputs: 5, outputs: 2 }) };
  return layer(arms, ({ left, right }) => {
    const own = arms.right(right);
    return { left: add(arms.left(left), own), right: own };
  });
}

function options(frozen: readonly string[]): TrainStepOptions<Pair, Pair, Tensor> {
  return {
    model: twoArms(),
    frozen,
    loss: (prediction, wanted) => add(mseLoss(prediction.left, wanted), mseLoss(prediction.right, wanted)),
    optimizer: adam({ learningRate: 0.1 }),
    prepare: ({ left, right, wanted }) => ({ x: { left: left!, right: right! }, y: wanted! }),
  };
}

async function afterStep(frozen: readonly string[]): Promise<ReadonlyMap<string, HostTensor>> {
  const step: Compiled = await compile(trainStep(options(frozen)), { device, inputs: INPUTS, leaves: 2 });
  await step(BATCH);
  const state = await step.state.read();
  step.close();
  return state;
}

test('frozen parameters keep their values and have no moments; the others move as without them', async () => {
  const { state } = await compile(predictStep(options([])), { device, inputs: INPUTS });
  const [start, some, all] = [await state.read(), await afterStep(['right.*']), await afterStep([])];
  for (const name of ['weight', 'bias']) {
    expect(some.get(`right.${name}`)).toEqual(start.get(`right.${name}`));
    expect(all.get(`right.${name}`)).not.toEqual(start.get(`right.${name}`));
    expect(some.get(`left.${name}`)).not.toEqual(start.get(`left.${name}`));
    expect(some.get(`left.${name}`)).toEqual(all.get(`left.${name}`)); // bit for bit
  }
  const held = (values: typeof some): string[] =>
    [...values.keys()].filter((name) => name.includes('/right'));
  expect([held(some), held(all).length]).toEqual([[], 4]);
});

test('a frozen batch norm uses its running statistics and keeps them, and gradients pass it as in inference', async () => {
  const trained = async (norm: Layer, frozen: readonly string[]) => {
    const model = sequential({ below: linear({ inputs: 3, outputs: 2 }), norm });
    const optimizer = sgd({ learningRate: 0.1 });
    const batchNorm = { group: 'step', sequences: 2 } as const;
    const options = { model, frozen, loss: mseLoss, optimizer, batchNorm };
    const step = await compile(trainStep(options), {
      device,
      inputs: { x: [4, 3], y: [4, 2] },
      leaves: 2,
    });
    await step({ x: BATCH.left, y: BATCH.wanted });
    const state = await step.state.read();
    step.close();
    return state;
  };
  const statistics = (state: ReadonlyMap<string, HostTensor>) =>
    ['mean', 'var'].map((name) => [...(state.get(`norm.running_${name}`)?.data ?? [])]);
  const frozen = await trained(batchNorm({ channels: 2 }), ['norm.*']);
  expect(statistics(frozen)).toEqual([
    [0, 0],
    [1, 1],
  ]);
  // What a norm with mean 0, variance 1, scale 1 and shift 0 is in inference.
  const plain = await trained(
    layer({}, (x: Tensor) => multiply(x, 1 / Math.sqrt(1 + 1e-3))),
    [],
  );
  const weights = frozen.get('below.weight')!.data as Float32Array;
  for (const [i, weight] of (plain.get('below.weight')!.data as Float32Array).entries())
    expect(weights[i]).toBeCloseTo(weight, 6);
  const half = await trained(batchNorm({ channels: 2 }), ['norm.weight']); // no layer is frozen, so statistics move
  expect(statistics(half)[0]).not.toEqual([0, 0]);
});

test('a pattern of frozen parameters that fits none lists what there is', () => {
  expect(() => trainStep(options(['bias.*']))).toThrow(
    /no parameter matches 'bias\.\*'; there are left\.weight/,
  );
});

test('a model that is a plain function is refused unless it names the layer to train', () => {
  const head = linear({ inputs: 3, outputs: 2 });
  const plain = { model: (x: Tensor) => head(x), loss: mseLoss, optimizer: sgd({ learningRate: 0.1 }) };
  expect(() => trainStep(plain)).toThrow(/the model is a plain function; pass the layer .* as 'trained'/);
  expect(() => predictStep(plain)).toThrow(/the model is a plain function/);
  const { program } = build(trainStep({ ...plain, trained: head }), { inputs: { x: [4, 3], y: [4, 2] } });
  expect(program.outputs.map(({ name }) => name)).toEqual(['loss']);
});

test('a prediction that is a record has its own names', () => {
  const { program } = build(predictStep(options([])), { inputs: INPUTS });
  expect(program.outputs.map(({ name }) => name)).toEqual(['left', 'right']);
});
