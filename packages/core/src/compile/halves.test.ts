import { afterAll, beforeAll, expect, test } from 'vitest';
import { create } from 'webgpu';
import { Device, INSTANCE_FLAGS, WANTED_FEATURES } from '../device.ts';
import { elementCount, type HostTensor } from '../host-tensor.ts';
import { withLossScale } from '../loss-scale.ts';
import { programBytes } from '../memory-report.ts';
import * as nn from '../nn/index.ts';
import { NotFiniteError } from '../not-finite.ts';
import { multiply } from '../ops/arithmetic.ts';
import { conv1d } from '../ops/conv1d.ts';
import { geluSigmoid } from '../ops/elementwise.ts';
import { matmul } from '../ops/matmul.ts';
import { adam } from '../optim/index.ts';
import { ones, parameter } from '../parameter.ts';
import { trainStep } from '../train-step.ts';
import { build, type Compiled, compile, type Traceable } from './compile.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const model = (): nn.Layer =>
  nn.sequential({
    stem: nn.conv1d({ inputs: 4, outputs: 8, size: 7, padding: 'same', bias: false }),
    norm: nn.batchNorm({ channels: 8 }),
    activation: geluSigmoid,
    pool: nn.maxPool({ size: 4 }),
    deep: nn.conv1d({ inputs: 8, outputs: 7, size: 3, padding: 'same' }), // an odd number of channels: no vectors
    again: geluSigmoid,
    head: nn.linear({ inputs: 7, outputs: 3 }),
    rate: nn.softplus,
  });
const INPUTS = { x: [4, 36, 4], y: [4, 9, 3] };
const training = (): Traceable =>
  trainStep({ model: model(), loss: nn.poissonLoss, optimizer: adam({ learningRate: 0.01 }) });
const batch = (k = 0): { x: Float32Array; y: Float32Array } => ({
  x: Float32Array.from({ length: 576 }, (_, i) => Math.sin(i * 1.7 + k)),
  y: Float32Array.from({ length: 108 }, (_, i) => Math.abs(Math.cos(i * 2.3 + k))),
});
const options = { inputs: INPUTS, leaves: 2 };
const mixed = { ...options, precision: 'mixed' } as const;

test('activations around products are stored as f16, and nothing else is', () => {
  const { program } = build(training(), mixed);
  const halves = program.segments
    .flatMap(({ leaf }) => leaf)
    .filter(({ bindings }) => bindings.at(-1)!.half === true)
    .map(({ label, phase }) => `${phase} ${label}`);
  expect(halves).toEqual([
    'F stem: conv1d [2, 36, 8]',
    'F pool: maxPool1d [2, 9, 8]',
    'F deep: conv1d [2, 9, 7] + add',
    'F again: geluSigmoid [2, 9, 7]',
    'F head: matmul [2, 9, 3] + add',
    'I rate: softplusGradient [2, 9, 3]',
    'I head: matmul [2, 9, 7] + geluSigmoidGradient',
    'I deep: conv1dInputGradient [2, 9, 8]',
    'I norm: batchNormalizeGradient [2, 36, 8]',
  ]);
  expect(program.bitsId).not.toBe(build(training(), options).program.bitsId);
});

test('a stack of convolutions takes half the memory', () => {
  const conv = (): nn.Layer => nn.conv1d({ inputs: 8, outputs: 8, size: 3, padding: 'same' });
  const stack = nn.sequential({
    a: conv(),
    b: geluSigmoid,
    c: conv(),
    d: geluSigmoid,
    e: conv(),
    f: nn.softplus,
  });
  const step = trainStep({ model: stack, loss: nn.poissonLoss, optimizer: adam({ learningRate: 0.01 }) });
  const bytes = (precision: 'f32' | 'mixed'): number =>
    programBytes(build(step, { inputs: { x: [1, 256, 8], y: [1, 256, 8] }, precision }).program).scratch;
  expect(bytes('mixed')).toBeLessThan(0.6 * bytes('f32'));
});

