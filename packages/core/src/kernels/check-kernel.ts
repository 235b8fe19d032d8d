/** Test support: families of kernels against plain loops in float64. Not part of the library. */
import type { KernelBody } from '../kernel.ts';
import { type Conv1dGeometry, conv1dWeightGradientChunks } from './conv1d.ts';
import type { ProductFamily } from './family.ts';
import { type MatmulGeometry, matmulPartialsChunks } from './matmul.ts';
import { prepareKernel } from './run-kernel.ts';

type Inputs = Readonly<Record<string, Float32Array<ArrayBuffer>>>;

/** 1e-5 of the largest result: sums of up to some thousand products in f32, whose rounding grows as √terms · 6e-8. */
export const TOLERANCE = 1e-5;

/** Reproducible values in [−1, 1). */
export function noise(count: number, seed: number): Float32Array<ArrayBuffer> {
  let state = seed * 2_654_435_761;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** @throws when the device refuses the kernel, or its result, summed over `chunks`, is not the `expected` one. */
export async function checkKernel(
  device: GPUDevice,
  kernel: KernelBody,
  inputs: Inputs,
  expected: Float64Array,
  chunks = 1,
): Promise<void> {
  device.pushErrorScope('validation');
  const prepared = await prepareKernel(device, kernel, inputs, expected.length * chunks);
  prepared.dispatch();
  const partials = await prepared.read();
  prepared.close();
  const refused = await device.popErrorScope();
  if (refused !== null) throw new Error(refused.message);
  let scale = 0;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    let actual = 0;
    for (let chunk = 0; chunk < chunks; chunk++) actual += partials[chunk * expected.length + i]!;
    scale = Math.max(scale, Math.abs(expected[i]!));
    const difference = Math.abs(actual - expected[i]!);
    worst = difference <= worst ? worst : difference; // NaN is the worst
  }
  if (!(worst <= TOLERANCE * scale))
    throw new Error(`differs by ${worst} where the largest result is ${scale}: more than ${TOLERANCE} of it`);
}

/** The product in the given order of storage, whole and as partial sums. */
export async function checkMatmul(
  device: GPUDevice,
  family: ProductFamily,
  g: MatmulGeometry,
  draw: typeof noise = noise,
): Promise<void> {
  const a = draw((g.batchA ?? g.batch) * g.m * g.k, 4);
  const b = draw((g.batchB ?? g.batch) * g.k * g.n, 5);
  await checkKernel(device, family.matmul(g), { a, b }, matmulReference(g, a, b));
}

/** The product as partial sums over ranges of k. */
export async function checkMatmulPartials(
  device: GPUDevice,
  family: ProductFamily,
  g: MatmulGeometry,
  draw: typeof noise = noise,
): Promise<void> {
  const a = draw(g.batch * g.m * g.k, 6);
  const b = draw(g.batch * g.k * g.n, 7);
  const expected = matmulReference(g, a, b);
  await checkKernel(device, family.matmulPartials(g), { a, b }, expected, matmulPartialsChunks(g));
}

/** A convolution and both its gradients. */
export async function checkConv1d(
  device: GPUDevice,
  family: ProductFamily,
  g: Conv1dGeometry,
  draw: typeof noise = noise,
): Promise<void> {
  const kernels = [family.conv1d(g), family.conv1dInputGradient(g), family.conv1dWeightGradient(g)] as const;
  const sizes = {
    x: g.batch * g.length * g.inputs,
    weight: g.size * g.inputs * g.outputs,
    dy: g.batch * g.outLength * g.outputs,
  };
  const each = (visit: Visit): void => eachProduct(g, visit);
  await checkConvolution(device, { kernels, sizes, each, chunks: conv1dWeightGradientChunks(g), draw });
}

/** Told the flat indices of x, weight and dy of a product. */
export type Visit = (x: number, weight: number, y: number) => void;

interface Convolution {
  /** Forward, input gradient, weight gradient. */
  readonly kernels: readonly [forward: KernelBody, ofInput: KernelBody, ofWeight: KernelBody];
  readonly sizes: Readonly<Record<'x' | 'weight' | 'dy', number>>;
  readonly each: (visit: Visit) => void;
  /** Of the weight gradient. */
  readonly chunks: number;
  readonly draw?: typeof noise;
}

/** A convolution of any rank and both its gradients, by the products they are sums of. */
export async function checkConvolution(
  device: GPUDevice,
  { kernels, sizes, each, chunks, draw = noise }: Convolution,
): Promise<void> {
  const [x, weight, dy] = [draw(sizes.x, 1), draw(sizes.weight, 2), draw(sizes.dy, 3)];
  const y = new Float64Array(dy.length);
  const dx = new Float64Array(x.length);
  const dw = new Float64Array(weight.length);
  each((i, w, o) => {
    y[o]! += x[i]! * weight[w]!;
    dx[i]! += dy[o]! * weight[w]!;
    dw[w]! += dy[o]! * x[i]!;
  });
  const [forward, ofInput, ofWeight] = kernels;
  await checkKernel(device, forward, { x, weight }, y);
  await checkKernel(device, ofInput, { dy, weight }, dx);
  await checkKernel(device, ofWeight, { x, dy }, dw, chunks);
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
export function eachProduct(g: Conv1dGeometry, visit: (x: number, weight: number, y: number) => void): void {
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
