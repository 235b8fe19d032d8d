import { adam, clipGlobalNorm, dropout, nn, type Traceable, trainStep } from '@cohesin/core';
import { afterAll, expect, test } from 'vitest';
import { type DistributeOptions, distribute } from './distribute.ts';
import { type ComparedSteps, compareWritten, type Written } from './inspect.ts';
import { meshPool } from './mesh-pool.ts';

const meshes = meshPool();
afterAll(meshes.close);

const SEQUENCES = 4;
const x = [SEQUENCES, 64, 4];
const y = [SEQUENCES, 32, 3];
const values = (shape: readonly number[], k: number): Float32Array =>
  Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

const model = (rate: number): nn.Layer =>
  nn.sequential({
    stem: nn.conv1d({ inputs: 4, outputs: 6, size: 5, padding: 'same' }),
    norm: nn.batchNorm({ channels: 6 }),
    deep: nn.conv1d({ inputs: 6, outputs: 6, size: 3, padding: 'same' }),
    drop: (input) => dropout(input, { rate, name: 'drop' }),
    pool: nn.maxPool({ size: 2 }),
    head: nn.linear({ inputs: 6, outputs: 3 }),
    rate: nn.softplus,
  });

const step = (rate = 0.3): Traceable =>
  trainStep({
    model: model(rate),
    loss: nn.poissonLoss,
    optimizer: adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.5) }),
  });

type Options = Partial<Omit<DistributeOptions, 'mesh' | 'inputs'>>;

/** What is written in a step after so many. */
async function written(
  fn: Traceable,
  devices: number,
  options: Options,
  stepsBefore = 1,
): Promise<Written[][]> {
  const mesh = await meshes.of(devices);
  const run = await distribute(fn, { mesh, inputs: { x, y }, seed: 5, ...options });
  const batch = (k: number) => ({ x: values(x, k), y: values(y, k + 7).map(Math.abs) });
  for (let k = 0; k < stepsBefore; k++) await run(batch(k));
  const ranks = await run.inspect(batch(stepsBefore));
  await run.close();
  return ranks.written.map((list) => [...list]);
}

const same = ({ differences, alone }: ComparedSteps): void => {
  expect(differences.slice(0, 3)).toEqual([]);
  expect(alone).toBe(0);
};

test('whole sequences on one device, on three and in stages store the same tensors', async () => {
  const leaves = SEQUENCES;
  const one = await written(step(), 1, { leaves });
  const three = compareWritten(one, await written(step(), 3, { leaves }));
  same(three);
  expect(three.tensors).toBe(new Set(one[0]!.map(({ ordinal }) => ordinal)).size);
  expect(three.copies).toBe(one[0]!.length);
  const pipeline = { stages: ['stem', 'deep'], devices: [1, 2], schedule: 'zero-bubble' } as const;
  const staged = compareWritten(one, await written(step(), 3, { leaves, pipeline, shardOptimizer: true }));
  same(staged);
  expect(staged.copies).toBe(one[0]!.length);
});

test('parts of sequences on one device and on three store the same tensors', async () => {
  const leavesPerSequence = 4;
  const one = await written(step(), 1, { leavesPerSequence });
  const compared = compareWritten(one, await written(step(), 3, { leavesPerSequence }));
  same(compared);
  expect(compared.copies).toBe(one[0]!.length);
});

test('the first tensor that differs is named, with its leaf and the ranks', async () => {
  const leaves = SEQUENCES;
  const one = await written(step(), 1, { leaves }, 0);
  const other = await written(step(0.3 + 1e-7), 2, { leaves }, 0); // another scale of what is kept, by an ulp or so
  const { differences } = compareWritten(one, other);
  expect(differences[0]).toMatchObject({
    label: expect.stringMatching(/^deep: conv1d .* \+ dropout$/),
    leaf: 0,
    sides: [
      { placement: 0, rank: 0 },
      { placement: 1, rank: 0 },
    ],
  });
  const changed = one.map((list) =>
    list.map((tensor) =>
      tensor.leaf === 2 && tensor.label.startsWith('stem: ') ? { ...tensor, hash: 'changed' } : tensor,
    ),
  );
  const [first] = compareWritten(one, changed).differences;
  expect(first).toMatchObject({ label: expect.stringMatching(/^stem: /), leaf: 2, round: 0 });
});