test('values that are stored as f16 are the nearest; beyond its range they are infinite, and NaN stays', async () => {
  const expected = [
    [1 / 3, 0.333251953125],
    [2 ** -24, 2 ** -24], // the smallest above 0
    [2 ** -26, 0],
    [1 + 2 ** -11, 1], // ties go to even
    [1 + 3 * 2 ** -11, 1 + 2 ** -9],
    [-65_519, -65_504], // the largest
    [65_520, Number.POSITIVE_INFINITY],
    [-1e9, Number.NEGATIVE_INFINITY],
    [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    [Number.NaN, Number.NaN],
    [0, 0],
    [3, 3],
  ] as const;
  const one = parameter([1, 1], { init: ones, name: 'one' });
  for (const count of [12, 11]) {
    const step = await compile(({ x }) => ({ y: matmul(multiply(x!, 1), one) }), {
      device,
      inputs: { x: [count, 1] },
      precision: 'mixed',
    });
    const pairs = expected.slice(0, count);
    const { y } = await step({ x: Float32Array.from(pairs, ([value]) => value) });
    expect([...y!.data]).toEqual(pairs.map(([, half]) => half));
    step.close();
    step.state.close();
  }
});

test('mixed precision trains like f32: losses of 12 steps agree within 1 %', async () => {
  const losses: number[][] = [];
  for (const own of [options, mixed]) {
    const step = await compile(training(), { ...own, device, seed: 3 });
    const curve: number[] = [];
    for (let i = 0; i < 12; i++) curve.push((await step(batch())).loss!.data[0] as number);
    losses.push(curve);
    step.close();
  }
  const [f32, half] = losses as [number[], number[]];
  expect(half).not.toEqual(f32);
  for (const [i, loss] of half.entries()) expect(Math.abs(loss / f32[i]! - 1)).toBeLessThan(0.01);
  expect(half.at(-1)).toBeLessThan(half[0]! * 0.95);
});

test('on subgroup matrices it trains like f32 too', async ({ skip }) => {
  const [matrices] = device.info.subgroupMatrices;
  if (matrices === undefined) return skip('this adapter lists no subgroup matrices; Mesa 26 does');
  const losses: number[][] = [];
  for (const own of [options, { ...mixed, target: { kind: 'tensor-core', matrices } } as const]) {
    const step = await compile(training(), { ...own, device, seed: 3 });
    const curve: number[] = [];
    for (let i = 0; i < 4; i++) curve.push((await step(batch())).loss!.data[0] as number);
    losses.push(curve);
    step.close();
  }
  const [f32, half] = losses as [number[], number[]];
  for (const [i, loss] of half.entries()) expect(Math.abs(loss / f32[i]! - 1)).toBeLessThan(0.01);
});

test("a step for a GPU's 16 × 16 × 16 matrices is valid throughout: Dawn's null backend reads it", async () => {
  const matrices = { m: 16, n: 16, k: 16, subgroupSize: 32 };
  const { program } = build(training(), { ...mixed, target: { kind: 'tensor-core', matrices } });
  const instance = create(['backend=null', ...INSTANCE_FLAGS]);
  const adapter = await instance.requestAdapter();
  const requiredFeatures = WANTED_FEATURES.filter((name) => adapter!.features.has(name)) as GPUFeatureName[];
  const gpu = await adapter!.requestDevice({ requiredFeatures });
  expect(program.shaders.filter((code) => code.includes('subgroupMatrixMultiplyAccumulate')).length).toBe(8);
  for (const code of program.shaders) {
    const { messages } = await gpu.createShaderModule({ code }).getCompilationInfo();
    expect(messages.filter(({ type }) => type !== 'info').map(({ message }) => message)).toEqual([]);
  }
  gpu.destroy();
  void instance; // Dawn crashes when it is collected before its devices
});

test('windows of tensors stored as f16 change no bit', async () => {
  const draw = (shape: readonly number[]): Float32Array => batch().x.slice(0, elementCount(shape));
  const [first, second] = [
    parameter([3, 4, 8], { init: draw, name: 'a' }),
    parameter([3, 8, 5], { init: draw, name: 'b' }),
  ];
  const results: unknown[] = [];
  for (const bindingLimit of [1 << 20, 768]) {
    const fn: Traceable = ({ x }) => ({ y: conv1d(geluSigmoid(conv1d(x!, first)), second) });
    const run = await compile(fn, { inputs: { x: [1, 144, 4] }, precision: 'mixed', device, bindingLimit });
    const steps = run.program.segments.flatMap(({ leaf }) => leaf);
    expect(steps.filter(({ window }) => window !== undefined).length).toBe(
      bindingLimit === 768 ? steps.length : 0,
    );
    results.push((await run({ x: batch().x })).y!.data);
    run.close();
    run.state.close();
  }
  expect(results[1]).toEqual(results[0]);
});

test('a gradient beyond the range of f16 halves the loss scale until the step fits; statistics move once', async () => {
  const after = async (largest: number): Promise<{ step: Compiled; state: Map<string, HostTensor> }> => {
    const step = await compile(training(), { ...mixed, device, seed: 3 });
    const { x, y } = batch();
    y[50] = largest;
    await step({ x, y });
    return { step, state: await step.state.read() };
  };
  const [mild, steep] = [await after(1), await after(1e6)];
  expect(mild.step.counters).toMatchObject({ step: 1, lossScale: 2 ** 16, goodSteps: 1 });
  expect(steep.step.counters).toMatchObject({ step: 1, goodSteps: 1 });
  expect(steep.step.counters.lossScale).toBeLessThan(2 ** 12);
  for (const [name, { data }] of steep.state) {
    expect((data as Float32Array).every(Number.isFinite)).toBe(true);
    if (name.startsWith('norm.running_')) expect(data).toEqual(mild.state.get(name)!.data);
  }
  mild.step.close();
  steep.step.close();
});

test('what no loss scale can mend stops the step, names the tensor, and changes neither state nor counters', async () => {
  const step = await compile(training(), { ...mixed, device, seed: 3 });
  await step(batch());
  const [before, counters] = [await step.state.read(), step.counters];
  const { x, y } = batch();
  x[7] = 1e6; // infinite as f16
  const failure = await step({ x, y }).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(NotFiniteError);
  expect((failure as Error).message).toMatch(
    /step 1: stem: conv1d .*sequences 4–5, leaf 0.*Nothing was updated/,
  );
  expect(await step.state.read()).toEqual(before);
  expect(step.counters).toEqual(counters);
  step.close();
});

test('the loss scale doubles after 2,000 good steps and goes down to 1', () => {
  const rules = withLossScale({ counters: () => ({}), advance: (counters) => counters, scalars: () => ({}) });
  let counters = rules.counters();
  for (let i = 0; i < 1_999; i++) counters = rules.advance(counters);
  expect(rules.scalars(counters)).toEqual({ lossScale: 2 ** 16, 'lossScale.inverse': 2 ** -16 });
  counters = rules.advance(counters);
  expect(counters).toEqual({ lossScale: 2 ** 17, goodSteps: 0 });
  for (let i = 0; i < 17; i++) counters = rules.afterOverflow!(counters)!;
  expect(counters).toEqual({ lossScale: 1, goodSteps: 0 });
  expect(rules.afterOverflow!(counters)).toBeUndefined();
});
