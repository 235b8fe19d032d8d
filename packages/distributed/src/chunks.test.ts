import { adam, clipGlobalNorm, Device, nn, type Traceable, trainStep } from '@cohesin/core';
import { afterAll, expect, test } from 'vitest';
import { vectorMemory } from './add-wide.ts';
import { hashState } from './checkpoint.ts';
import { CHUNK_MEMORY_BYTES, Chunks, chunkMemory, heldBytes } from './chunks.ts';
import { distribute } from './distribute.ts';
import { meshPool } from './mesh-pool.ts';
import { recordedTimes, recordTimes } from './trace-file.ts';

const meshes = meshPool();
afterAll(meshes.close);

const WIDTH = 701; // 8 bytes of gradient sums a weight: 3.9 MB, in chunks of 1 MiB
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

test('gradients of several chunks give the same bits on 1 and 3 devices, sharded or not', async () => {
  const hashes: string[] = [];
  for (const [devices, shardOptimizer] of [
    [1, false],
    [3, false],
    [3, true],
  ] as const) {
    const inputs = { x: [LEAVES, WIDTH], y: [LEAVES, 2] };
    const mesh = await meshes.of(devices);
    const step = await distribute(wide(), { mesh, leaves: LEAVES, inputs, shardOptimizer });
    await recordTimes(mesh);
    for (let i = 0; i < 2; i++) await step({ x: values(LEAVES * WIDTH, i), y: values(LEAVES * 2, i + 7) });
    for (const { spans } of await recordedTimes(mesh)) {
      const sums = spans.filter(({ name }) => name === 'summing gradients');
      const passes = spans.filter(({ name }) => name === 'forward and backward');
      const inside = sums.filter((sum) =>
        passes.some(({ start, end }) => start < sum.start && sum.end < end),
      );
      const chunks = shardOptimizer ? 12 : 4; // where one rank adds all of the wide layer, each is smaller
      expect(inside.length).toBe(devices === 1 ? 0 : passes.length * (chunks - 1));
      expect(sums.length - inside.length).toBe(devices === 1 ? 0 : passes.length);
    }
    await step.state.checkEqual();
    hashes.push(hashState(await step.state.read()));
    await step.close();
  }
  expect(new Set(hashes).size).toBe(1);
});

test('gradients of any size are added in memory of the same size', () => {
  for (const ranks of [2, 3, 8, 64]) {
    const [large, larger] = [chunkMemory(ranks, 2 ** 28), chunkMemory(ranks, 2 ** 31)];
    expect(larger.slot).toBe(large.slot);
    expect(large.areas.buffer.byteLength).toBeGreaterThan(0.3 * CHUNK_MEMORY_BYTES);
    expect(large.areas.buffer.byteLength).toBeLessThanOrEqual(CHUNK_MEMORY_BYTES);
    expect(heldBytes(large, ranks)).toBeLessThan(0.6 * CHUNK_MEMORY_BYTES);
  }
});

test('a chunk is copied before the work that follows it, and added while the device has more of that', async () => {
  await using device = await Device.open();
  const [slot, bytes] = [1024, 10.5 * 1024];
  const buffer = device.createBuffer(bytes, 'sums');
  const fill = (from: number, to: number, value: bigint): void =>
    device.write(buffer, from, new Uint8Array(new BigInt64Array((to - from) / 8).fill(value).buffer));
  const events: string[] = [];
  const chunks = new Chunks({
    memory: { areas: vectorMemory(3 * slot), slot },
    ranks: 1,
    rank: 0,
    meet: () => {},
    adding: (size, last, add) => {
      events.push(`add ${size}${last ? ', the last' : ''}`);
      add();
    },
  });
  let [from, done] = [0, 0];
  await chunks.sum(device, { buffer, bytes }, (end) => {
    events.push(`work up to ${end}`);
    fill(from, done, -1n); // a copy that is made too late has this
    if (end > bytes) return;
    fill(done, end, BigInt(end));
    [from, done] = [done, end];
  });
  const work = (chunk: number): string => `work up to ${chunk * slot}`;
  expect(events).toEqual([
    ...[1, 2, 3, 4, 5, 6, 7, 8].map(work),
    ...['add 1024', work(9), 'add 1024', work(10), 'add 1024', work(10.5), 'work up to Infinity'],
    ...[...Array(7).fill('add 1024'), 'add 512, the last'],
  ]);
  const [totals] = await device.read([{ buffer, bytes }]);
  const expected = BigInt64Array.from({ length: bytes / 8 }, (_, i) =>
    BigInt(Math.min(bytes, slot * (1 + Math.floor((8 * i) / slot)))),
  );
  expect(new BigInt64Array(totals!.buffer)).toEqual(expected);
});
