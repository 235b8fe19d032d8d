import {
  adam,
  build,
  buildShared,
  buildStages,
  clipGlobalNorm,
  type HostTensor,
  momentBytes,
  nn,
  type Program,
  predictStep,
  type Traceable,
  totalBytes,
  trainStep,
} from '@cohesin/core';
import { afterAll, expect, test } from 'vitest';
import { hashRanks, hashState, hostTensors } from './checkpoint.ts';
import { distribute } from './distribute.ts';
import { meshPool } from './mesh-pool.ts';
import type { Distributed } from './runner.ts';

const meshes = meshPool();
afterAll(meshes.close);

const LEAVES = 6;
const LENGTH = 32;
const INPUTS = { x: [LEAVES, LENGTH, 4], y: [LEAVES, LENGTH, 3] };
const OPTIONS = { leaves: LEAVES, inputs: INPUTS, seed: 5 };

const conv = (inputs: number, outputs: number): nn.Layer =>
  nn.conv1d({ inputs, outputs, size: 5, padding: 'same' });
const trunk = nn.sequential({
  stem: conv(4, 12),
  norm: nn.batchNorm({ channels: 12 }),
  drop: nn.dropout({ rate: 0.2 }),
  deep: conv(12, 16),
});
const modelWith = (name: string, head: nn.Layer): nn.Layer =>
  nn.sequential({ trunk, [name]: head, rate: nn.softplus });
const optimizer = adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) });
const stepOf = (model: nn.Layer): Traceable => trainStep({ model, loss: nn.poissonLoss, optimizer });
/** Sequences that do not wait for each other, so that they can go through stages. */
const stagedStepOf = (model: nn.Layer): Traceable =>
  trainStep({ model, loss: nn.poissonLoss, optimizer, batchNorm: { group: 'sequence', sequences: 1 } });
const STAGES = ['trunk.stem', 'trunk.deep'];

const values = (count: number, k: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

async function runSteps(step: Distributed, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i++)
    await step({
      x: values(LEAVES * LENGTH * 4, i),
      y: values(LEAVES * LENGTH * 3, i + 7).map(Math.abs),
    });
}

async function hashOf({ state, host }: Distributed): Promise<string> {
  await state.checkEqual();
  return hashState(new Map([...(await state.read()), ...hostTensors(host)]));
}

const model = modelWith('head', nn.linear({ inputs: 16, outputs: 3 }));

test('the programs of ranks hold each moment once, have the bits of one program, and need less memory', () => {
  const { program } = build(stepOf(model), { ...OPTIONS, leavesOnDevice: 1 });
  const { programs } = buildShared(stepOf(model), { ...OPTIONS, ranks: 3, leavesOnDevice: 1 });
  const momentsOf = ({ state }: Program): string[] =>
    state.map(({ name }) => name).filter((name) => name.startsWith('optimizer/'));
  expect(programs.flatMap(momentsOf).sort()).toEqual(momentsOf(program).sort());
  expect(new Set(programs.map(({ bitsId }) => bitsId))).toEqual(new Set([program.bitsId]));
  const texts = new Set(program.shaders);
  for (const one of programs) {
    const others = momentBytes(program) - momentBytes(one);
    expect(one.shaders.every((text) => texts.has(text))).toBe(true);
    expect(totalBytes(one, 1)).toBeLessThan(totalBytes(program, 1) - 0.9 * others);
    expect(one.handOvers.flat().every(({ bytes }) => bytes === 4)).toBe(true); // squares of gradients
  }
});

