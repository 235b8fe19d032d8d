import {
  adam,
  add,
  assign,
  buffer,
  build,
  clipGlobalNorm,
  constant,
  divide,
  dropout,
  geluSigmoid,
  gradients,
  leafSum,
  multiply,
  nn,
  ones,
  parameter,
  predictStep,
  programBytes,
  relu,
  sgd,
  sqrt,
  subtract,
  sum,
  type Tensor,
  type Traceable,
  trainStep,
  withScope,
} from '@cohesin/core';
import { relativeError } from '@cohesin/core/testing';
import { afterAll, expect, test } from 'vitest';
import { vectorMemory, wideAdder } from './add-wide.ts';
import { hashState, hostTensors } from './checkpoint.ts';
import { distribute } from './distribute.ts';
import { share } from './exchange.ts';
import { meshPool } from './mesh-pool.ts';
import type { Distributed } from './runner.ts';

const LEAVES = 8;
const LENGTH = 64;
const BINS = 16;
const TRACKS = 3;
/** Relative to the largest value, as in the tests of ops: gradients chain several sums in f32. */
const GRADIENT_TOLERANCE = 1e-4;

const meshes = meshPool();
afterAll(meshes.close);

/** Values that are no short binary fractions, so that every rounding shows. */
const values = (count: number, k: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

/**
 * A chain of everything that drivers re-associate or contract when kernels are cut differently: constants added twice,
 * dropout's scale times a constant, distributivity, a normalisation under a GELU, a variance by differences.
 */
function trap(x: Tensor): Tensor {
  const twice = add(add(x, 0.1), 0.2);
  const dropped = multiply(dropout(twice, { rate: 0.3, name: 'trap' }), 1.7);
  const spread = add(multiply(dropped, x), multiply(dropped, twice));
  const normal = divide(subtract(spread, 0.3), sqrt(add(multiply(spread, spread), 1e-3)));
  return multiply(geluSigmoid(normal), add(relu(normal), 1 / 3));
}

function trapModel(): nn.Layer {
  return nn.sequential({
    conv: nn.conv1d({ inputs: 4, outputs: 6, size: 15, padding: 'same', bias: false }),
    norm: nn.batchNorm({ channels: 6 }),
    trap,
    pool: nn.maxPool({ size: LENGTH / BINS }),
    deep: nn.conv1d({ inputs: 6, outputs: 6, size: 3, dilation: 2, padding: 'same', bias: false }),
    deepNorm: nn.batchNorm({ channels: 6 }),
    drop: nn.dropout({ rate: 0.2 }),
    again: trap,
    head: nn.linear({ inputs: 6, outputs: TRACKS }),
    rate: nn.softplus,
  });
}

const INPUTS = { x: [LEAVES, LENGTH, 4], y: [LEAVES, BINS, TRACKS] };

function trapStep(group: 'sequence' | 'step'): Traceable {
  const optimizer = adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) });
  return trainStep({
    model: trapModel(),
    loss: nn.poissonLoss,
    optimizer,
    batchNorm: { group, sequences: 1 },
  });
}

async function runSteps(step: Distributed, count: number, sequences = LEAVES): Promise<string> {
  for (let i = 0; i < count; i++) {
    const y = values(sequences * BINS * TRACKS, i + 7).map(Math.abs);
    await step({ x: values(sequences * LENGTH * 4, i), y });
  }
  await step.state.checkEqual();
  return hashState(new Map([...(await step.state.read()), ...hostTensors(step.host)]));
}

