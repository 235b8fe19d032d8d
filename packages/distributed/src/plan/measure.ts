/** What a device and the link between two of them do, measured, so that plans can be simulated with it. */
import {
  adam,
  type BuildOptions,
  elementCount,
  type InputSpec,
  median,
  nn,
  type Profile,
  stepWork,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import type { DeviceChoice } from '../devices/choose.ts';
import { distribute } from '../distribute.ts';
import { firstOf, type Mesh, openMesh } from '../mesh.ts';
import { DistributedState } from '../state.ts';
import type { Costs } from './costs.ts';

export interface MeasureOptions {
  /** The two devices of a link; the first runs the kernels, and what two are compared with. */
  readonly devices: DeviceChoice;
  readonly shareDevices?: boolean;
  /** Measured runs of each, after one that compiles; the median counts. */
  readonly runs: number;
}

type Cut = Omit<BuildOptions, 'target' | 'kernelTable'>;

/**
 * Profiles a step in each of the given cuts, and times small steps that mostly meet, on one device and on two.
 *
 * @throws when there are no two devices, or the step cannot be cut so.
 */
export async function measureCosts(
  step: Traceable,
  cuts: readonly Cut[],
  { runs, ...choice }: MeasureOptions,
): Promise<Costs> {
  const two = await openMesh(choice);
  const one = firstOf(two);
  try {
    const { device: name, jitter, kernels } = await profiles(step, cuts, one, runs);
    const latencyMs = await meetingMs(one, two, runs);
    const link = { latencyMs, gigabytes: await linkRate(one, two, latencyMs, runs), overlap: false };
    const sum = { gigabytes: await sumRate(one, two, latencyMs, runs) };
    const device = { ...rates(step, cuts, kernels), memoryGb: memoryOf(two), jitter };
    return { name: `measured: ${name}, ${two.info.description}`, device, link, sum, kernels };
  } finally {
    await two.close();
  }
}

/** What ran the kernels of all cuts, milliseconds of each, for one leaf, by label, and how much leaves of the last vary. */
async function profiles(
  step: Traceable,
  cuts: readonly Cut[],
  mesh: Mesh,
  runs: number,
): Promise<Pick<Profile, 'device' | 'jitter'> & { kernels: Record<string, number> }> {
  const state = new DistributedState(mesh);
  const kernels: Record<string, number> = {};
  let [device, jitter] = ['', 0];
  for (const cut of cuts) {
    const run = await distribute(step, { mesh, state, ...cut });
    const profile = await run.profile(zeros(cut), { runs });
    await run.close();
    ({ device, jitter } = profile);
    Object.assign(kernels, byLabel(profile.steps));
  }
  return { device, jitter, kernels };
}

function byLabel(steps: Profile['steps']): Record<string, number> {
  const found = new Map<string, number[]>();
  for (const { label, ms, dispatches } of steps) {
    found.set(label, [...(found.get(label) ?? []), ms / dispatches]);
  }
  return Object.fromEntries([...found].map(([label, ms]) => [label, total(ms) / ms.length]));
}

/** What products and other kernels reach on average, for those that were not measured. */
function rates(
  step: Traceable,
  cuts: readonly Cut[],
  kernels: Readonly<Record<string, number>>,
): Pick<Costs['device'], 'gigaMultiplyAdds' | 'gigabytes' | 'launchMs'> {
  const measured = cuts.flatMap((cut) => stepWork(step, cut).kernels).filter(({ label }) => label in kernels);
  const rate = (all: typeof measured, of: (kernel: (typeof measured)[number]) => number): number =>
    total(all.map(of)) / total(all.map(({ label }) => kernels[label]!)) / 1e6;
  const products = measured.filter(({ multiplyAdds }) => multiplyAdds > 0);
  const others = measured.filter(({ multiplyAdds }) => multiplyAdds === 0);
  return {
    gigaMultiplyAdds: rate(products, ({ multiplyAdds }) => multiplyAdds),
    gigabytes: rate(others, ({ bytes }) => bytes),
    launchMs: Math.min(...Object.values(kernels)),
  };
}

/** The largest heap: a software driver's is the host's. */
function memoryOf({ devices: [device] }: Mesh): number {
  const heaps = device?.heaps.map(({ bytes, budgetBytes }) => budgetBytes ?? bytes) ?? [];
  return Math.max(0, ...heaps) / 1e9;
}

/** Small convolutions after norms: little to compute, much to meet for. */
const CHAIN = training(
  nn.sequential(
    Array.from({ length: 9 }, (_, i) =>
      nn.sequential({
        conv: nn.conv1d({ inputs: i === 0 ? 4 : 8, outputs: 8, size: 5 }),
        norm: nn.batchNorm({ channels: 8 }),
      }),
    ),
  ),
);
const CHAIN_CUT: Cut = { inputs: { x: [1, 4096, 4], y: [1, 4096, 8] }, leavesPerSequence: 2 };

async function meetingMs(one: Mesh, two: Mesh, runs: number): Promise<number> {
  const { gathers } = stepWork(CHAIN, CHAIN_CUT);
  const meetings = new Set(gathers.map(({ segment }) => segment)).size + 2; // and two of the gradient sum
  const [whole, divided] = [
    await wallMs(CHAIN, CHAIN_CUT, one, runs),
    await wallMs(CHAIN, CHAIN_CUT, two, runs),
  ];
  return Math.max(SHORTEST_MS, (divided - whole / 2) / meetings);
}

/** Taps so far apart that each part needs all rows of the other: 8 MiB forward and 8 MiB backward. */
const FAR = training(
  nn.sequential({
    near: nn.conv1d({ inputs: 8, outputs: 8, size: 1 }),
    far: nn.conv1d({ inputs: 8, outputs: 8, size: 3, dilation: 131_072 }),
  }),
);
const FAR_CUT: Cut = { inputs: { x: [1, 262_144, 8], y: [1, 262_144, 8] }, leavesPerSequence: 2 };

async function linkRate(one: Mesh, two: Mesh, latencyMs: number, runs: number): Promise<number> {
  const { gathers } = stepWork(FAR, FAR_CUT);
  const meetings = new Set(gathers.map(({ segment }) => segment)).size + 2;
  const [whole, divided] = [await wallMs(FAR, FAR_CUT, one, runs), await wallMs(FAR, FAR_CUT, two, runs)];
  const ms = Math.max(SHORTEST_MS, divided - whole / 2 - meetings * latencyMs);
  return total(gathers.map(({ bytes }) => bytes)) / ms / 1e6;
}

/** 4 Mi weights for a row of each of two leaves. */
const WIDE = training(nn.linear({ inputs: 2048, outputs: 2048 }));
const wideCut = (leaves: number): Cut => ({ inputs: { x: [leaves, 1, 2048], y: [leaves, 1, 2048] }, leaves });

/** Beside what one device does with one leaf, two devices with one each add up their gradients. */
async function sumRate(one: Mesh, two: Mesh, latencyMs: number, runs: number): Promise<number> {
  const alone = await wallMs(WIDE, wideCut(1), one, runs);
  const together = await wallMs(WIDE, wideCut(2), two, runs);
  const ms = Math.max(SHORTEST_MS, together - alone - 2 * latencyMs);
  return (8 * 2048 * 2049) / ms / 1e6;
}

const SHORTEST_MS = 1e-3; // where the difference of two times is lost in their noise

async function wallMs(step: Traceable, cut: Cut, mesh: Mesh, runs: number): Promise<number> {
  const run = await distribute(step, { mesh, ...cut });
  const inputs = zeros(cut);
  const times: number[] = [];
  for (let i = 0; i < 2 + runs; i++) {
    const start = performance.now();
    await run(inputs);
    if (i >= 2) times.push(performance.now() - start); // the first compiles, the second warms up
  }
  await run.close();
  return median(times);
}

function training(model: nn.Layer): Traceable {
  return trainStep({ model, loss: nn.mseLoss, optimizer: adam({ learningRate: 1e-3 }) });
}

function zeros({ inputs }: Cut): Record<string, Float32Array> {
  const shapeOf = (spec: InputSpec): readonly number[] => ('shape' in spec ? spec.shape : spec);
  return Object.fromEntries(
    Object.entries(inputs).map(([name, spec]) => [name, new Float32Array(elementCount(shapeOf(spec)))]),
  );
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
