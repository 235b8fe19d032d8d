import {
  adam,
  build,
  buildShared,
  clipGlobalNorm,
  type DeviceInfo,
  nn,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import { afterAll, expect, test } from 'vitest';
import { type DistributeOptions, distribute } from './distribute.ts';
import { checkExchanges, mixedBitsId } from './kinds.ts';
import { differenceOf, levelOf } from './level.ts';
import type { Mesh } from './mesh.ts';
import { meshPool } from './mesh-pool.ts';

const meshes = meshPool();
afterAll(meshes.close);

const SEQUENCES = 4;
const LENGTH = 64;
const INPUTS = { x: [SEQUENCES, LENGTH, 4], y: [SEQUENCES, LENGTH / 4, 3] };
/** Of a loss in f32: families of kernels add products in other orders. */
const TOLERANCE = 1e-6;

function step(): Traceable {
  const model = nn.sequential({
    stem: nn.conv1d({ inputs: 4, outputs: 12, size: 15, padding: 'same', bias: false }),
    norm: nn.batchNorm({ channels: 12 }),
    pool: nn.maxPool({ size: 4 }),
    deep: nn.conv1d({ inputs: 12, outputs: 16, size: 3, padding: 'same' }),
    drop: nn.dropout({ rate: 0.2 }),
    head: nn.linear({ inputs: 16, outputs: 3 }),
    rate: nn.softplus,
  });
  const optimizer = adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) });
  return trainStep({ model, loss: nn.poissonLoss, optimizer });
}

const values = (shape: readonly number[], k: number): Float32Array =>
  Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

type Placed = Pick<DistributeOptions, 'leaves' | 'leavesPerSequence' | 'pipeline'>;

async function losses(mesh: Mesh, placed: Placed): Promise<number[]> {
  const run = await distribute(step(), { mesh, inputs: INPUTS, seed: 5, ...placed });
  const found: number[] = [];
  for (let i = 0; i < 5; i++) {
    const { loss } = await run({ x: values(INPUTS.x, i), y: values(INPUTS.y, i + 7).map(Math.abs) });
    found.push(loss!.data[0] as number);
    await run.state.checkEqual();
  }
  await run.close();
  return found;
}

/** The last rank gets the kernels of a GPU, which software drivers run too. */
async function twoKinds(ranks: number): Promise<Mesh> {
  const mesh = await meshes.of(ranks);
  const other: DeviceInfo = { ...mesh.info, software: false };
  return { ...mesh, infos: [...mesh.infos.slice(0, -1), other], level: 'L2' };
}

test.each<[string, Placed]>([
  ['whole sequences', { leaves: SEQUENCES }],
  ['parts of sequences', { leavesPerSequence: 4 }],
  ['stages', { leaves: SEQUENCES, pipeline: { stages: ['stem', 'deep'] } }],
])(
  'ranks with other kernels share %s, hold the same weights after each step, and train as one device',
  async (_, placed) => {
    const { pipeline: _pipeline, ...cut } = placed;
    const expected = await losses(await meshes.of(1), cut);
    const found = await losses(await twoKinds(2), placed);
    for (const [i, loss] of found.entries())
      expect(Math.abs(loss / expected[i]! - 1)).toBeLessThan(TOLERANCE);
  },
);

test('devices of one stage that differ are refused, with what differs', async () => {
  const placed = { leaves: SEQUENCES, pipeline: { stages: ['stem', 'deep'], devices: [1, 2] } };
  await expect(losses(await twoKinds(3), placed)).rejects.toThrow(
    /the devices of stage 1 are not alike: ranks 1 and 2 differ in software: .*true and .*false.* give unlike devices stages of their own/,
  );
  const alike = { leaves: SEQUENCES, pipeline: { stages: ['stem', 'deep'], devices: [2, 1] } };
  await expect(losses(await twoKinds(3), alike)).resolves.toHaveLength(5);
});

test('devices are at level L0 if they say the same of themselves, and else at L2', async () => {
  const { info } = await meshes.of(1);
  expect(levelOf([info, { ...info }])).toBe('L0');
  const newer = { ...info, description: 'a driver' };
  expect(levelOf([info, info, newer])).toBe('L2');
  expect(differenceOf([info, info, newer])).toBe(
    `ranks 0 and 2 differ in description: ${JSON.stringify(info.description)} and "a driver"`,
  );
});

test('programs that would exchange other tensors are refused', () => {
  const options = { leaves: SEQUENCES, inputs: INPUTS, ranks: 2 };
  const { programs } = buildShared(step(), options);
  const gpu = buildShared(step(), { ...options, target: { kind: 'gpu' }, bindingLimit: 2 ** 10 }).programs;
  checkExchanges([programs, gpu, programs]);
  expect(() => checkExchanges([programs, buildShared(step(), { ...options, leaves: 2 }).programs])).toThrow(
    /program 0 for one kind of device has the gathered pieces .*, for another/,
  );
  const [first, second] = [programs[0]!.bitsId, gpu[0]!.bitsId];
  expect(first).not.toBe(second);
  expect(mixedBitsId([...programs, ...programs])).toBe(build(step(), options).program.bitsId);
  expect(mixedBitsId([...gpu, ...programs])).toBe(mixedBitsId([...programs, ...gpu]));
  expect([first, second]).not.toContain(mixedBitsId([...programs, ...gpu]));
});
