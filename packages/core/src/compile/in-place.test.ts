import { afterAll, beforeAll, expect, test } from 'vitest';
import { Device } from '../device.ts';
import * as nn from '../nn/index.ts';
import { add, multiply, subtract } from '../ops/arithmetic.ts';
import { leafSum } from '../ops/leaf-sum.ts';
import { sum } from '../ops/reduce.ts';
import { concat, slice } from '../ops/shape.ts';
import { adam, adamw, clipGlobalNorm, type Optimizer, rmsprop, sgd } from '../optim/index.ts';
import { parameter } from '../parameter.ts';
import { assign } from '../trace.ts';
import { trainStep } from '../train-step.ts';
import { build, compile, type Traceable } from './compile.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const learningRate = 0.01;
const OPTIMIZERS: Readonly<Record<string, Optimizer>> = {
  sgd: sgd({ learningRate }),
  momentum: sgd({ learningRate, momentum: 0.9, form: 'keras' }),
  nesterov: sgd({ learningRate, momentum: 0.9, nesterov: true }),
  'adam, clipped': adam({ learningRate, clip: clipGlobalNorm(1) }),
  'adam, coupled L2': adam({ learningRate, l2: 0.1, form: 'keras' }),
  adamw: adamw({ learningRate, weightDecay: 0.1 }),
  'rmsprop with max-norm': rmsprop({ learningRate, maxNorm: 1 }),
};

test.each(Object.entries(OPTIMIZERS))('%s writes weights and moments over the old ones', (_, optimizer) => {
  const model = nn.sequential({
    conv: nn.conv1d({ inputs: 4, outputs: 6, size: 3 }),
    norm: nn.batchNorm({ channels: 6 }),
  });
  for (const group of ['sequence', 'step'] as const) {
    const step = trainStep({ model, loss: nn.mseLoss, optimizer, batchNorm: { group, sequences: 1 } });
    const { program } = build(step, { inputs: { x: [2, 9, 4], y: [2, 9, 6] }, leaves: 2 });
    const beside = program.state.filter(({ next }) => next !== undefined).map(({ name }) => name);
    const running = ['norm.running_mean', 'norm.running_var'];
    expect(beside.sort()).toEqual(group === 'step' ? running : []); // assigned before the step is decided
  }
});

/** Steps that assign a and b, [4], with gradients g, given as input. */
const pair = (next: (a: Parts, b: Parts) => void): Traceable => {
  const [a, b] = ['a', 'b'].map((name) => parameter([4], { name, init: () => Float32Array.of(1, 2, 3, 4) }));
  return ({ x }) => {
    const [ga, gb] = ['a', 'b'].map((name) => leafSum(sum(x!, { from: 0, to: 1 }), name));
    next({ old: a!, gradient: ga! }, { old: b!, gradient: gb! });
    return { total: sum(x!) };
  };
};
interface Parts {
  readonly old: ReturnType<typeof parameter>;
  readonly gradient: ReturnType<typeof leafSum>;
}

async function run(fn: Traceable): Promise<{ beside: string[]; values: Record<string, number[]> }> {
  const step = await compile(fn, { device, inputs: { x: [1, 4] } });
  await step({ x: Float32Array.of(10, 20, 30, 40) });
  await step({ x: Float32Array.of(10, 20, 30, 40) });
  const state = await step.state.read();
  const beside = step.program.state.filter(({ next }) => next !== undefined).map(({ name }) => name);
  step.close();
  return {
    beside,
    values: Object.fromEntries([...state].map(([name, { data }]) => [name, [...data].map(Number)])),
  };
}

test('a parameter whose old value is read later keeps it until the end of the step', async () => {
  const { beside, values } = await run(
    pair((a, b) => {
      assign(a.old, add(a.old, a.gradient));
      assign(b.old, add(add(multiply(b.old, 2), a.old), b.gradient)); // the old a
    }),
  );
  expect(beside).toEqual(['a']);
  expect(values).toEqual({ a: [21, 42, 63, 84], b: [47, 94, 141, 188] });
});

test('a new value that later values are made of is read where it was written', async () => {
  const { beside, values } = await run(
    pair((a, b) => {
      const next = subtract(a.old, a.gradient);
      assign(a.old, next);
      assign(b.old, add(b.old, next));
    }),
  );
  expect(beside).toEqual([]);
  expect(values).toEqual({ a: [-19, -38, -57, -76], b: [-27, -54, -81, -108] });
});

test('a new value made of other elements of the old one is written beside it', async () => {
  const { beside, values } = await run(
    pair((a, b) => {
      const rotated = concat(
        [slice(a.old, { from: 1, to: 4, axis: 0 }), slice(a.old, { from: 0, to: 1, axis: 0 })],
        { axis: 0 },
      );
      assign(a.old, add(rotated, a.gradient));
      assign(b.old, add(b.old, b.gradient));
    }),
  );
  expect(beside).toEqual(['a']);
  expect(values).toEqual({ a: [33, 54, 71, 52], b: [21, 42, 63, 84] });
});

test('in windows too, with the same bits', async () => {
  const after = async (bindingLimit: number | undefined): Promise<unknown> => {
    const weight = parameter([50, 83], { name: 'w' });
    const bias = parameter([83], { name: 'b' });
    const optimizer = adamw({ learningRate, weightDecay: 0.1 });
    const update: Traceable = ({ x }) => {
      const gradient = leafSum(sum(x!, { from: 0, to: 1 }), 'w');
      optimizer.update([weight, bias], [gradient, sum(gradient, { from: 0, to: 1 })]);
      return { total: sum(x!) };
    };
    const options = bindingLimit === undefined ? {} : { bindingLimit };
    const step = await compile(Object.assign(update, { counters: optimizer }), {
      ...{ device, inputs: { x: [1, 50, 83] }, ...options },
    });
    const written = step.program.segments.at(-1)!.once.filter(({ label }) => label.startsWith('subtract'));
    expect(written.some(({ window }) => window !== undefined)).toBe(bindingLimit !== undefined);
    for (let k = 0; k < 2; k++)
      await step({ x: Float32Array.from({ length: 4150 }, (_, i) => Math.sin(i + k)) });
    const state = await step.state.read();
    step.close();
    expect(step.program.state.filter(({ next }) => next !== undefined)).toEqual([]);
    return state;
  };
  expect(await after(4096)).toEqual(await after(undefined));
});
