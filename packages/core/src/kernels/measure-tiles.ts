/**
 * Measures the tiles of the GPU families on this machine's device: what the costs in `workgroup-tile.ts` and
 * `subgroup-matrix.ts` are to be fitted to. Training never measures: it chooses by those costs, the same everywhere.
 *
 *     node packages/core/dist/kernels/measure-tiles.js [--small]
 */
import { create, globals } from 'webgpu';
import { INSTANCE_FLAGS, RAISED_LIMITS, subgroupMatrices, WANTED_FEATURES } from '../device.ts';
import type { KernelBody } from '../kernel.ts';
import { noise } from './check-kernel.ts';
import { type Conv1dGeometry, conv1dInputGradientKernel, conv1dKernel } from './conv1d.ts';
import { conv1dInputGradientProduct, conv1dProduct } from './conv1d-product.ts';
import { type ImplicitProduct, matmulProduct } from './implicit-product.ts';
import { type MatmulGeometry, matmulKernel } from './matmul.ts';
import { type PreparedKernel, prepareKernel } from './run-kernel.ts';
import { MATRIX_TILES, subgroupMatrixKernel } from './subgroup-matrix.ts';
import { THREAD_TILES, workgroupTileKernel } from './workgroup-tile.ts';

type Inputs = Readonly<Record<string, Float32Array<ArrayBuffer>>>;

export interface Candidate {
  readonly name: string;
  readonly kernel: KernelBody;
}

export interface Measured {
  readonly name: string;
  /** Median of one dispatch, in µs; undefined when the result is wrong, so that it can never be the fastest. */
  readonly microseconds: number | undefined;
}

/** Of the largest result: inputs are whole multiples of 1/64, which f16 holds, so only the order of f32 sums differs. */
const TOLERANCE = 1e-5;
const RUNS = 7;
const RUN_MS = 20;

/** Times each candidate whose result is that of the `reference` kernel; fastest first, wrong ones last. */
export async function measureCandidates(
  device: GPUDevice,
  candidates: readonly Candidate[],
  reference: KernelBody,
  inputs: Inputs,
  outputs: number,
): Promise<Measured[]> {
  const right = await prepareKernel(device, reference, inputs, outputs);
  right.dispatch();
  const expected = await right.read();
  right.close();
  const measured: Measured[] = [];
  for (const { name, kernel } of candidates) {
    const prepared = await prepareKernel(device, kernel, inputs, outputs);
    prepared.dispatch();
    const same = agrees(await prepared.read(), expected);
    measured.push({ name, microseconds: same ? await median(device, prepared) : undefined });
    prepared.close();
  }
  return measured.sort((a, b) => (a.microseconds ?? Number.MAX_VALUE) - (b.microseconds ?? Number.MAX_VALUE));
}

function agrees(found: Float32Array, expected: Float32Array): boolean {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return found.every((value, i) => Math.abs(value - expected[i]!) <= TOLERANCE * largest);
}

async function median(device: GPUDevice, kernel: PreparedKernel): Promise<number> {
  const dispatch = async (count: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < count; i++) kernel.dispatch();
    await device.queue.onSubmittedWorkDone();
    return (performance.now() - start) / count;
  };
  const count = Math.max(1, Math.ceil(RUN_MS / (await dispatch(1))));
  const times: number[] = [];
  for (let run = 0; run < RUNS; run++) times.push(await dispatch(count));
  return times.sort((a, b) => a - b)[RUNS >> 1]! * 1_000;
}

/** A product that models are made of. */
interface Shape {
  readonly name: string;
  readonly product: ImplicitProduct;
  readonly reference: KernelBody;
  /** Elements of each input, and of the output. */
  readonly inputs: Readonly<Record<string, number>>;
  readonly outputs: number;
}

function shapes(small: boolean): readonly Shape[] {
  const sizes = small ? [96, 160] : [256, 1_536, 4_096];
  const lengths = small
    ? [[96, 16]]
    : [
        [131_072, 64],
        [8_192, 256],
        [8_192, 768],
        [1_536, 1_536],
      ];
  return [
    ...sizes.map((n) => matmulShape({ batch: 1, m: n, k: n, n })),
    ...lengths.flatMap(([length, channels]) => convShapes(length!, channels!)),
  ];
}

