import {
  adam,
  clipGlobalNorm,
  type HostTensor,
  nn,
  type Optimizer,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import { type DistributeOptions, distribute, hashState, hostTensors } from '@cohesin/distributed';
import { meshPool } from '@cohesin/distributed/testing';
import { lossOf, optimizerOf } from '@cohesin/models';
import { smallAkita, smallEnformer } from '@cohesin/models/testing';
import { afterAll, describe, expect, test } from 'vitest';

const meshes = meshPool();
afterAll(meshes.close);

const SEQUENCES = 2;

/** Values that are no short binary fractions, so that every rounding shows. */
const values = (count: number, k: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

interface Case {
  readonly model: () => nn.Layer;
  readonly x: readonly number[];
  readonly y: readonly number[];
  readonly loss: nn.Loss;
  readonly optimizer: Optimizer;
  /** Where two stages of its layers begin. */
  readonly stages: readonly [string, string];
}

const ENFORMER: Case = {
  model: () => smallEnformer({ transformerBlocks: 1 }).head('human'),
  x: [SEQUENCES, 128, 4],
  y: [SEQUENCES, 24, 3],
  loss: nn.poissonLoss,
  optimizer: adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.2) }),
  stages: ['trunk.stem', 'trunk.transformer'],
};

const { config, train } = smallAkita();
const AKITA: Case = {
  model: () => smallAkita().model,
  x: [SEQUENCES, 128, 4],
  y: [SEQUENCES, ...config.outputShape],
  loss: lossOf(train),
  optimizer: optimizerOf(train),
  stages: ['trunk.0', 'head'],
};

function step({ model, loss, optimizer }: Case): Traceable {
  return trainStep({ model: model(), loss, optimizer });
}

interface Result {
  readonly hash: string;
  readonly losses: readonly number[];
  readonly state: ReadonlyMap<string, HostTensor>;
}

async function trained(
  one: Case,
  devices: number,
  placed: Pick<
    DistributeOptions,
    'leaves' | 'leavesPerSequence' | 'replicas' | 'pipeline' | 'shardOptimizer'
  >,
  steps: number,
): Promise<Result> {
  const inputs = { x: one.x, y: one.y };
  const run = await distribute(step(one), { mesh: await meshes.of(devices), inputs, seed: 5, ...placed });
  const losses: number[] = [];
  const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
  for (let i = 0; i < steps; i++) {
    const y = values(count(one.y), i + 7).map(Math.abs);
    losses.push((await run({ x: values(count(one.x), i), y })).loss!.data[0] as number);
  }
  await run.state.checkEqual();
  const state = await run.state.read();
  const hash = hashState(new Map([...state, ...hostTensors(run.host)]));
  await run.close();
  return { hash, losses, state };
}

describe.each([
  ['Enformer', ENFORMER],
  ['Akita', AKITA],
] as const)('a small %s, its sequences cut into 8 parts', (_, one) => {
  test('the same weights after 20 steps on 1, 3 and 8 devices, with the optimizer sharded, on two groups, and in stages that share parts', async () => {
    const hashes: string[] = [];
    const [stages, leavesPerSequence] = [one.stages, 8];
    for (const [devices, placed] of [
      [1, {}],
      [3, { shardOptimizer: true }],
      [8, {}],
      [2, { replicas: 2, shardOptimizer: true }],
      [4, { replicas: 2, pipeline: { stages, devices: [3, 1], schedule: 'zero-bubble' } }],
    ] as const)
      hashes.push((await trained(one, devices, { leavesPerSequence, ...placed }, 20)).hash);
    expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
  }, 300_000);

  test('the losses of whole sequences, within f32 rounding', async () => {
    const cut = await trained(one, 1, { leavesPerSequence: 8 }, 3);
    const whole = await trained(one, 1, { leaves: SEQUENCES }, 3);
    for (const [i, loss] of cut.losses.entries()) expect(loss / whole.losses[i]!).toBeCloseTo(1, 5);
  }, 300_000);
});
