import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compile, type Traceable } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { type HostTensor, hostTensor } from '../host-tensor.ts';
import { evaluateOn, opFixtures, parametersOf } from '../nn/golden.ts';
import { leafSum } from '../ops/leaf-sum.ts';
import { sum } from '../ops/reduce.ts';
import { reshape } from '../ops/shape.ts';
import { input } from '../parameter.ts';
import type { Safetensors } from '../safetensors.ts';
import { relativeError } from '../testing.ts';
import { trace } from '../trace.ts';
import {
  adam,
  adamw,
  clipAdaptive,
  clipGlobalNorm,
  clipPerVariable,
  constantRate,
  cyclical1,
  deepmindWarmUp,
  type Optimizer,
  type OptimizerOptions,
  rmsprop,
  sgd,
  warmUp,
  warmUpCosine,
} from './index.ts';

let device: Device;
let fixtures: Safetensors;
beforeAll(async () => {
  device = await Device.open();
  fixtures = await opFixtures();
});
afterAll(() => device.close());

type Case = readonly [name: string, optimizer: Optimizer, transposed?: boolean];

const learningRate = 0.01;
// The fixture's max-norm case keeps its weight as [out, in]; ours are [in, out], so it is transposed.
const CASES: readonly Case[] = [
  ['sgd_plain', sgd({ learningRate })],
  ['sgd_momentum', sgd({ learningRate, momentum: 0.9 })],
  ['sgd_momentum', sgd({ learningRate, momentum: 0.9, form: 'keras' })],
  ['sgd_nesterov', sgd({ learningRate, momentum: 0.9, nesterov: true })],
  ['sgd_nesterov', sgd({ learningRate, momentum: 0.9, nesterov: true, form: 'keras' })],
  [
    'sgd_keras_changing_lr',
    sgd({ learningRate: (step) => (0.01 * (step + 1)) / 5, momentum: 0.99, form: 'keras' }),
  ],
  ['sgd_clip_per_variable', sgd({ learningRate, momentum: 0.99, clip: clipPerVariable(0.5) })],
  ['adam_eps1e-8', adam({ learningRate })],
  ['adam_keras_eps1e-7', adam({ learningRate, form: 'keras' })],
  ['adam_basenji1', adam({ learningRate, beta1: 0.97, beta2: 0.98, epsilon: 1e-8, form: 'keras' })],
  ['adam_clip_global_norm', adam({ learningRate, clip: clipGlobalNorm(0.2) })],
  ['adam_l2', adam({ learningRate, l2: 0.01 })],
  ['adamw', adamw({ learningRate, weightDecay: 0.01 })],
  ['rmsprop_torch7', rmsprop({ learningRate, alpha: 0.98 })],
  ['rmsprop_max_row_norm', rmsprop({ learningRate, alpha: 0.98, maxNorm: 2 }), true],
];

test.each(CASES.map((one) => [one[0], one] as const))(
  'golden optim/%s is met for five steps',
  async (name, one) => {
    const [, optimizer, transposed = false] = one;
    const at = (path: string): HostTensor => {
      const tensor = fixtures.tensors.get(`optim/${path}`)!;
      return transposed ? transpose(tensor) : tensor;
    };
    const parameters = parametersOf({ w: at('in/w'), b: at('in/b') });
    const step = updateStep(optimizer, Object.values(parameters));
    const inputs = Object.fromEntries(
      Object.values(parameters).map(({ name, shape }) => [name, [1, ...shape]]),
    );
    const compiled = await compile(step, { device, inputs });
    for (let i = 0; i < 5; i++) {
      const before = await compiled.state.read(['w', 'b']);
      await compiled({ w: at(`in/grad${i}_w`).data, b: at(`in/grad${i}_b`).data });
      const after = await compiled.state.read(['w', 'b']);
      for (const key of ['w', 'b']) {
        const error = relativeError(values(after.get(key)!), values(at(`out/${name}/step${i + 1}/${key}`)));
        expect(error).toBeLessThan(1e-6);
        expect(values(after.get(key)!)).not.toEqual(values(before.get(key)!));
      }
    }
    compiled.close();
  },
);

test('the ridge penalty of a parameter is added to its gradient, as PyTorch adds 2 · l2 as weight decay', async () => {
  const at = (path: string): HostTensor => fixtures.tensors.get(`optim/${path}`)!;
  const parameters = Object.values(parametersOf({ w: at('in/w'), b: at('in/b') }));
  for (const parameter of parameters) parameter.l2 = 0.005;
  const inputs = Object.fromEntries(parameters.map(({ name, shape }) => [name, [1, ...shape]]));
  const compiled = await compile(updateStep(adam({ learningRate }), parameters), { device, inputs });
  await compiled({ w: at('in/grad0_w').data, b: at('in/grad0_b').data });
  const after = await compiled.state.read(['w', 'b']);
  for (const key of ['w', 'b'])
    expect(relativeError(values(after.get(key)!), values(at(`out/adam_l2/step1/${key}`)))).toBeLessThan(1e-6);
  compiled.close();
});

