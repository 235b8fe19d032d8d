import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { create, globals } from 'webgpu';
import type { KernelBody } from '../kernel.ts';
import {
  type Conv1dGeometry,
  conv1dInputGradientKernel,
  conv1dKernel,
  conv1dWeightGradientChunks,
  conv1dWeightGradientKernel,
} from './conv1d.ts';
import { type MatmulGeometry, matmulKernel, matmulPartialsChunks, matmulPartialsKernel } from './matmul.ts';
import { prepareKernel } from './run-kernel.ts';

/** 1e-5 of the largest result: sums of up to some thousand products in f32, whose rounding grows as √terms · 6e-8. */
const TOLERANCE = 1e-5;

let gpu: GPU | undefined; // kept: the native instance dies with this object
let device: GPUDevice;

beforeAll(async () => {
  Object.assign(globalThis, globals);
  gpu = create([]);
  const adapter = await gpu.requestAdapter();
  if (!adapter)
    throw new Error('no WebGPU adapter; install a Vulkan driver, for example mesa-vulkan-drivers');
  device = await adapter.requestDevice();
});

afterAll(() => {
  device.destroy();
  gpu = undefined;
});

/** Reproducible values in [−1, 1). */
function noise(count: number, seed: number): Float32Array<ArrayBuffer> {
  let state = seed * 2_654_435_761;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

async function expectKernel(
  kernel: KernelBody,
  inputs: Readonly<Record<string, Float32Array<ArrayBuffer>>>,
  expected: Float64Array,
  chunks = 1,
): Promise<void> {
  device.pushErrorScope('validation');
  const prepared = await prepareKernel(device, kernel, inputs, expected.length * chunks);
  prepared.dispatch();
  const partials = await prepared.read();
  prepared.close();
  expect(await device.popErrorScope()).toBeNull();
  let scale = 0;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    let actual = 0;
    for (let chunk = 0; chunk < chunks; chunk++) actual += partials[chunk * expected.length + i]!;
    scale = Math.max(scale, Math.abs(expected[i]!));
    const difference = Math.abs(actual - expected[i]!);
    worst = difference <= worst ? worst : difference; // NaN is the worst
  }
  expect(worst).toBeLessThanOrEqual(TOLERANCE * scale);
}

function matmulReference(g: MatmulGeometry, a: Float32Array, b: Float32Array): Float64Array {
  const y = new Float64Array(g.batch * g.m * g.n);
  for (let batch = 0; batch < g.batch; batch++) {
    const aStart = g.batchA === 1 ? 0 : batch * g.m * g.k;
    const bStart = g.batchB === 1 ? 0 : batch * g.k * g.n;
    for (let row = 0; row < g.m; row++) {
      for (let column = 0; column < g.n; column++) {
        let sum = 0;
        for (let k = 0; k < g.k; k++) {
          const left = a[aStart + (g.transposeA ? k * g.m + row : row * g.k + k)]!;
          sum += left * b[bStart + (g.transposeB ? column * g.k + k : k * g.n + column)]!;
        }
        y[(batch * g.m + row) * g.n + column] = sum;
      }
    }
  }
  return y;
}

/** Calls `visit` with the flat indices of x, weight and dy of every product of the convolution. */
function eachProduct(g: Conv1dGeometry, visit: (x: number, weight: number, y: number) => void): void {
  for (let b = 0; b < g.batch; b++) {
    for (let p = 0; p < g.outLength; p++) {
      for (let t = 0; t < g.size; t++) {
        const q = p * g.stride + t * g.dilation - g.padLeft;
        if (q < 0 || q >= g.length) continue;
        for (let c = 0; c < g.inputs; c++) {
          for (let o = 0; o < g.outputs; o++) {
            visit(
              (b * g.length + q) * g.inputs + c,
              (t * g.inputs + c) * g.outputs + o,
              (b * g.outLength + p) * g.outputs + o,
            );
          }
        }
      }
    }
  }
}

async function checkConv1d(g: Conv1dGeometry): Promise<void> {
  const x = noise(g.batch * g.length * g.inputs, 1);
  const weight = noise(g.size * g.inputs * g.outputs, 2);
  const dy = noise(g.batch * g.outLength * g.outputs, 3);
  const y = new Float64Array(dy.length);
  const dx = new Float64Array(x.length);
  const dw = new Float64Array(weight.length);
  eachProduct(g, (i, w, o) => {
    y[o]! += x[i]! * weight[w]!;
    dx[i]! += dy[o]! * weight[w]!;
    dw[w]! += dy[o]! * x[i]!;
  });
  await expectKernel(conv1dKernel(g), { x, weight }, y);
  await expectKernel(conv1dInputGradientKernel(g), { dy, weight }, dx);
  await expectKernel(conv1dWeightGradientKernel(g), { x, dy }, dw, conv1dWeightGradientChunks(g));
}

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
      const a = noise((shape.batchA ?? shape.batch) * shape.m * shape.k, 4);
      const b = noise((shape.batchB ?? shape.batch) * shape.k * shape.n, 5);
      for (const transposeA of [false, true]) {
        for (const transposeB of [false, true]) {
          const g = { ...shape, transposeA, transposeB };
          await expectKernel(matmulKernel(g), { a, b }, matmulReference(g, a, b));
        }
      }
    });
  }

  it('refuses a batch that is neither that of the result nor 1', () => {
    expect(() => matmulKernel({ batch: 4, m: 1, k: 1, n: 1, batchA: 2 })).toThrow(/a has batch 2/);
  });

  it('splits a long sum into ranges of k that add up to the product', async () => {
    for (const g of [
      { batch: 1, m: 7, k: 10_007, n: 5, transposeA: true },
      { batch: 2, m: 3, k: 1_001, n: 33 },
      { batch: 1, m: 1, k: 1, n: 1 },
    ]) {
      const a = noise(g.batch * g.m * g.k, 6);
      const b = noise(g.batch * g.k * g.n, 7);
      await expectKernel(
        matmulPartialsKernel(g),
        { a, b },
        matmulReference(g, a, b),
        matmulPartialsChunks(g),
      );
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
      await checkConv1d(shape);
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
    await expectKernel(conv1dWeightGradientKernel(g), { x, dy }, dw, conv1dWeightGradientChunks(g));
  });

  it('does not let a value of the neighbouring batch or a NaN outside reach into the padding', async () => {
    const g: Conv1dGeometry = { ...base, ...dense, batch: 3, length: 7, outLength: 7 };
    const x = noise(g.batch * g.length * g.inputs, 8);
    x.fill(Number.NaN, 0, g.length * g.inputs);
    const weight = noise(g.size * g.inputs * g.outputs, 9);
    const prepared = await prepareKernel(device, conv1dKernel(g), { x, weight }, g.batch * 7 * g.outputs);
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
    expect(() => conv1dKernel({ ...base, ...dense, groups: 3 })).toThrow(/groups is 3/);
  });
});
