/**
 * Mixed precision beside f32 on a fixture's model: the same steps on the same batch, and a band for the losses that follows
 * from f32 runs alone.
 */
import {
  type Compiled,
  type CompileOptions,
  type HostTensor,
  hashName,
  type KernelTarget,
  mix,
  nn,
  type Safetensors,
} from '@cohesin/core';
import { metadataJson } from './fixture.ts';
import { goldenStep, type ModelSetup, optimizerOf, started } from './model-run.ts';
import type { Attrs } from './op-case.ts';

/** The largest relative error of one rounding to f16's 11 bits. */
const HALF_ROUNDING = 2 ** -11;
/** Runs in f32 from weights that are each off by up to one rounding. */
const NUDGED_RUNS = 4;

export interface MixedOptions {
  readonly steps: number;
  /** What the kernels of the mixed run are written for, if not the device itself. */
  readonly target?: KernelTarget;
}

/** Training in both precisions. Arrays are by step. */
export interface MixedRun {
  readonly optimizer: string;
  /** The loss before each step. */
  readonly f32: readonly number[];
  readonly mixed: readonly number[];
  /** How far the two may be apart. */
  readonly bands: readonly number[];
  readonly roundings: Roundings;
  /** The loss scale that each step was taken with; it starts at 2^16. */
  readonly scales: readonly number[];
  /** Trained tensors that a step moved in f32 and not in mixed precision. */
  readonly still: readonly (readonly string[])[];
  /** Share of the weights that the first step moves in f32 and not in mixed precision: gradients that became 0. */
  readonly vanished: number;
}

/** Tensors that a step rounds to f16. */
export interface Roundings {
  readonly forward: number;
  readonly backward: number;
}

/** Trains in f32 and in mixed precision with Adam as the fixture has it, or SGD where it has no Adam. */
export async function compareMixed(
  fixture: Safetensors,
  setup: ModelSetup,
  { steps, target }: MixedOptions,
): Promise<MixedRun> {
  const optimizer = fixture.metadata.optimizer_adam === undefined ? 'sgd' : 'adam';
  const settings = metadataJson(fixture, `optimizer_${optimizer}`) as Attrs;
  const train = (from: ModelSetup, options: Partial<CompileOptions>): Promise<Curve> =>
    trained(from, settings, steps, options);
  const f32 = await train(setup, { precision: 'f32' });
  const nudged: (readonly number[])[] = [];
  for (let run = 0; run < NUDGED_RUNS; run++)
    nudged.push((await train(nudgedSetup(setup, run), { precision: 'f32' })).losses);
  const mixed = await train(setup, { precision: 'mixed', ...(target && { target }) });
  const { roundings } = mixed;
  return {
    optimizer,
    f32: f32.losses,
    mixed: mixed.losses,
    bands: bandsOf(f32.losses, nudged, roundings.forward + roundings.backward),
    roundings,
    scales: mixed.scales,
    still: f32.moved.map((paths, step) => [...paths].filter((path) => !mixed.moved[step]!.has(path))),
    vanished: shareStill(f32.afterFirst, mixed.afterFirst, setup.start),
  };
}

/**
 * What one rounding to f16 is to this model is measured in f32: how far the losses go apart (root mean square of several
 * runs, the most so far) if each weight is off by up to 2^-11 of itself. n independent roundings move them √n times as far
 * (Higham & Mary 2019). n is the number of tensors that a step stores as f16; no run in mixed precision enters.
 *
 * @param nudged losses by run and step
 */
export function bandsOf(
  f32: readonly number[],
  nudged: readonly (readonly number[])[],
  roundings: number,
): readonly number[] {
  let most = 0;
  return f32.map((loss, step) => {
    const squares = nudged.reduce((sum, losses) => sum + (losses[step]! - loss) ** 2, 0);
    most = Math.max(most, Math.sqrt(squares / nudged.length));
    return Math.sqrt(roundings) * most;
  });
}