test('a sharded run goes on unsharded, and on another number of ranks, with the bits of a run on one device', async () => {
  const straight = await distribute(stepOf(model), { mesh: await meshes.of(1), ...OPTIONS });
  await runSteps(straight, 0, 9);
  const expected = await hashOf(straight);
  const legs = [
    { devices: 2, shardOptimizer: true },
    { devices: 3, shardOptimizer: false },
    { devices: 3, shardOptimizer: true },
  ];
  let saved = { host: straight.host, state: new Map<string, HostTensor>() };
  for (const [leg, { devices, shardOptimizer }] of legs.entries()) {
    const mesh = await meshes.of(devices);
    const step = await distribute(stepOf(model), { mesh, ...OPTIONS, shardOptimizer });
    if (leg > 0) {
      step.restoreHost(saved.host);
      await step.state.write(saved.state);
    }
    await runSteps(step, 3 * leg, 3 * (leg + 1));
    await step.state.checkEqual();
    saved = { host: step.host, state: await step.state.read() };
    expect(await hashRanks(step.state)).toBe(hashState(saved.state));
    await step.close();
  }
  expect(hashState(new Map([...saved.state, ...hostTensors(saved.host)]))).toBe(expected);
});

test('steps of two heads on one trunk, and a prediction, share a state whose optimizer is sharded', async () => {
  const models = ['first', 'second'].map((name, i) =>
    modelWith(name, nn.sequential({ wide: conv(16, 4 + i), out: nn.linear({ inputs: 4 + i, outputs: 3 }) })),
  );
  const hashes: string[] = [];
  const predictions: HostTensor[] = [];
  for (const [devices, where] of [
    [1, {}],
    [3, { shardOptimizer: true }],
    [3, { shardOptimizer: true, pipeline: { stages: STAGES, devices: [1, 2] } }],
  ] as const) {
    const mesh = await meshes.of(devices);
    const [first, second] = models as [nn.Layer, nn.Layer];
    const one = await distribute(stagedStepOf(first), { mesh, ...OPTIONS, ...where });
    const { state } = one;
    const two = await distribute(stagedStepOf(second), { mesh, ...OPTIONS, ...where, state });
    const predict = await distribute(predictStep({ model: second }), {
      mesh,
      leaves: LEAVES,
      inputs: { x: INPUTS.x },
      state,
    });
    await runSteps(one, 0, 2);
    await runSteps(two, 2, 4);
    await runSteps(one, 4, 5);
    predictions.push((await predict({ x: values(LEAVES * LENGTH * 4, 9) })).prediction!);
    hashes.push(await hashOf(two));
  }
  expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
  for (const prediction of predictions) expect(prediction).toEqual(predictions[0]);
});

test('ranks of a stage hold each moment of its layers once, and a run has the bits of one device', async () => {
  const momentsOf = ({ state }: Program): string[] =>
    state.map(({ name }) => name).filter((name) => name.startsWith('optimizer/'));
  const { program } = build(stagedStepOf(model), OPTIONS);
  const shared = { ...OPTIONS, stages: STAGES, sharedUpdate: { ranks: [2, 3] } };
  const { ranks = [], bitsId } = buildStages(stagedStepOf(model), shared).program;
  expect(ranks.map(({ stage }) => stage)).toEqual([0, 0, 1, 1, 1]);
  expect(ranks.flatMap(momentsOf).sort()).toEqual(momentsOf(program).sort());
  expect(ranks.map((one) => momentsOf(one).length > 0)).toEqual(ranks.map(() => true));
  expect(ranks.reduce((total, one) => total + momentBytes(one), 0)).toBe(momentBytes(program));
  expect(bitsId).toBe(program.bitsId);
  const texts = new Set(program.shaders);
  expect(ranks.flatMap(({ shaders }) => shaders).every((text) => texts.has(text))).toBe(true);

  const hashes: string[] = [];
  for (const [devices, where] of [
    [1, {}],
    [5, { shardOptimizer: true, pipeline: { stages: STAGES, devices: [2, 3] } }],
    [3, { shardOptimizer: true, pipeline: { stages: STAGES, devices: [1, 2], schedule: 'zero-bubble' } }],
  ] as const) {
    const step = await distribute(stagedStepOf(model), {
      mesh: await meshes.of(devices),
      ...OPTIONS,
      ...where,
    });
    await runSteps(step, 0, 6);
    hashes.push(await hashOf(step));
    if (devices === 5)
      expect(momentsOf(program).map((name) => step.state.ranksOf(name).length)).toEqual(
        momentsOf(program).map(() => 1),
      );
    await step.close();
  }
  expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
});
