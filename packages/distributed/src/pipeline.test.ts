import {
  adam,
  add,
  build,
  buildStages,
  clipGlobalNorm,
  divide,
  dropout,
  geluSigmoid,
  matmul,
  multiply,
  nn,
  parameter,
  predictStep,
  relu,
  slice,
  softmax,
  sqrt,
  subtract,
  type Tensor,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import { afterAll, expect, test } from 'vitest';
import { hashState, hostTensors } from './checkpoint.ts';
import { distribute } from './distribute.ts';
import { meshPool } from './mesh-pool.ts';
import type { StagesOptions } from './pipeline.ts';
import type { Distributed } from './runner.ts';

const LEAVES = 6;
const LENGTH = 64;
const BINS = 16;
const TRACKS = 3;
const INPUTS = { x: [LEAVES, LENGTH, 4], y: [LEAVES, BINS, TRACKS] };
const OPTIONS = { leaves: LEAVES, inputs: INPUTS, seed: 5 };

const meshes = meshPool();
afterAll(meshes.close);

/** Values that are no short binary fractions, so that every rounding shows. */
const values = (count: number, k: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

/** Sums, products and a norm that drivers round differently when they are cut into other kernels. */
function trap(x: Tensor): Tensor {
  const dropped = multiply(dropout(add(add(x, 0.1), 0.2), { rate: 0.3, name: 'trap' }), 1.7);
  const spread = add(multiply(dropped, x), multiply(dropped, 0.3));
  return geluSigmoid(divide(subtract(spread, 0.3), sqrt(add(multiply(spread, spread), 1e-3))));
}

const convolution = (inputs: number, outputs: number, size = 5): nn.Layer =>
  nn.conv1d({ inputs, outputs, size, padding: 'same', bias: false });

const block = (inputs: number, outputs: number): nn.Layer =>
  nn.sequential({
    conv: convolution(inputs, outputs),
    norm: nn.batchNorm({ channels: outputs }),
    trap: nn.layer({}, trap),
    drop: nn.dropout({ rate: 0.2 }),
    pool: nn.maxPool({ size: 2 }),
  });

/** A residual block that ends in a norm: the kernels after it read its scale and shift. */
function residual(channels: number): nn.Layer {
  const inner = nn.sequential({
    relu,
    conv: convolution(channels, channels, 3),
    norm: nn.batchNorm({ channels }),
  });
  return nn.layer({ inner }, (x: Tensor) => add(x, inner(x)));
}

/** A skip over two stages, and a weight that two stages use. */
function skippingModel(): nn.Layer {
  const tied = parameter([6, 6], { init: nn.init.glorotUniform });
  const stem = block(4, 6);
  const deep = nn.sequential([residual(6), residual(6)]);
  const pool = nn.maxPool({ size: 2 });
  const skip = nn.maxPool({ size: 2 });
  const head = nn.linear({ inputs: 6, outputs: TRACKS });
  return nn.layer({ stem, deep, pool, skip, head, tied }, (x: Tensor) => {
    const first = matmul(stem(x), tied);
    const low = pool(deep(first));
    return nn.softplus(head(add(matmul(low, tied), skip(first))));
  });
}

const plainModel = (): nn.Layer =>
  nn.sequential({
    stem: block(4, 6),
    deep: block(6, 8),
    last: residual(8),
    head: nn.linear({ inputs: 8, outputs: TRACKS }),
    rate: nn.softplus,
  });

const stepOf = (model: nn.Layer, group: 'sequence' | 'step' = 'sequence'): Traceable =>
  trainStep({
    model,
    loss: nn.poissonLoss,
    optimizer: adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) }),
    batchNorm: { group, sequences: 1 },
  });

const batchOf = (i: number): { x: Float32Array; y: Float32Array } => ({
  x: values(LEAVES * LENGTH * 4, i),
  y: values(LEAVES * BINS * TRACKS, i + 7).map(Math.abs),
});

async function hashAfter(step: Distributed, steps: number): Promise<string> {
  for (let i = 0; i < steps; i++) await step(batchOf(i));
  await step.state.checkEqual();
  return hashState(new Map([...(await step.state.read()), ...hostTensors(step.host)]));
}

async function hashOf(
  make: () => Traceable,
  devices: number,
  pipeline: StagesOptions | undefined,
  {
    steps = 20,
    ...more
  }: {
    readonly steps?: number;
    readonly recompute?: readonly string[];
    readonly shardOptimizer?: boolean;
  } = {},
): Promise<string> {
  const where = pipeline === undefined ? {} : { pipeline };
  const step = await distribute(make(), { mesh: await meshes.of(devices), ...OPTIONS, ...where, ...more });
  const hash = await hashAfter(step, steps);
  await step.close();
  return hash;
}

const TWO = ['stem', 'deep'];
const THREE = ['stem', 'deep', 'last'];