function matmulShape(geometry: MatmulGeometry): Shape {
  const { m, k, n } = geometry;
  return {
    name: `matmul ${m} × ${k} × ${n}`,
    product: matmulProduct(geometry),
    reference: matmulKernel(geometry),
    inputs: { a: m * k, b: k * n },
    outputs: m * n,
  };
}

function convShapes(length: number, channels: number): Shape[] {
  const size = 5;
  const geometry: Conv1dGeometry = {
    ...{ batch: 1, length, outLength: length, inputs: channels, outputs: channels },
    ...{ size, stride: 1, dilation: 1, padLeft: 2 },
  };
  const [elements, weight] = [length * channels, size * channels * channels];
  return [
    {
      name: `conv1d ${length} × ${channels}, 5 taps`,
      product: conv1dProduct(geometry),
      reference: conv1dKernel(geometry),
      inputs: { x: elements, weight },
      outputs: elements,
    },
    {
      name: `its input gradient`,
      product: conv1dInputGradientProduct(geometry),
      reference: conv1dInputGradientKernel(geometry),
      inputs: { dy: elements, weight },
      outputs: elements,
    },
  ];
}

const print = (line: string): void => void process.stdout.write(`${line}\n`);

async function main(small: boolean): Promise<void> {
  Object.assign(globalThis, globals);
  const gpu = create(INSTANCE_FLAGS);
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null) throw new Error('no WebGPU adapter; install a Vulkan driver');
  const limits = adapter.limits as unknown as Record<string, number>;
  const device = await adapter.requestDevice({
    requiredFeatures: WANTED_FEATURES.filter((name) => adapter.features.has(name)) as GPUFeatureName[],
    requiredLimits: Object.fromEntries(RAISED_LIMITS.map((name) => [name, limits[name]!])),
  });
  const [matrices] = subgroupMatrices(adapter.info);
  print(`${adapter.info.description}; subgroup matrices: ${JSON.stringify(matrices) ?? 'none'}`);
  for (const { name, product, reference, inputs, outputs } of shapes(small)) {
    const draw = (count: number, seed: number): Float32Array<ArrayBuffer> =>
      noise(count, seed).map((value) => Math.round(value * 64) / 64);
    const drawn = Object.entries(inputs).map(([input, count], i) => [input, draw(count, i + 1)] as const);
    const candidates: Candidate[] = [
      { name: 'registers', kernel: reference },
      { name: 'workgroup, chosen', kernel: workgroupTileKernel(product) },
      ...THREAD_TILES.map((tile) => ({
        name: `workgroup ${tile.rows * 16} × ${tile.columns * 16}`,
        kernel: workgroupTileKernel(product, tile),
      })),
      ...(matrices === undefined
        ? []
        : [
            { name: 'matrices, chosen', kernel: subgroupMatrixKernel(product, matrices) },
            ...MATRIX_TILES.map((tile) => ({
              name: `matrices ${tile.rows * 2 * matrices.m} × ${tile.columns * 2 * matrices.n}`,
              kernel: subgroupMatrixKernel(product, matrices, tile),
            })),
          ]),
    ];
    const flops = 2 * product.groups * product.rows * product.columns * product.steps;
    print(`\n${name}`);
    for (const one of await measureCandidates(
      device,
      candidates,
      reference,
      Object.fromEntries(drawn),
      outputs,
    )) {
      const { microseconds } = one;
      const rate =
        microseconds === undefined ? 'WRONG' : `${(flops / microseconds / 1e3).toFixed(1)} GFLOP/s`;
      print(`  ${one.name.padEnd(24)} ${microseconds?.toFixed(0).padStart(9) ?? ''} µs  ${rate}`);
    }
  }
  device.destroy();
}

if (import.meta.filename === process.argv[1]) await main(process.argv.includes('--small'));