/**
 * With each trained weight w at w · (1 + a)(1 + b), a and b even in ±2^-11, a of each weight and b of each tensor: roundings
 * of many values beside each other, and of one that all depends on, as a predicted count.
 */
function nudgedSetup(setup: ModelSetup, run: number): ModelSetup {
  const trained = nn.parameters(setup.golden.model);
  const start = [...setup.start].map(([path, tensor]) => {
    if (!trained.get(path)?.trainable) return [path, tensor] as const;
    const seed = mix(run, hashName(path));
    const nudge = (word: number): number => 1 + HALF_ROUNDING * (word / 2 ** 31 - 1);
    const shared = nudge(seed);
    const data = Float32Array.from(tensor.data as Float32Array, (w, i) => w * shared * nudge(mix(seed, i)));
    return [path, { ...tensor, data }] as const;
  });
  return { ...setup, start: new Map(start) };
}

/** A run; arrays are by step. */
interface Curve {
  readonly losses: readonly number[];
  readonly scales: readonly number[];
  /** Paths of the trained tensors that the step changed. */
  readonly moved: readonly ReadonlySet<string>[];
  readonly afterFirst: ReadonlyMap<string, HostTensor>;
  readonly roundings: Roundings;
}

async function trained(
  setup: ModelSetup,
  settings: Attrs,
  steps: number,
  options: Partial<CompileOptions>,
): Promise<Curve> {
  const { golden, batch, start } = setup;
  const program = await started(setup, options, goldenStep(golden, optimizerOf(settings)));
  const paths = [...nn.parameters(golden.model)].flatMap(([path, { trainable }]) =>
    trainable ? [path] : [],
  );
  const losses: number[] = [];
  const scales: number[] = [];
  const states: ReadonlyMap<string, HostTensor>[] = [start];
  for (let step = 0; step < steps; step++) {
    losses.push(Number((await program(batch)).loss!.data[0]));
    scales.push(program.counters.lossScale ?? 1);
    states.push(await program.state.read(paths));
  }
  const moved = states.slice(1).map((after, i) => movedTensors(states[i]!, after));
  const roundings = roundingsOf(program);
  program.close();
  program.state.close();
  return { losses, scales, moved, afterFirst: states[1]!, roundings };
}

function movedTensors(
  before: ReadonlyMap<string, HostTensor>,
  after: ReadonlyMap<string, HostTensor>,
): ReadonlySet<string> {
  const paths = [...after.keys()].filter((path) => {
    const was = before.get(path)!.data;
    return after.get(path)!.data.some((value: unknown, i: number) => value !== was[i]);
  });
  return new Set(paths);
}

/** Stored as f16; on matrix units, which multiply f16, also what they read as f32. */
function roundingsOf({ program }: Compiled): Roundings {
  const steps = program.segments.flatMap(({ once, leaf }) => [...once, ...leaf]);
  const count = (forward: boolean): number =>
    steps
      .filter(({ phase }) => (phase === 'F') === forward)
      .reduce((total, { bindings, shader }) => {
        const written = bindings.at(-1)!.half ? 1 : 0;
        const onMatrices = program.shaders[shader]!.includes('subgroupMatrixMultiplyAccumulate');
        const rounded = onMatrices ? bindings.slice(0, -1).filter(({ half }) => !half).length : 0;
        return total + written + rounded;
      }, 0);
  return { forward: count(true), backward: count(false) };
}

function shareStill(
  f32: ReadonlyMap<string, HostTensor>,
  mixed: ReadonlyMap<string, HostTensor>,
  start: ReadonlyMap<string, HostTensor>,
): number {
  let [moved, still] = [0, 0];
  for (const [path, { data }] of f32) {
    const [was, other] = [start.get(path)!.data, mixed.get(path)!.data];
    for (let i = 0; i < data.length; i++) {
      if (data[i] === was[i]) continue;
      moved++;
      if (other[i] === was[i]) still++;
    }
  }
  return still / moved;
}