test.each(['sequence', 'step'] as const)(
  'a graph of traps gives the same bits on 1, 2, 3 and 4 devices, whatever is computed again and the optimizer sharded or not, batch norm over each %s',
  async (group) => {
    const hashes: string[] = [];
    const ids: string[] = [];
    const again: number[] = [];
    const options = { leaves: LEAVES, inputs: INPUTS, seed: 5 };
    const { program } = build(trapStep(group), { ...options, leavesOnDevice: Math.ceil(LEAVES / 3) });
    const whole = Object.values(programBytes(program, Math.ceil(LEAVES / 3))).reduce((a, b) => a + b, 0);
    const memory = {
      1: {},
      2: { recompute: ['*'], shardOptimizer: true },
      3: { memoryBudget: 0.97 * whole },
      4: { shardOptimizer: true },
    } as const;
    for (const devices of [1, 2, 3, 4] as const) {
      const step = await distribute(trapStep(group), {
        mesh: await meshes.of(devices),
        ...options,
        ...memory[devices],
      });
      again.push(step.program.activations!.again);
      hashes.push(await runSteps(step, 20));
      ids.push(step.program.bitsId);
      await step.close();
    }
    expect(again.map((count) => count > 0)).toEqual([false, true, true, false]);
    expect(new Set(ids).size).toBe(1);
    expect(new Set(hashes).size).toBe(1);
  },
);

test('sequences cut into rows give the same bits on 1 to 8 devices, shared by all or by groups of them', async () => {
  const hashes: string[] = [];
  const outputs: number[] = [];
  for (const [devices, replicas, sequencesOnDevice] of [
    [1, 1, 1],
    [2, 1, 3], // side by side
    [2, 2, 1], // the border of the two is inside a sequence
    [3, 2, 2],
    [4, 3, 1],
    [8, 3, 1],
  ] as const) {
    const model = trapModel();
    const optimizer = adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) });
    const cut = { replicas, leavesPerSequence: LEAVES, sequencesOnDevice };
    const options = { mesh: await meshes.of(devices), ...cut, seed: 5 };
    const inputs = { x: [3, LENGTH, 4], y: [3, BINS, TRACKS] };
    const step = await distribute(trainStep({ model, loss: nn.poissonLoss, optimizer }), {
      ...options,
      inputs,
    });
    hashes.push(await runSteps(step, 5, 3));
    const predict = await distribute(predictStep({ model }), {
      ...options,
      inputs: { x: inputs.x },
      state: step.state,
    });
    const { prediction } = await predict({ x: values(3 * LENGTH * 4, 9) });
    outputs.push(...[0, 1, 2].map((i) => prediction!.data[(i + 1) * BINS * TRACKS - 1] as number));
    await predict.close();
    await step.close();
  }
  expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
  expect(new Set(outputs), outputs.join()).toHaveProperty('size', 3); // of three sequences, the same everywhere
});

test.each([
  ['sequences', { leaves: LEAVES, inputs: INPUTS }],
  ['rows', { leavesPerSequence: 4, inputs: { x: [LEAVES, LENGTH, 4], y: [LEAVES, BINS, TRACKS] } }],
] as const)(
  'mixed precision by %s has the same bits on 1 and 3 devices, through a step that overflows',
  async (_, cut) => {
    const hashes: string[] = [];
    for (const devices of [1, 3]) {
      const options = { ...cut, mesh: await meshes.of(devices), seed: 5, precision: 'mixed' } as const;
      const step = await distribute(trapStep('sequence'), options);
      await runSteps(step, 1);
      const scale = step.host.counters.lossScale!;
      const y = values(LEAVES * BINS * TRACKS, 7).map(Math.abs);
      y[6 * BINS * TRACKS + 5] = 1e6; // in a leaf of the last device
      await step({ x: values(LEAVES * LENGTH * 4, 1), y });
      expect(step.host.counters.lossScale).toBeLessThan(scale);
      expect(step.host.counters).toMatchObject({ step: 2, goodSteps: 1 });
      hashes.push(await runSteps(step, 2));
      await step.close();
    }
    expect(hashes[1]).toBe(hashes[0]);
  },
);

