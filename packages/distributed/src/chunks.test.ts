import { adam, clipGlobalNorm, nn, type Traceable, trainStep } from '@cohesin/core';
import { afterAll, expect, test } from 'vitest';
import { hashState } from './checkpoint.ts';
import { CHUNK_MEMORY_BYTES } from './chunks.ts';
import { distribute } from './distribute.ts';
import { meshPool } from './mesh-pool.ts';

const meshes = meshPool();
afterAll(meshes.close);

const WIDTH = 1_601; // 8 bytes of gradient sums a weight: more than three chunks of a third of the memory
const LEAVES = 3;

const wide = (): Traceable =>
  trainStep({
    model: nn.sequential({
      wide: nn.linear({ inputs: WIDTH, outputs: WIDTH }),
      head: nn.linear({ inputs: WIDTH, outputs: 2 }),
    }),
    loss: nn.mseLoss,
    optimizer: adam({ learningRate: 1e-3, clip: clipGlobalNorm(0.5) }),
  });

const values = (count: number, k: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

test('gradients of several chunks give the same bits on 1 and 3 devices, sharded or not, in memory that stays the same', async () => {
  expect(8 * WIDTH ** 2).toBeGreaterThan(CHUNK_MEMORY_BYTES / 4);
  const hashes: string[] = [];
  for (const [devices, shardOptimizer] of [
    [1, false],
    [3, false],
    [3, true],
  ] as const) {
    const inputs = { x: [LEAVES, WIDTH], y: [LEAVES, 2] };
    const mesh = await meshes.of(devices);
    const step = await distribute(wide(), { mesh, leaves: LEAVES, inputs, shardOptimizer });
    for (let i = 0; i < 2; i++) await step({ x: values(LEAVES * WIDTH, i), y: values(LEAVES * 2, i + 7) });
    await step.state.checkEqual();
    hashes.push(hashState(await step.state.read()));
    if (devices > 1) expect(step.hostBytes).toBeGreaterThan(0.9 * CHUNK_MEMORY_BYTES);
    expect(step.hostBytes).toBeLessThan(1.4 * CHUNK_MEMORY_BYTES);
    await step.close();
  }
  expect(new Set(hashes).size).toBe(1);
});
