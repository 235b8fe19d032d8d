import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkConv1d, checkMatmul, checkMatmulPartials } from './check-kernel.ts';
import type { Conv1dGeometry } from './conv1d.ts';
import { implicitFamily, type ProductFamily, productFamily } from './family.ts';
import { type MatmulGeometry, matmulPartialsChunks } from './matmul.ts';
import { openRawDevice, type RawDevice } from './run-kernel.ts';
import { workgroupTileKernel } from './workgroup-tile.ts';

let raw: RawDevice;
let device: GPUDevice;
const family = productFamily({ kind: 'gpu' });

beforeAll(async () => {
  raw = await openRawDevice();
  device = raw.device;
});
afterAll(() => raw.close());

/** Tiles of 16 × 16 times this, so that small shapes meet large tiles. */
const withTile = (rows: number, columns: number): ProductFamily =>
  implicitFamily((product) => workgroupTileKernel(product, { rows, columns }));

describe('products on tiles in workgroup memory', () => {
  const shapes: readonly [ProductFamily, MatmulGeometry][] = [
    [family, { batch: 1, m: 1, k: 1, n: 1 }],
    [withTile(1, 2), { batch: 3, m: 13, k: 17, n: 11, transposeA: true, transposeB: true }],
    [withTile(4, 4), { batch: 1, m: 97, k: 101, n: 103 }],
    [withTile(8, 4), { batch: 2, m: 132, k: 36, n: 68, batchA: 1, transposeB: true }],
    [withTile(2, 8), { batch: 2, m: 36, k: 20, n: 132, batchB: 1, transposeA: true }],
  ];
  for (const [tiles, shape] of shapes) {
    it(`multiplies ${JSON.stringify(shape)}`, () => checkMatmul(device, tiles, shape));
  }

  for (const m of [7, 8]) {
    it(`splits a long sum over k for ${m} rows`, async () => {
      const g: MatmulGeometry = { batch: 1, m, k: 10_007, n: 5, transposeA: true };
      expect(matmulPartialsChunks(g)).toBeGreaterThan(100);
      await checkMatmulPartials(device, family, g);
    });
  }

  it('takes larger tiles for larger products, and splits small ones over more workgroups', () => {
    const workgroups = (size: number): number =>
      family.matmul({ batch: 1, m: size, k: 256, n: size }).workgroups;
    expect(workgroups(4_096)).toBe((4_096 / 128) ** 2);
    expect(workgroups(256)).toBe((256 / 16) ** 2);
  });
});

describe('convolutions on tiles in workgroup memory', () => {
  const base = { batch: 1, length: 101, outLength: 101, inputs: 3, outputs: 5, size: 5 } as const;
  const dense = { stride: 1, dilation: 1, padLeft: 2 } as const;
  const shapes: readonly [ProductFamily, Conv1dGeometry][] = [
    [family, { ...base, ...dense, batch: 3 }],
    [withTile(4, 2), { ...base, ...dense, inputs: 4, outputs: 24, size: 15, padLeft: 7 }],
    [withTile(1, 1), { ...base, ...dense, padLeft: -3, outLength: 90, size: 4 }],
    [withTile(2, 1), { ...base, stride: 3, dilation: 2, padLeft: 3, outLength: 33, batch: 2 }],
    [family, { ...base, stride: 2, dilation: 2, padLeft: 4, outLength: 51, inputs: 8, outputs: 12 }],
    [family, { ...base, stride: 7, dilation: 1, padLeft: 0, outLength: 15, size: 3 }],
    [withTile(2, 2), { ...base, stride: 1, dilation: 16, padLeft: 16, size: 3, inputs: 20, outputs: 16 }],
    [family, { ...base, ...dense, length: 3, outLength: 7, size: 3, padLeft: 4, batch: 4 }],
  ];
  for (const [tiles, shape] of shapes) {
    it(`agree with plain loops for ${JSON.stringify(shape)}`, () => checkConv1d(device, tiles, shape));
  }
});