// Expected: adaptive_clip_grad of baskerville's trainer in NumPy, its units those of Keras' kernels.
test.each([
  [[3], [-0.1581139, -0.07905694, 0]],
  [
    [2, 3],
    [-0.2, -0.1, 0, 0.1, 0.2, 0.1767767],
  ],
  [
    [2, 2, 3],
    [-0.0559017, -0.0559017, 0, 0.1, 0.2, 0.1040063, 0.1118034, -0.1118034, -0.1, 0, 0.1, 0.06933752],
  ],
  [
    [2, 2, 1, 3],
    [-0.2, -0.1, 0, 0.1, 0.2, 0.2454951, 0.4, -0.2, -0.08183171, 0, 0.1, 0.1636634],
  ],
])('gradients %j are clipped by the length of their units of weights', async (shape, expected) => {
  const values = (value: (i: number) => number): HostTensor =>
    hostTensor(
      shape,
      Float32Array.from(expected, (_, i) => value(i)),
    );
  const found = await evaluateOn(
    device,
    { w: values((i) => (i % 5) * 0.25 - 0.25), g: values((i) => (i % 7) * 0.1 - 0.2) },
    ({ w, g }) => ({ clipped: clipAdaptive(0.5)([g], [w])[0]! }),
  );
  expect(relativeError(found.clipped!.data as Float32Array, expected)).toBeLessThan(1e-6);
});

describe('a factor of the learning rate', () => {
  const at = (path: string): HostTensor => fixtures.tensors.get(`optim/${path}`)!;
  const stepped = async (optimizer: Optimizer): Promise<ReadonlyMap<string, HostTensor>> => {
    const parameters = Object.values(parametersOf({ w: at('in/w'), b: at('in/b') }));
    const inputs = Object.fromEntries(parameters.map(({ name, shape }) => [name, [1, ...shape]]));
    const compiled = await compile(updateStep(optimizer, parameters), { device, inputs });
    for (const i of [0, 1]) await compiled({ w: at(`in/grad${i}_w`).data, b: at(`in/grad${i}_b`).data });
    const state = await compiled.state.read(['w', 'b']);
    compiled.close();
    return state;
  };

  const OPTIMIZERS: readonly (readonly [string, (options: OptimizerOptions) => Optimizer])[] = [
    ['sgd with momentum', (options) => sgd({ ...options, momentum: 0.9 })],
    ['adamw', (options) => adamw({ ...options, weightDecay: 0.01 })],
    ['adam as in Keras', (options) => adam({ ...options, form: 'keras' })],
    ['rmsprop', rmsprop],
  ];
  // A quarter is exact in f32, so both ways to it agree in every bit.
  test.each(OPTIMIZERS)('changes the parameters it names, and no other, under %s', async (_, make) => {
    const some = await stepped(make({ learningRate, rateFactors: { 'w*': 0.25 } }));
    const [all, quarter] = [
      await stepped(make({ learningRate })),
      await stepped(make({ learningRate: learningRate / 4 })),
    ];
    expect(some.get('w')).toEqual(quarter.get('w'));
    expect(some.get('w')).not.toEqual(all.get('w'));
    expect(some.get('b')).toEqual(all.get('b'));
  });

  test('that is 0 or names nothing is refused', () => {
    const parameters = Object.values(parametersOf({ w: at('in/w') }));
    const update = (rateFactors: Readonly<Record<string, number>>) => () =>
      sgd({ learningRate, rateFactors }).update(parameters, [input('g', at('in/w').shape)]);
    expect(update({ 'trunk.*': 0.1 })).toThrow(
      /no trained parameter matches the rate factor 'trunk\.\*'; there are w/,
    );
    expect(update({ w: 0 })).toThrow(/the rate factor of 'w' is 0; it must be above 0/);
  });
});

const values = ({ data }: HostTensor): Float32Array => data as Float32Array;

function transpose(tensor: HostTensor): HostTensor {
  const [rows = 1, columns] = tensor.shape;
  if (columns === undefined) return tensor;
  const data = Float32Array.from(
    { length: rows * columns },
    (_, i) => values(tensor)[(i % rows) * columns + Math.floor(i / rows)]!,
  );
  return { shape: [columns, rows], dtype: 'f32', data };
}

