/**
 * Measures the tiles of a device's kernel family for given products, and makes a kernel table of those that clearly beat
 * the tile of the least estimated time. Training never measures: it reads a table, the same everywhere.
 */
import { createHash } from 'node:crypto';
import { type DeviceInfo, describe, kernelTarget, openGpu } from '../device.ts';
import type { KernelBody, KernelTarget } from '../kernel.ts';
import { mix } from '../random.ts';
import type { Precision } from '../scope.ts';
import { type Product, tiledFamily } from './family.ts';
import { type KernelTable, productClass, sortedTable } from './kernel-table.ts';
import { type ProductSizes, productSizes, shortened } from './product-sizes.ts';
import { createOperands, kernelModule, type Operands, type PreparedKernel, prepareOn } from './run-kernel.ts';
import { byCost, type Tile, type TiledKernel, tileName } from './tiled-kernel.ts';
import type { TuneCache } from './tune-cache.ts';

/** Tiles of a product that are measured: those of the least estimated time. */
const CANDIDATES = 10;
/** Work of one dispatch: enough to time, and little enough to wait for. */
const MULTIPLY_ADDS = { software: 2 ** 28, gpu: 2 ** 36, 'tensor-core': 2 ** 36 } as const;
/** Products of less work are left to the estimate: on a software driver 10 ms of a step. */
const LEAST_MULTIPLY_ADDS = 2 ** 26;

/** A device that kernels are measured on. */
export interface Tuner {
  readonly info: DeviceInfo;
  readonly target: KernelTarget;
  readonly gpu: GPUDevice;
  close(): void;
}

/** @throws when there is no adapter, or mixed precision is asked of one without f16. */
export async function openTuner(precision: Precision = 'f32'): Promise<Tuner> {
  const { instance, adapter, gpu } = await openGpu();
  const info = describe(adapter, gpu);
  const close = (): void => {
    gpu.destroy();
    void instance; // Dawn crashes when it is collected before its devices
  };
  return { info, target: kernelTarget(info, precision), gpu, close };
}

/** What was measured of one class of products. */
export interface Tuned {
  readonly productClass: string;
  /** In the order of the estimate, whose choice is the first. */
  readonly tiles: readonly TileTimes[];
  /** The tile that clearly beats the estimate's choice, if any does. */
  readonly winner?: string;
  /** Nothing was run: the cache had it. */
  readonly cached: boolean;
}

export interface TileTimes {
  readonly tile: string;
  /** Weighted time of a dispatch in µs in each round; none when its result is wrong, fewer when it fell behind. */
  readonly microseconds: readonly number[];
  readonly right: boolean;
}

export interface TuneOptions {
  readonly products: readonly Product[];
  readonly cache?: TuneCache;
  /** Called after each class. */
  readonly onTuned?: (tuned: Tuned, done: number, total: number) => void;
}

/** Products with enough work to be worth it, those of the most work first, one of each class. */
export function worthTuning(target: KernelTarget, products: readonly Product[]): Product[] {
  const largest = new Map<string, Product>();
  const work = (product: Product): number => productSizes(product).multiplyAdds;
  for (const product of products) {
    const name = productClass(target, product);
    const known = largest.get(name);
    if (known === undefined || work(known) < work(product)) largest.set(name, product);
  }
  const worth = [...largest.values()].filter((product) => work(product) >= LEAST_MULTIPLY_ADDS);
  return byCost(worth, (product) => -work(product));
}

/** Measures one product after the other, each class once. */
export async function tune(tuner: Tuner, { products, cache, onTuned }: TuneOptions): Promise<Tuned[]> {
  const all: Tuned[] = [];
  for (const product of products) {
    const tuned = await tuneProduct(tuner, product, cache);
    all.push(tuned);
    onTuned?.(tuned, all.length, products.length);
  }
  return all;
}

/** The table of all winners. */
export function tableOf(tuned: readonly Tuned[]): KernelTable {
  return sortedTable(
    tuned.flatMap(({ productClass: name, winner }) =>
      winner === undefined ? [] : [[name, winner] as const],
    ),
  );
}

async function tuneProduct(tuner: Tuner, product: Product, cache: TuneCache | undefined): Promise<Tuned> {
  const { info, target } = tuner;
  const name = productClass(target, product);
  const task = taskOf(target, product);
  const names = Object.keys(task.checked.inputs);
  const kernels = [task.reference, ...task.candidates.flatMap(({ checked, timed }) => [checked, timed])];
  const key = createHash('sha256')
    .update(JSON.stringify([adapterOf(info), name, task.checked, task.timed]))
    .update(kernels.map((body) => kernelModule(body, names)).join())
    .digest('hex');
  const known = cache?.get(key);
  const tiles = known ?? (await timeTiles(tuner, task));
  if (known === undefined) await cache?.set(key, tiles);
  const winner = clearWinner(tiles);
  return {
    productClass: name,
    tiles,
    ...(winner === undefined ? {} : { winner }),
    cached: known !== undefined,
  };
}