test('a stack of convolutions has the same bits in one piece and in stages, under every schedule', async () => {
  const make = (): Traceable => stepOf(plainModel());
  const inside = ['stem', 'deep.conv', 'deep.trap', 'head']; // kernels of a later stage read an earlier one's scales
  const hashes = [
    await hashOf(make, 1, undefined),
    await hashOf(make, 2, { stages: TWO, schedule: 'gpipe' }),
    await hashOf(make, 3, { stages: THREE, schedule: '1f1b' }, { recompute: ['*'] }),
    await hashOf(make, 4, { stages: inside, schedule: 'zero-bubble' }),
    await hashOf(make, 3, { stages: TWO, schedule: '1f1b', devices: [2, 1] }),
  ];
  expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
});

test('skips over stages, residual blocks and a weight of two stages keep the bits', async () => {
  const make = (): Traceable => stepOf(skippingModel());
  const hashes = [
    await hashOf(make, 1, undefined, { steps: 8 }),
    await hashOf(make, 3, { stages: ['stem', 'deep.1', 'pool'], schedule: '1f1b' }, { steps: 8 }),
    await hashOf(
      make,
      4,
      { stages: ['stem', 'deep', 'pool'], schedule: 'zero-bubble', devices: [1, 2, 1] },
      { steps: 8, shardOptimizer: true },
    ),
  ];
  expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
});

/** The convolutional stem of an Enformer in little, then attention over all rows: margins, statistics, keys and values. */
function attentiveModel(): nn.Layer {
  const size = { inputs: 8, outputs: 8 };
  const [query, key, value] = [nn.linear(size), nn.linear(size), nn.linear(size)];
  const attend = nn.layer({ query, key, value }, (x: Tensor) => {
    const scores = matmul(query(x), key(x), { transposeB: true });
    return add(x, matmul(softmax(scores), value(x)));
  });
  return nn.sequential({
    stem: block(4, 6),
    deep: block(6, 8),
    attend,
    last: residual(8),
    crop: (x: Tensor) => slice(x, { axis: 1, from: BINS / 8, to: BINS - BINS / 8 }),
    head: nn.linear({ inputs: 8, outputs: TRACKS }),
    rate: nn.softplus,
  });
}

test('parts of sequences in stages have the bits of one device, whoever has which, under every schedule', async () => {
  const inputs = { x: [4, LENGTH, 4], y: [4, BINS - BINS / 4, TRACKS] };
  const hash = async (
    devices: number,
    pipeline?: StagesOptions,
    more: {
      readonly recompute?: readonly string[];
      readonly replicas?: number;
      readonly shardOptimizer?: boolean;
    } = {},
  ): Promise<string> => {
    const step = await distribute(stepOf(attentiveModel()), {
      mesh: await meshes.of(devices),
      inputs,
      leavesPerSequence: 8,
      seed: 5,
      ...(pipeline === undefined ? {} : { pipeline }),
      ...more,
    });
    for (let i = 0; i < 4; i++)
      await step({
        x: values(4 * LENGTH * 4, i),
        y: values(4 * (BINS - BINS / 4) * TRACKS, i + 7).map(Math.abs),
      });
    await step.state.checkEqual();
    const result = hashState(new Map([...(await step.state.read()), ...hostTensors(step.host)]));
    await step.close();
    return result;
  };
  const hashes = [
    await hash(1),
    await hash(2, { stages: ['stem', 'attend'], schedule: 'gpipe' }),
    await hash(3, { stages: ['stem', 'attend'], devices: [2, 1] }, { recompute: ['*'] }),
    await hash(4, { stages: ['stem', 'deep.norm', 'last'], devices: [1, 2, 1], schedule: 'zero-bubble' }),
    await hash(4, { stages: ['stem', 'attend'], devices: [3, 1], schedule: 'zero-bubble' }),
    await hash(
      4,
      { stages: ['stem', 'attend'], devices: [3, 1], ahead: 1 },
      { replicas: 2, shardOptimizer: true },
    ),
  ];
  expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
});

test('mixed precision in stages has the same bits, through a step that overflows', async () => {
  const hashes: string[] = [];
  for (const stages of [undefined, ['stem', 'head']]) {
    const where = stages === undefined ? {} : { pipeline: { stages } };
    const mesh = await meshes.of(stages?.length ?? 1);
    const model = nn.sequential({
      stem: block(4, 6),
      pool: nn.maxPool({ size: 2 }),
      head: nn.linear({ inputs: 6, outputs: TRACKS }),
      rate: nn.softplus,
    });
    const step = await distribute(stepOf(model), { mesh, ...OPTIONS, ...where, precision: 'mixed' });
    const batch = batchOf(0);
    batch.y[4 * BINS * TRACKS + 5] = 1e6;
    const scale = step.host.counters.lossScale!;
    await step(batch);
    expect(step.host.counters.lossScale).toBeLessThan(scale);
    hashes.push(await hashAfter(step, 3));
    await step.close();
  }
  expect(hashes[1]).toBe(hashes[0]);
});

