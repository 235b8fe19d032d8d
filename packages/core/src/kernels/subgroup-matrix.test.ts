import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { create, globals } from 'webgpu';
import { INSTANCE_FLAGS, subgroupMatrices } from '../device.ts';
import type { KernelBody, SubgroupMatrices } from '../kernel.ts';
import { checkConv1d, checkMatmul, checkMatmulPartials, noise } from './check-kernel.ts';
import type { Conv1dGeometry } from './conv1d.ts';
import { implicitFamily, type ProductFamily } from './family.ts';
import type { MatmulGeometry } from './matmul.ts';
import { kernelModule } from './run-kernel.ts';
import { subgroupMatrixKernel } from './subgroup-matrix.ts';
import type { Tile } from './tiled-kernel.ts';

const FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as GPUFeatureName[];

/** The family with a given tile, so that small shapes meet large tiles. */
const familyWith = (matrices: SubgroupMatrices, own?: Tile): ProductFamily =>
  implicitFamily((product) => subgroupMatrixKernel(product, matrices, own));

const base = { batch: 1, length: 101, outLength: 101, inputs: 3, outputs: 5, size: 5 } as const;
const dense = { stride: 1, dilation: 1, padLeft: 2 } as const;

describe('products on subgroup matrices', () => {
  let gpu: GPU | undefined; // kept: the native instance dies with this object
  let device: GPUDevice | undefined;
  let matrices: SubgroupMatrices | undefined;

  beforeAll(async () => {
    Object.assign(globalThis, globals);
    gpu = create(INSTANCE_FLAGS);
    const adapter = await gpu.requestAdapter();
    if (!adapter)
      throw new Error('no WebGPU adapter; install a Vulkan driver, for example mesa-vulkan-drivers');
    [matrices] = subgroupMatrices(adapter.info);
    if (matrices === undefined) return;
    const requiredLimits = {
      maxComputeWorkgroupStorageSize: adapter.limits.maxComputeWorkgroupStorageSize,
    };
    device = await adapter.requestDevice({ requiredFeatures: FEATURES, requiredLimits });
  });

  afterAll(() => {
    device?.destroy();
    gpu = undefined;
  });

  /** Whole multiples of 1/64 in [−1, 1]: f16 holds them, and f32 holds their sums. */
  const exact: typeof noise = (count, seed) => noise(count, seed).map((value) => Math.round(value * 64) / 64);

  const check = (
    name: string,
    own: Tile | undefined,
    run: (device: GPUDevice, family: ProductFamily) => Promise<void>,
  ): void => {
    it(name, async ({ skip }) => {
      if (device === undefined || matrices === undefined)
        return skip('this adapter lists no subgroup matrices; Mesa 26 does');
      await run(device, familyWith(matrices, own));
    });
  };

  const products: readonly [Tile | undefined, MatmulGeometry][] = [
    [undefined, { batch: 1, m: 1, k: 1, n: 1 }],
    [undefined, { batch: 3, m: 13, k: 17, n: 11, transposeA: true, transposeB: true }],
    [
      { rows: 4, columns: 4 },
      { batch: 1, m: 97, k: 101, n: 103 },
    ],
    [
      { rows: 2, columns: 4 },
      { batch: 2, m: 132, k: 36, n: 68, batchA: 1, transposeB: true },
    ],
    [
      { rows: 1, columns: 2 },
      { batch: 2, m: 36, k: 20, n: 132, batchB: 1, transposeA: true },
    ],
  ];
  for (const [own, shape] of products)
    check(`multiply ${JSON.stringify(shape)}`, own, (on, family) => checkMatmul(on, family, shape, exact));

  check('split a long sum over k', undefined, (on, family) =>
    checkMatmulPartials(on, family, { batch: 1, m: 7, k: 10_007, n: 5, transposeA: true }, exact),
  );

  const convolutions: readonly [Tile | undefined, Conv1dGeometry][] = [
    [undefined, { ...base, ...dense, batch: 3 }],
    [
      { rows: 4, columns: 2 },
      { ...base, ...dense, inputs: 4, outputs: 24, size: 15, padLeft: 7 },
    ],
    [undefined, { ...base, ...dense, padLeft: -3, outLength: 90, size: 4 }],
    [
      { rows: 2, columns: 1 },
      { ...base, stride: 3, dilation: 2, padLeft: 3, outLength: 33, batch: 2 },
    ],
    [undefined, { ...base, stride: 2, dilation: 2, padLeft: 4, outLength: 51, inputs: 8, outputs: 12 }],
    [
      { rows: 2, columns: 2 },
      { ...base, stride: 1, dilation: 16, padLeft: 16, size: 3, inputs: 20, outputs: 16 },
    ],
    [undefined, { ...base, ...dense, length: 3, outLength: 7, size: 3, padLeft: 4, batch: 4 }],
  ];
  for (const [own, shape] of convolutions)
    check(`convolve ${JSON.stringify(shape)}`, own, (on, family) => checkConv1d(on, family, shape, exact));
});

it("kernels for matrices that this machine may lack are valid: Dawn's null backend reads them", async () => {
  Object.assign(globalThis, globals);
  const gpu = create(['backend=null', ...INSTANCE_FLAGS]);
  const adapter = await gpu.requestAdapter();
  const requiredFeatures = FEATURES.filter((name) => adapter!.features.has(name));
  const device = await adapter!.requestDevice({ requiredFeatures });
  const errors = async (code: string): Promise<string[]> => {
    device.pushErrorScope('validation');
    const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
    await device.popErrorScope();
    return messages.filter(({ type }) => type !== 'info').map(({ message }) => message);
  };
  const nvidia = familyWith({ m: 16, n: 16, k: 16, subgroupSize: 32 });
  const oblong = familyWith({ m: 16, n: 8, k: 8, subgroupSize: 32 }, { rows: 2, columns: 4 });
  const large: Conv1dGeometry = {
    ...base,
    ...dense,
    length: 131_072,
    outLength: 131_072,
    inputs: 768,
    outputs: 768,
  };
  for (const family of [nvidia, oblong]) {
    const kernels: readonly [KernelBody, string[]][] = [
      [family.matmul({ batch: 1, m: 4_096, k: 1_536, n: 1_536 }), ['a', 'b']],
      [family.matmul({ batch: 2, m: 33, k: 7, n: 65, transposeA: true, transposeB: true }), ['a', 'b']],
      [family.conv1d(large), ['x', 'weight']],
      [family.conv1dInputGradient(large), ['dy', 'weight']],
      [family.conv1dInputGradient({ ...large, stride: 3, outLength: 43_691 }), ['dy', 'weight']],
      [family.conv1dWeightGradient(large), ['x', 'dy']],
    ];
    for (const [kernel, inputs] of kernels) expect(await errors(kernelModule(kernel, inputs))).toEqual([]);
  }
  const [kernel] = [nvidia.conv1d(large)];
  expect(kernel.workgroups).toBe((131_072 / 128) * (768 / 128));
  const broken = { ...kernel, body: kernel.body.replace('rowStart', 'lane') };
  expect(await errors(kernelModule(broken, ['x', 'weight']))).not.toEqual([]);
  device.destroy();
  void gpu; // Dawn crashes when it is collected before its devices
});