/** What the times depend on besides the kernels. */
function adapterOf({ vendor, architecture, device, description }: DeviceInfo): readonly string[] {
  return [vendor, architecture, device, description]; // the driver and its version are in the description
}

/** Ways to compute one product. */
export interface TuneTask {
  /** What the kernels read and write where their results are checked, and where they are timed. */
  readonly checked: ProductSizes;
  readonly timed: ProductSizes;
  readonly candidates: readonly Candidate[];
  /** Gives the results that are right. */
  readonly reference: KernelBody;
}

export interface Candidate {
  readonly tile: string;
  readonly checked: KernelBody;
  readonly timed: KernelBody;
  /** Workgroups of `timed` that are dispatched. */
  readonly workgroups: number;
  /** What their time is multiplied by: the workgroups of the whole product to those dispatched, 1 for the first candidate. */
  readonly weight: number;
}

/**
 * The tiles that are best by the estimate for the whole product. They are checked, all of the result, on a product of few
 * positions. Long sums stream through memory, so they are timed in their full depth, by a part of the workgroups.
 */
function taskOf(target: KernelTarget, product: Product): TuneTask {
  const most = MULTIPLY_ADDS[target.kind];
  const short = shortened(product, most);
  const deep = isLongSum(product) ? shortened(product, most, DEPTH) : short;
  const { tiles, kernel } = tiledKernel(target, product);
  const part = Math.min(1, most / productSizes(deep).multiplyAdds);
  const candidates = tiles(product.geometry)
    .slice(0, CANDIDATES)
    .map((tile) => {
      const checked = kernel(short.geometry, tile);
      const timed = deep === short ? checked : kernel(deep.geometry, tile);
      const workgroups = Math.ceil(timed.workgroups * part);
      const share = kernel(product.geometry, tile).workgroups / workgroups;
      return { tile: tileName(tile), checked, timed, workgroups, share };
    });
  const first = candidates[0]!.share;
  return {
    checked: productSizes(short),
    timed: productSizes(deep),
    candidates: candidates.map(({ share, ...candidate }) => ({ ...candidate, weight: share / first })),
    reference: referenceOf(target, short),
  };
}

/** Positions of a long sum: what one partial sum has at most. */
const DEPTH = 8_192;

function isLongSum({ kind }: Product): boolean {
  return kind === 'matmulPartials' || kind.endsWith('WeightGradient');
}

/** The product by a family that shares no text with the target's, in its smallest tile, which compiles fastest. */
function referenceOf(target: KernelTarget, { kind, geometry }: Product): KernelBody {
  const other: KernelTarget = { kind: target.kind === 'software' ? 'gpu' : 'software' };
  const { tiles, kernel } = tiledKernel(other, { kind });
  const area = ({ rows, columns }: Tile): number => rows * columns;
  return kernel(
    geometry,
    tiles(geometry).reduce((a, b) => (area(a) <= area(b) ? a : b)),
  );
}

/** Whose geometry is that of the product's kind, which TypeScript cannot follow. */
function tiledKernel(
  target: KernelTarget,
  { kind }: Pick<Product, 'kind'>,
): TiledKernel<Product['geometry']> {
  return tiledFamily(target)[kind] as TiledKernel<Product['geometry']>;
}

const ROUNDS = 9;
/** After this many rounds those that fell behind are left out. */
const FIRST_ROUNDS = 3;
const BEHIND = 1.2;
/** Time of one measurement. */
const LEAST_MS = 30;

/**
 * Times the candidates whose result is that of the `reference`, in rounds that each begin with another one: what slows
 * the machine for a while slows all of them.
 */
export async function timeTiles(
  tuner: Pick<Tuner, 'gpu' | 'info'>,
  { checked, timed, candidates, reference }: TuneTask,
): Promise<TileTimes[]> {
  const { gpu } = tuner;
  const right = await rightOnes(gpu, candidates, reference, checked);
  const operands = createOperands(gpu, drawInputs(timed), timed.result * timed.chunks);
  try {
    const running: Running[] = [];
    for (const candidate of right)
      running.push({ ...candidate, run: await prepareOn(gpu, candidate.timed, operands), times: [] });
    await timeRounds(tuner, running);
    const times = new Map(running.map((one) => [one.tile, one.times]));
    return candidates.map(({ tile }) => ({
      tile,
      microseconds: times.get(tile) ?? [],
      right: times.has(tile),
    }));
  } finally {
    operands.close();
  }
}