test('each rank holds the state of its stage and no other, and the bits are those of one program', () => {
  const whole = build(stepOf(plainModel()), OPTIONS).program;
  const { stages, bitsId } = buildStages(stepOf(plainModel()), { ...OPTIONS, stages: THREE }).program;
  expect(bitsId).toBe(whole.bitsId);
  const held = stages.map(({ state }) => state.map(({ name }) => name));
  const layers = held.map((names) => new Set(names.map((name) => /(stem|deep|last|head)\./.exec(name)![1])));
  expect(layers).toEqual([new Set(['stem']), new Set(['deep']), new Set(['last', 'head'])]);
  expect(held.flat().sort()).toEqual(whole.state.map(({ name }) => name).sort());
});

test.each([
  ['whole sequences', { leaves: LEAVES }, [1, 1, 1]],
  ['sequences in parts', { leaves: 1, leavesPerSequence: 4 }, [1, 2, 1]],
] as const)(
  'a prediction of %s in stages shares the state of training in stages',
  async (_, cut, devices) => {
    const outputs: Float32Array[] = [];
    const inside = ['stem', 'deep.trap', 'last'];
    for (const stages of [undefined, inside]) {
      const mesh = await meshes.of(stages === undefined ? 1 : devices.reduce((a, b) => a + b, 0));
      const where = stages === undefined ? {} : { pipeline: { stages, devices } };
      const options = { mesh, ...OPTIONS, ...cut, ...where };
      const model = plainModel();
      const step = await distribute(stepOf(model), options);
      const predict = await distribute(predictStep({ model }), {
        ...options,
        inputs: { x: INPUTS.x },
        state: step.state,
      });
      for (let i = 0; i < 2; i++) {
        await step(batchOf(i));
        const { prediction } = await predict({ x: batchOf(9).x });
        outputs.push(prediction!.data as Float32Array);
      }
      await predict.close();
      await step.close();
    }
    expect(outputs[2]).toEqual(outputs[0]);
    expect(outputs[3]).toEqual(outputs[1]);
    expect(outputs[1]).not.toEqual(outputs[0]);
  },
);

test('a NaN stops all stages, changes nothing, and is found where one device finds it', async () => {
  const messages: string[] = [];
  for (const stages of [undefined, THREE]) {
    const mesh = await meshes.of(stages?.length ?? 1);
    const where = stages === undefined ? {} : { pipeline: { stages } };
    const step = await distribute(stepOf(plainModel()), { mesh, ...OPTIONS, ...where });
    await step(batchOf(0));
    const before = hashState(await step.state.read());
    const batch = batchOf(1);
    batch.y[3 * BINS * TRACKS + 5] = Number.NaN;
    messages.push(await step(batch).then(String, (error: Error) => error.message));
    expect(hashState(await step.state.read())).toBe(before);
    await step.close();
  }
  expect(messages[0]).toMatch(/step 1: .*first tensor that is not finite \(sequence 9, leaf 3\)/);
  expect(messages[1]).toBe(messages[0]);
});

test('what cannot go through stages is refused before work starts, with what to change', async () => {
  const refused = async (fn: Traceable, options: object, message: RegExp): Promise<void> => {
    const mesh = await meshes.of(2);
    await expect(distribute(fn, { mesh, ...OPTIONS, pipeline: { stages: TWO }, ...options })).rejects.toThrow(
      message,
    );
  };
  const fn = (): Traceable => stepOf(plainModel());
  await refused(
    stepOf(plainModel(), 'step'),
    {},
    /stem\.norm: .* is gathered from all leaves of the step before the update.*batch norm over each sequence/,
  );
  await refused(
    fn(),
    { pipeline: { stages: ['stem', 'tower'] } },
    /no layer matches 'tower'; there are stem, deep, last, head/,
  );
  await refused(
    fn(),
    { pipeline: { stages: ['deep', 'stem'] } },
    /stage 0 \('deep'\) has no work; list the stages in the order/,
  );
  await refused(fn(), { pipeline: { stages: THREE } }, /3 stages but the mesh has 2 devices/);
  await refused(
    fn(),
    { pipeline: { stages: TWO, devices: [2, 1] } },
    /2 stages on 2 \+ 1 devices, but the mesh has 2/,
  );
  const parts = { leaves: 1, leavesPerSequence: 4 };
  await refused(fn(), { replicas: 2 }, /replicas is 2 but sequences are not cut into parts/);
  const mesh = await meshes.of(4);
  const pipeline = { stages: TWO, devices: [3, 1] };
  await expect(
    distribute(fn(), { mesh, ...OPTIONS, ...parts, leavesPerSequence: 2, pipeline }),
  ).rejects.toThrow(
    /a stage on 3 devices but only 2 parts of a sequence; use at most 2 devices for it, more replicas or more parts/,
  );
});