test('another seed, and another logical plan, give other bits', async () => {
  const mesh = await meshes.of(2);
  const options = { mesh, leaves: LEAVES, inputs: INPUTS };
  const first = await distribute(trapStep('sequence'), { ...options, seed: 5 });
  const other = await distribute(trapStep('sequence'), { ...options, seed: 6 });
  const step = await distribute(trapStep('step'), { ...options, seed: 5 });
  const hashes = [await runSteps(first, 2), await runSteps(other, 2), await runSteps(step, 2)];
  expect(new Set(hashes).size).toBe(3);
  expect(first.program.bitsId).not.toBe(step.program.bitsId);
});

test('leaves may be dealt out in any order: sums in f32 would differ, integer sums do not', () => {
  const leaves = Array.from({ length: LEAVES }, (_, leaf) => values(4096, leaf));
  const f32 = (order: readonly number[]): Float32Array =>
    order.reduce(
      (total, leaf) => total.map((v, i) => Math.fround(v + leaves[leaf]![i]!)),
      new Float32Array(4096),
    );
  const wide = (order: readonly number[]): BigInt64Array => {
    const parts = order.map((leaf) =>
      BigInt64Array.from(leaves[leaf]!, (v) => BigInt(Math.round(v * 2 ** 40))),
    );
    const memory = vectorMemory(2 * parts[0]!.byteLength);
    const [total, part] = [0, 4096].map((at) => new BigInt64Array(memory.buffer, 8 * at, 4096));
    const add = wideAdder(memory);
    for (const values of parts) {
      part!.set(values);
      add(total!.byteOffset, part!.byteOffset, 4096);
    }
    return total!;
  };
  const [there, back] = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [7, 6, 5, 4, 3, 2, 1, 0],
  ];
  const differing = f32(there).filter((v, i) => v !== f32(back)[i]).length;
  expect(differing).toBeGreaterThan(1000);
  expect(wide(there)).toEqual(wide(back));
  const exact = BigInt64Array.from({ length: 4096 }, (_, i) =>
    leaves.reduce((t, leaf) => t + BigInt(Math.round(leaf[i]! * 2 ** 40)), 0n),
  );
  expect(wide(there)).toEqual(exact);
});

test('shares of leaves cover all of them once, as evenly as they divide', () => {
  for (const [count, ranks] of [
    [8, 3],
    [8, 8],
    [5, 2],
    [1, 1],
    [64, 7],
  ] as const) {
    const parts = Array.from({ length: ranks }, (_, rank) => share(count, rank, ranks));
    expect(parts.flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => from + i))).toEqual(
      Array.from({ length: count }, (_, i) => i),
    );
    const sizes = parts.map(([from, to]) => to - from);
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
  }
});

test('a step makes no GPU object on any rank once the first two have run', async () => {
  const mesh = await meshes.of(2);
  const step = await distribute(trapStep('step'), { mesh, leaves: LEAVES, inputs: INPUTS });
  const created = (): Promise<unknown> =>
    Promise.all(mesh.ranks.map((rank) => rank.call((api) => api.created())));
  await runSteps(step, 2);
  const made = await created();
  await runSteps(step, 5);
  expect(await created()).toEqual(made);
  await step.close();
});

test('a graph of traps gives the same values within f32 rounding when nothing is fused', async () => {
  const [fused, unfused] = await Promise.all(
    [true, false].map(async (fuse) => {
      const options = { mesh: await meshes.of(1), leaves: LEAVES, inputs: INPUTS, seed: 5, fuse };
      const step = await distribute(trapStep('sequence'), options);
      await runSteps(step, 1);
      const state = await step.state.read();
      await step.close();
      return state;
    }),
  );
  const errors = [...fused!].map(([name, { data }]) =>
    relativeError(unfused!.get(name)!.data as Float32Array, data as Float32Array),
  );
  expect(Math.max(...errors)).toBeGreaterThan(0); // otherwise it would be no trap
  expect(Math.max(...errors)).toBeLessThan(GRADIENT_TOLERANCE);
});

