/** Training on devices of two drivers together: level L2. Weights are equal on all ranks, and near those of one device. */
import { adam, clipGlobalNorm, nn, type Traceable, trainStep } from '@cohesin/core';
import { type DistributeOptions, distribute, hashState, type Mesh, openMesh } from '@cohesin/distributed';
import { lossOf, modelFromParams, optimizerOf } from '@cohesin/models';
import { SMALL_BASENJI, smallEnformer } from '@cohesin/models/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { addSecondDriver } from './second-driver.ts';

const STEPS = 10;
const SEQUENCES = 4;
/** Of a loss: f32 has 6e-8, and drivers differ in the last bits of exp and of what they contract. 1.4e-7 is measured. */
const TOLERANCE = 1e-6;

const devices = addSecondDriver();
let alone: Mesh;
let both: Mesh;

beforeAll(async () => {
  if (devices === undefined) return;
  const [first, second] = [devices.first, devices.second].map(({ place }) => `${place}`) as [string, string];
  alone = await openMesh({ devices: [first] });
  both = await openMesh({ devices: [first, second] });
});
afterAll(async () => {
  for (const mesh of [alone, both]) await mesh?.close();
});

interface Case {
  readonly step: () => Traceable;
  readonly x: readonly number[];
  readonly y: readonly number[];
  /** Where two stages of its layers begin. */
  readonly stages: readonly [string, string];
}

const BASENJI: Case = {
  step: () => {
    const { model, train } = modelFromParams(SMALL_BASENJI);
    return trainStep({ model, loss: lossOf(train), optimizer: optimizerOf(train) });
  },
  x: [SEQUENCES, 1_024, 4],
  y: [SEQUENCES, 112, 5],
  stages: ['trunk.0', 'trunk.2'],
};

const ENFORMER: Case = {
  step: () =>
    trainStep({
      model: smallEnformer({ transformerBlocks: 1 }).head('human'),
      loss: nn.poissonLoss,
      optimizer: adam({ learningRate: 1e-3, clip: clipGlobalNorm(0.2) }),
    }),
  x: [SEQUENCES, 128, 4],
  y: [SEQUENCES, 24, 3],
  stages: ['trunk.stem', 'trunk.transformer'],
};

/** Values that are no short binary fractions, so that every rounding shows. */
const values = (shape: readonly number[], k: number): Float32Array =>
  Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

/** Losses of the steps, after each of which all ranks hold the same, and a hash of what they hold in the end. */
async function trained(
  { step, x, y }: Case,
  mesh: Mesh,
  placed: Pick<DistributeOptions, 'leaves' | 'leavesPerSequence' | 'pipeline'>,
): Promise<{ readonly losses: readonly number[]; readonly hash: string }> {
  const run = await distribute(step(), { mesh, inputs: { x, y }, seed: 5, ...placed });
  const losses: number[] = [];
  for (let i = 0; i < STEPS; i++) {
    const { loss } = await run({ x: values(x, i), y: values(y, i + 7).map(Math.abs) });
    losses.push(loss!.data[0] as number);
    await run.state.checkEqual();
  }
  const hash = hashState(await run.state.read());
  await run.close();
  return { losses, hash };
}

describe.skipIf(devices === undefined)('on two drivers', () => {
  test.each([
    ['Basenji2', BASENJI],
    ['Enformer', ENFORMER],
  ])('a small %s trains as on one, its sequences whole, in parts and in stages', async (_, one) => {
    expect([alone.level, both.level]).toEqual(['L0', 'L2']);
    expect(both.infos[0]!.device).not.toBe(both.infos[1]!.device);
    const leaves = { leaves: SEQUENCES };
    const expected = await trained(one, alone, leaves);
    const runs = [
      await trained(one, both, leaves),
      await trained(one, both, { leavesPerSequence: 4 }),
      await trained(one, both, { ...leaves, pipeline: { stages: one.stages } }),
    ];
    for (const { losses } of runs)
      for (const [i, loss] of losses.entries())
        expect(Math.abs(loss / expected.losses[i]! - 1)).toBeLessThan(TOLERANCE);
  });

  test('the same devices in the same order repeat a run in every bit', async () => {
    const hashes = [
      await trained(ENFORMER, both, { leaves: SEQUENCES }),
      await trained(ENFORMER, both, { leaves: SEQUENCES }),
    ];
    expect(hashes[1]).toEqual(hashes[0]);
  });

  test('a number of devices is one of devices that are alike', async () => {
    const mesh = await openMesh({ devices: 2 });
    expect(mesh.level).toBe('L0');
    await mesh.close();
  });
});