/** The candidates whose whole result is that of the reference. */
async function rightOnes(
  gpu: GPUDevice,
  candidates: readonly Candidate[],
  reference: KernelBody,
  sizes: ProductSizes,
): Promise<Candidate[]> {
  const operands = createOperands(gpu, drawInputs(sizes), sizes.result * sizes.chunks);
  try {
    const resultOf = async (kernel: KernelBody): Promise<Float32Array> =>
      total(await freshResult(gpu, await prepareOn(gpu, kernel, operands), operands), sizes);
    const expected = await resultOf(reference);
    const right: Candidate[] = [];
    for (const candidate of candidates)
      if (agrees(await resultOf(candidate.checked), expected)) right.push(candidate);
    return right;
  } finally {
    operands.close();
  }
}

interface Running extends Candidate {
  readonly run: PreparedKernel;
  /** In µs, of each round so far. */
  readonly times: number[];
}

async function timeRounds(
  { gpu, info }: Pick<Tuner, 'gpu' | 'info'>,
  running: readonly Running[],
): Promise<void> {
  const clock = info.software ? cpuMs : (): number => performance.now();
  let left = running;
  for (let round = 0; round < ROUNDS && left.length > 1; round++) {
    const turn = round % left.length;
    for (const one of [...left.slice(turn), ...left.slice(0, turn)])
      one.times.push((await timeDispatch(gpu, one, clock)) * one.weight * 1000);
    if (round + 1 !== FIRST_ROUNDS) continue;
    const best = Math.min(...left.map(({ times }) => median(times)));
    left = left.filter((one, at) => at === 0 || median(one.times) <= best * BEHIND);
  }
}

/** A tile wins by this factor, in the median round and in all rounds but one. */
const CLEARLY = 1.05;

/** The fastest tile, if it beats the first one clearly. A tile whose result is wrong never does. */
export function clearWinner(tiles: readonly TileTimes[]): string | undefined {
  const [first, ...others] = tiles;
  const right = others.filter(({ right: is, microseconds }) => is && microseconds.length === ROUNDS);
  if (first === undefined || right.length === 0) return undefined;
  const best = right.reduce((a, b) => (median(a.microseconds) <= median(b.microseconds) ? a : b));
  if (!first.right) return best.tile;
  const gains = best.microseconds.map((time, round) => first.microseconds[round]! / time);
  const clear = median(gains) >= CLEARLY && gains.filter((gain) => gain < CLEARLY).length <= 1;
  return clear ? best.tile : undefined;
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Multiples of 1/64 in [−1, 1]: f16 holds them, so that only the order of f32 sums differs. */
function drawInputs({ inputs }: ProductSizes): Record<string, Float32Array<ArrayBuffer>> {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, count], seed) => [
      name,
      Float32Array.from({ length: count }, (_, i) => ((mix(seed, i) % 129) - 64) / 64),
    ]),
  );
}

/** What one dispatch writes; the rest is NaN. */
async function freshResult(gpu: GPUDevice, run: PreparedKernel, { output }: Operands): Promise<Float32Array> {
  gpu.queue.writeBuffer(output, 0, new Uint32Array(output.size / 4).fill(0x7fc00000));
  run.dispatch();
  return run.read();
}

/** Partial results added up. */
function total(partials: Float32Array, { result, chunks }: ProductSizes): Float32Array {
  if (chunks === 1) return partials;
  return Float32Array.from({ length: result }, (_, i) => {
    let sum = 0;
    for (let chunk = 0; chunk < chunks; chunk++) sum += partials[chunk * result + i]!;
    return sum;
  });
}

const TOLERANCE = 1e-5; // of the largest result, as in the tests of kernels: some thousand products in f32

function agrees(found: Float32Array, expected: Float32Array): boolean {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return found.every((value, i) => Math.abs(value - expected[i]!) <= TOLERANCE * largest);
}

/** CPU time of the process: on a software driver it holds the kernels' work, whatever else the machine does. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Time of one dispatch in ms. */
async function timeDispatch(
  gpu: GPUDevice,
  { run, workgroups }: Running,
  clock: () => number,
): Promise<number> {
  let dispatches = 1;
  for (;;) {
    const start = clock();
    for (let i = 0; i < dispatches; i++) run.dispatch(workgroups);
    await gpu.queue.onSubmittedWorkDone();
    const ms = clock() - start;
    if (ms >= LEAST_MS) return ms / dispatches;
    dispatches = Math.ceil(dispatches * Math.min(16, (1.3 * LEAST_MS) / Math.max(ms, 0.1)));
  }
}
