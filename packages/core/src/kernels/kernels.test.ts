import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SOFTWARE } from '../kernel.ts';
import {
  checkConv1d,
  checkKernel,
  checkMatmul,
  checkMatmulPartials,
  eachProduct,
  noise,
} from './check-kernel.ts';
import { type Conv1dGeometry, conv1dWeightGradientChunks } from './conv1d.ts';
import { productFamily } from './family.ts';
import { type MatmulGeometry, matmulPartialsChunks } from './matmul.ts';
import { openRawDevice, prepareKernel, type RawDevice } from './run-kernel.ts';

let raw: RawDevice;
let device: GPUDevice;
const family = productFamily(SOFTWARE);

beforeAll(async () => {
  raw = await openRawDevice();
  device = raw.device;
});
afterAll(() => raw.close());

describe('matmul', () => {
  const shapes: MatmulGeometry[] = [
    { batch: 1, m: 1, k: 1, n: 1 },
    { batch: 1, m: 1, k: 37, n: 129 },
    { batch: 1, m: 131, k: 1, n: 7 },
    { batch: 1, m: 257, k: 19, n: 1 },
    { batch: 3, m: 13, k: 17, n: 11 },
    { batch: 1, m: 64, k: 256, n: 16 },
    { batch: 1, m: 97, k: 101, n: 103 },
    { batch: 2, m: 1009, k: 5, n: 3 },
    { batch: 4, m: 33, k: 8, n: 66, batchB: 1 },
    { batch: 4, m: 33, k: 8, n: 66, batchA: 1 },
  ];
  for (const shape of shapes) {
    it(`multiplies ${JSON.stringify(shape)} in all four orders`, async () => {
      for (const transposeA of [false, true]) {
        for (const transposeB of [false, true]) {
          await checkMatmul(device, family, { ...shape, transposeA, transposeB });
        }
      }
    });
  }

  it('refuses a batch that is neither that of the result nor 1', () => {
    expect(() => family.matmul({ batch: 4, m: 1, k: 1, n: 1, batchA: 2 })).toThrow(/a has batch 2/);
  });

  it('splits a long sum into ranges of k that add up to the product', async () => {
    for (const g of [
      { batch: 1, m: 7, k: 10_007, n: 5, transposeA: true },
      { batch: 2, m: 3, k: 1_001, n: 33 },
      { batch: 1, m: 1, k: 1, n: 1 },
    ]) {
      await checkMatmulPartials(device, family, g);
    }
    expect(matmulPartialsChunks({ batch: 1, m: 24, k: 65_536, n: 28 })).toBeGreaterThan(8);
  });
});

describe('conv1d and its gradients', () => {
  const base = { batch: 1, length: 101, outLength: 101, inputs: 3, outputs: 5, size: 5 } as const;
  const dense = { stride: 1, dilation: 1, padLeft: 2 } as const;
  const shapes: Conv1dGeometry[] = [
    { ...base, ...dense },
    { ...base, ...dense, inputs: 1, outputs: 1 },
    { ...base, ...dense, inputs: 33, outputs: 5 },
    { ...base, ...dense, inputs: 5, outputs: 33, batch: 3 },
    { ...base, ...dense, inputs: 37, outputs: 41, length: 53, outLength: 53, batch: 2 },
    { ...base, ...dense, inputs: 4, outputs: 24, size: 15, padLeft: 7 },
    { ...base, ...dense, size: 1, padLeft: 0, inputs: 16, outputs: 41 },
    { ...base, ...dense, size: 4, padLeft: 1, outLength: 100 },
    { ...base, ...dense, size: 4, padLeft: 0, outLength: 98 },
    { ...base, ...dense, padLeft: 4 },
    { ...base, ...dense, padLeft: -3, outLength: 90 },
    { ...base, stride: 2, dilation: 1, padLeft: 2, outLength: 51 },
    { ...base, stride: 3, dilation: 1, padLeft: 1, outLength: 34, inputs: 8, outputs: 9 },
    { ...base, stride: 3, dilation: 2, padLeft: 3, outLength: 33, batch: 2 },
    { ...base, stride: 7, dilation: 1, padLeft: 0, outLength: 15, size: 3 },
    { ...base, stride: 2, dilation: 2, padLeft: 4, outLength: 51 },
    { ...base, stride: 1, dilation: 16, padLeft: 16, size: 3, inputs: 41, outputs: 16 },
    { ...base, stride: 1, dilation: 128, padLeft: 128, size: 3 },
    { ...base, ...dense, length: 3, outLength: 3, batch: 4 },
    { ...base, ...dense, length: 1, outLength: 1, size: 9, padLeft: 4, inputs: 12, outputs: 8 },
    { ...base, ...dense, length: 3, outLength: 7, size: 3, padLeft: 4 },
    { ...base, ...dense, length: 4_099, outLength: 4_099, inputs: 4, outputs: 8, size: 7, padLeft: 3 },
    { ...base, ...dense, length: 64, outLength: 64, inputs: 64, outputs: 64 },
  ];
  for (const shape of shapes) {
    it(`agrees with plain loops for ${JSON.stringify(shape)}`, async () => {
      await checkConv1d(device, family, shape);
    });
  }

  it('keeps weight gradients over 131,071 positions accurate', async () => {
    const length = 131_071;
    const g: Conv1dGeometry = {
      ...base,
      ...dense,
      length,
      outLength: length,
      inputs: 2,
      outputs: 3,
      size: 3,
    };
    const x = noise(length * g.inputs, 10).map((value) => value + 0.5); // a mean: the sums grow with the length
    const dy = noise(length * g.outputs, 11).map((value) => value + 0.5);
    const dw = new Float64Array(g.size * g.inputs * g.outputs);
    eachProduct(g, (i, w, o) => {
      dw[w]! += dy[o]! * x[i]!;
    });
    await checkKernel(device, family.conv1dWeightGradient(g), { x, dy }, dw, conv1dWeightGradientChunks(g));
  });

  it('does not let a value of the neighbouring batch or a NaN outside reach into the padding', async () => {
    const g: Conv1dGeometry = { ...base, ...dense, batch: 3, length: 7, outLength: 7 };
    const x = noise(g.batch * g.length * g.inputs, 8);
    x.fill(Number.NaN, 0, g.length * g.inputs);
    const weight = noise(g.size * g.inputs * g.outputs, 9);
    const prepared = await prepareKernel(device, family.conv1d(g), { x, weight }, g.batch * 7 * g.outputs);
    prepared.dispatch();
    const y = await prepared.read();
    prepared.close();
    expect(y.subarray(7 * g.outputs).every(Number.isFinite)).toBe(true);
  });

  it('bounds the partial weight gradients', () => {
    const g: Conv1dGeometry = {
      ...base,
      ...dense,
      length: 524_288,
      outLength: 524_288,
      inputs: 768,
      outputs: 768,
    };
    expect(conv1dWeightGradientChunks(g) * g.size * g.inputs * g.outputs).toBeLessThanOrEqual(8_388_608);
  });

  it('refuses grouped convolutions', () => {
    expect(() => family.conv1d({ ...base, ...dense, groups: 3 })).toThrow(/groups is 3/);
  });
});