/** A step whose inputs are the gradients of the parameters, under their names, with a leading axis of 1. */
function updateStep(optimizer: Optimizer, parameters: Parameters<Optimizer['update']>[0]): Traceable {
  const step: Traceable = (inputs) => {
    const gradients = parameters.map(({ name }) => leafSum(sum(inputs[name]!, { from: 0, to: 1 }), name));
    optimizer.update(parameters, gradients);
    return { total: sum(reshape(inputs.w!, [-1])) };
  };
  return Object.assign(step, { counters: optimizer });
}

describe('schedules', () => {
  const warmup = { peak: 5e-4, warmup: 10 };
  const cycle = { initial: 5e-5, maximal: 5e-4, final: 5e-6, stepSize: 12 };
  test.each([
    ['basenji_warmup', warmUp(warmup)],
    ['deepmind_warmup', deepmindWarmUp(warmup)],
    ['warmup_cosine', warmUpCosine({ ...warmup, end: 40 })],
    ['basenji_cyclical1', cyclical1(cycle)],
  ] as const)('golden lr/%s is met at 41 steps', (name, rate) => {
    const expected = fixtures.tensors.get(`lr/out/${name}/f64`)!.data as Float64Array;
    const rates = Array.from(expected, (_, step) => rate(step));
    expect(rates.every((value, step) => Math.abs(value - expected[step]!) <= 1e-15)).toBe(true);
  });

  test('stay between 0 and the peak, and at the end where they should', () => {
    for (const rate of [warmUp(warmup), deepmindWarmUp(warmup), warmUpCosine({ ...warmup, end: 40 })]) {
      const rates = Array.from({ length: 200 }, (_, step) => rate(step));
      expect(Math.min(...rates)).toBe(0);
      expect(Math.max(...rates)).toBe(5e-4);
    }
    expect(warmUpCosine({ ...warmup, end: 40 })(1e6)).toBe(0);
    expect(cyclical1(cycle)(1e6)).toBe(5e-6);
    expect(constantRate(3)(7)).toBe(3);
  });
});

describe('counters', () => {
  test('give the learning rate of their step', () => {
    const optimizer = sgd({ learningRate: warmUp({ peak: 1, warmup: 4 }) });
    let counters = optimizer.counters();
    const rates = Array.from({ length: 6 }, () => {
      const rate = optimizer.scalars(counters).learningRate;
      counters = optimizer.advance(counters);
      return rate;
    });
    expect(rates).toEqual([0, 0.25, 0.5, 0.75, 1, 1]);
  });

  test('hold the powers of the betas, and continue from a checkpoint', () => {
    const optimizer = adam({ learningRate: 1 });
    let counters = optimizer.counters();
    for (let step = 1; step <= 1000; step++) {
      const { 'adam.mCorrection': m, 'adam.vCorrection': v } = optimizer.scalars(counters);
      expect(Math.abs(m! * (1 - 0.9 ** step) - 1)).toBeLessThan(1e-12);
      expect(Math.abs(v! * (1 - 0.999 ** step) - 1)).toBeLessThan(1e-12);
      counters = JSON.parse(JSON.stringify(optimizer.advance(counters)));
    }
    expect(counters.step).toBe(1000);
  });
});

describe('the traced update', () => {
  const make = () => parametersOf({ 'a.w': { shape: [2, 3], dtype: 'f32', data: new Float32Array(6) } });

  test('assigns the parameter and its buffers once, in phase U, under the path of the layer', () => {
    const parameters = Object.values(make());
    const optimizer = adam({ learningRate: 1 });
    const update = () =>
      trace(() => {
        optimizer.update(parameters, [input('g', [2, 3])]);
        return {};
      });
    const [first, second] = [update(), update()];
    expect(first.assignments.map(({ parameter }) => parameter.name)).toEqual([
      'optimizer/adam.m/a.w',
      'optimizer/adam.v/a.w',
      'a.w',
    ]);
    expect(first.assignments.every(({ value }) => value.phase === 'U' && value.path === 'a')).toBe(true);
    expect(second.assignments.map(({ parameter }) => parameter)).toEqual(
      first.assignments.map(({ parameter }) => parameter),
    );
  });

  test('refuses gradients of other shapes and parameters without names', () => {
    const [w] = Object.values(make());
    const optimizer = sgd({ learningRate: 1 });
    expect(() => optimizer.update([w!], [input('g', [3, 2])])).toThrow(/a\.w is \[2, 3\] .* \[3, 2\]/);
    w!.name = '';
    expect(() => optimizer.update([w!], [input('g', [2, 3])])).toThrow(/has no name/);
  });
});