test('a gradient that leaves the window of its scale repeats the step, and the result is that of a fitting scale', async () => {
  const mesh = await meshes.of(2);
  const make = (): Traceable => {
    const weight = parameter([TRACKS], { init: ones });
    const model = nn.layer({ weight }, (x: Tensor) => multiply(x, weight));
    return trainStep({
      model,
      loss: (p, y) => sum(multiply(p, y)),
      optimizer: sgd({ learningRate: 2 ** -40 }),
    });
  };
  const options = { mesh, leaves: 2, inputs: { x: [2, TRACKS], y: [2, TRACKS] } };
  const batch = { x: Float32Array.of(2 ** 30, 1, 1, 3, 1, 1), y: Float32Array.of(1, 1, 1, 1, 1, 1) };
  const step = await distribute(make(), options);
  await step(batch);
  expect(step.repeats).toBe(1);
  const fitting = await distribute(make(), options);
  fitting.restoreHost({ ...fitting.host, q: { weight: step.host.q.weight! } });
  await fitting(batch);
  expect(fitting.repeats).toBe(0);
  expect(hashState(await fitting.state.read())).toBe(hashState(await step.state.read()));
});

test('a NaN in one sequence stops the step on every rank, changes nothing, and names tensor, step and sequence', async () => {
  const step = await distribute(trapStep('sequence'), {
    mesh: await meshes.of(3),
    leaves: LEAVES,
    inputs: INPUTS,
    seed: 5,
  });
  await runSteps(step, 2);
  const before = hashState(await step.state.read());
  const x = values(LEAVES * LENGTH * 4, 1);
  x[5 * LENGTH * 4 + 17] = Number.NaN;
  const y = values(LEAVES * BINS * TRACKS, 3).map(Math.abs);
  await expect(step({ x, y })).rejects.toThrow(
    /step 2: conv: conv1d .*first tensor that is not finite \(sequence 21, leaf 5\)/,
  );
  expect(hashState(await step.state.read())).toBe(before);
  expect(step.host.step).toBe(2);
});

test('a NaN in one part of a cut sequence is found there, though norms spread it to all parts', async () => {
  const step = await distribute(trapStep('sequence'), {
    mesh: await meshes.of(3),
    leavesPerSequence: LEAVES,
    inputs: { x: [2, LENGTH, 4], y: [2, BINS, TRACKS] },
    seed: 5,
  });
  const x = values(2 * LENGTH * 4, 1);
  x[(LENGTH + 43) * 4] = Number.NaN; // second sequence, row 43: part 5
  const y = values(2 * BINS * TRACKS, 3).map(Math.abs);
  await expect(step({ x, y })).rejects.toThrow(
    /step 0: conv: .*first tensor that is not finite \(sequence 1, part [456]\)/, // windows reach into neighbours
  );
});

test('state that is only assigned, and gradients through shared parameters, survive the split into leaves', async () => {
  const hashes: string[] = [];
  for (const devices of [1, 2]) {
    const weight = parameter([TRACKS], { init: ones, name: 'weight' });
    const seen = buffer([TRACKS], { name: 'seen' });
    const fn: Traceable = ({ x }) => {
      const y = multiply(multiply(x!, weight), weight);
      const loss = sum(y);
      const [gradient] = gradients(loss, constant(1), [weight]);
      const total = withScope({ phase: 'U' }, () => leafSum(gradient!, 'weight'));
      assign(weight, subtract(weight, multiply(total, 1e-3)));
      assign(seen, multiply(total, 1));
      return { loss };
    };
    const step = await distribute(fn, {
      mesh: await meshes.of(devices),
      leaves: 4,
      inputs: { x: [4, TRACKS] },
    });
    await step({ x: values(4 * TRACKS, 0) });
    const { loss } = await step({ x: values(4 * TRACKS, 1) });
    expect(Number.isFinite(loss!.data[0] as number)).toBe(true);
    hashes.push(hashState(await step.state.read()));
  }
  expect(hashes[0]).toBe(hashes[1]);
});
