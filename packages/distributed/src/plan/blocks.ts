/** A model as a row of blocks between which it can be cut into stages, each with what it costs. */
import { type HeldBytes, type KernelWork, mostHeld, type StepWork } from '@cohesin/core';
import { type Costs, kernelMs } from './costs.ts';

export const PASSES = ['forward', 'inputGradient', 'weightGradient'] as const;
export type Pass = (typeof PASSES)[number];

/** Work of a microbatch in one pass, for any number of devices. */
export interface PassCost {
  /** Divided among devices by leaves. */
  readonly leavesMs: number;
  /** On every device. */
  readonly onceMs: number;
  readonly gathers: readonly Gather[];
}

/** A meeting at which the leaves of a microbatch gather something. */
export interface Gather {
  /** Of all leaves. */
  readonly bytes: number;
  /** Those of them that are addressed: of each leaf's, a device needs only what goes to its own leaves. */
  readonly addressedBytes?: number;
  /** Those of them that only leaves beside need, and what a device needs of those of others. */
  readonly edgeBytes?: number;
  readonly besideBytes?: number;
  /** Of the kernels before it since the last one, all leaves together: what can hide another microbatch's meeting. */
  readonly besideMs: number;
}

export interface Block {
  /** Layer path, as `trunk.tower.0`. */
  readonly name: string;
  readonly passes: Readonly<Record<Pass, PassCost>>;
  readonly updateMs: number;
  /** Trained values. */
  readonly parameters: number;
  /** Bytes of weights, statistics, moments and gradient sums. */
  readonly stateBytes: number;
  /** Of these, the moments of each trained parameter. */
  readonly momentBytes: readonly number[];
  /** Kept for the backward pass, of a microbatch. */
  readonly keptBytes: number;
  /** The step's inputs that no block before it reads, of a microbatch: every device of a stage has them whole. */
  readonly inputBytes: number;
  /** Live while the block runs, beside what is kept. */
  readonly working: HeldBytes;
  /** What the blocks up to this one hand to later ones, of a microbatch; the gradient has the same size. */
  readonly outputBytes: number;
}

export interface Blocks {
  /** Leaves of a microbatch; 1 where it is whole. */
  readonly leaves: number;
  readonly blocks: readonly Block[];
}

/** A layer with more than this share of the time is divided into its own layers. */
const LARGEST_SHARE = 1 / 24;

/** The blocks of a step that runs one sequence, or a group of sequences with common statistics, at a time. */
export function modelBlocks(work: StepWork, costs: Costs): Blocks {
  const names = mergeLoops(work, blockNames(work, costs));
  const at = (path: string): number => blockOf(path, names);
  const kernels = names.map((): KernelWork[] => []);
  const updates: KernelWork[] = [];
  for (const kernel of work.kernels)
    (kernel.phase === 'U' ? updates : kernels[at(kernel.path)]!).push(kernel);
  const parameters = sumsBy(Object.entries(work.gradients), at, names.length);
  const state = sumsBy(Object.entries(work.state), (name) => at(parameterOf(name)), names.length);
  const moments = momentsBy(work, at, names.length);
  const gathers = meetings(work, costs);
  const totalParameters = Math.max(1, total(parameters));
  const updateMs = total(updates.map((kernel) => kernelMs(kernel, costs)));
  const blocks = names.map((paths, i): Block => {
    const inside = work.tensors.filter(({ path }) => at(path) === i);
    const crossing = work.tensors.filter(
      ({ path, readers }) => at(path) <= i && readers.some((reader) => at(reader) > i),
    );
    const read = work.inputs.filter(({ readers }) => Math.min(...readers.map(at)) === i);
    const working = Object.entries(work.working).filter(([path]) => at(path) === i);
    const pass = (name: Pass): PassCost => ({
      ...computeCost(
        kernels[i]!.filter((kernel) => passOf(kernel) === name),
        work,
        costs,
      ),
      gathers: gathers.filter(({ path, pass }) => at(path) === i && pass === name),
    });
    return {
      name: paths[0]!,
      passes: {
        forward: pass('forward'),
        inputGradient: pass('inputGradient'),
        weightGradient: pass('weightGradient'),
      },
      updateMs: (updateMs * parameters[i]!) / totalParameters,
      parameters: parameters[i]!,
      stateBytes: 4 * state[i]! + 8 * parameters[i]!,
      momentBytes: moments[i]!,
      keptBytes: total(inside.filter(({ kept }) => kept).map(({ bytes }) => bytes)),
      inputBytes: total(read.map(({ bytes }) => bytes)),
      working: mostHeld(working.map(([, held]) => held)),
      outputBytes: total(crossing.map(({ bytes }) => bytes)),
    };
  });
  return { leaves: work.leaves, blocks };
}

/** What is computed again counts as backward work. */
function passOf({ phase, again }: Pick<KernelWork, 'phase' | 'again'>): Pass {
  if (phase === 'W') return 'weightGradient';
  return phase === 'F' && !again ? 'forward' : 'inputGradient';
}

function computeCost(
  kernels: readonly KernelWork[],
  { leaves }: StepWork,
  costs: Costs,
): Pick<PassCost, 'leavesMs' | 'onceMs'> {
  const time = (of: readonly KernelWork[]): number =>
    total(of.map((kernel) => kernelMs(kernel, costs) * Math.max(1, kernel.leaves)));
  const once = kernels.filter(({ leaves: count }) => count === 0 && leaves > 1);
  return { leavesMs: time(kernels) - time(once), onceMs: time(once) };
}

/** One at the end of each segment that gathers something, by the layer of the first. */
function meetings(
  { gathers, kernels }: StepWork,
  costs: Costs,
): (Gather & { readonly path: string; readonly pass: Pass })[] {
  const segments = new Map(gathers.map(({ segment }) => [segment, [] as StepWork['gathers'][number][]]));
  for (const gather of gathers) segments.get(gather.segment)!.push(gather);
  return [...segments].map(([segment, inside]) => ({
    path: inside[0]!.path,
    pass: passOf({ ...inside[0]!, again: false }),
    bytes: total(inside.map(({ bytes }) => bytes)),
    addressedBytes: total(inside.map(({ bytes, addressed }) => (addressed ? bytes : 0))),
    edgeBytes: total(inside.map(({ bytes, besideBytes }) => (besideBytes === undefined ? 0 : bytes))),
    besideBytes: total(inside.map(({ besideBytes = 0 }) => besideBytes)),
    besideMs: total(
      kernels
        .filter((kernel) => kernel.segment === segment)
        .map((kernel) => kernelMs(kernel, costs) * Math.max(1, kernel.leaves)),
    ),
  }));
}

/** Bytes of the moments of each parameter, by block. */
function momentsBy({ state }: StepWork, at: (path: string) => number, count: number): number[][] {
  const bytes = new Map<string, number>();
  for (const [name, values] of Object.entries(state)) {
    const parameter = parameterOf(name);
    if (parameter !== name) bytes.set(parameter, (bytes.get(parameter) ?? 0) + 4 * values);
  }
  const blocks = Array.from({ length: count }, (): number[] => []);
  for (const [parameter, all] of bytes) blocks[at(parameter)]!.push(all);
  return blocks;
}

/** Whose moment `optimizer/<kind>/<parameter>` is. */
const parameterOf = (state: string): string => state.replace(/^optimizer\/[^/]+\//, '');

/** Layers in the order in which they end, large ones divided. */
function blockNames({ kernels }: StepWork, costs: Costs): string[] {
  const times = new Map<string, number>(); // of a layer with all inside it
  const forward = kernels.filter(({ phase, path, again }) => phase === 'F' && path !== '' && !again);
  let all = 0;
  for (const kernel of forward) {
    const ms = kernelMs(kernel, costs) * Math.max(1, kernel.leaves);
    all += ms;
    for (const prefix of prefixes(kernel.path)) times.set(prefix, (times.get(prefix) ?? 0) + ms);
  }
  const whole = new Set(forward.map(({ path }) => path)); // what computes something itself, as the sum of a residual layer
  const names = forward.map(
    ({ path }) =>
      prefixes(path).find((prefix) => times.get(prefix)! < LARGEST_SHARE * all || whole.has(prefix)) ?? path,
  );
  return [...new Set(names.reverse())].reverse(); // by their last kernels: what needs no input comes first
}

/** `a.b.c` → `a`, `a.b`, `a.b.c`. */
function prefixes(path: string): string[] {
  const names = path.split('.');
  return names.map((_, i) => names.slice(0, i + 1).join('.'));
}

/** Blocks by their paths; those between which values go both ways are one. */
function mergeLoops(work: StepWork, names: readonly string[]): string[][] {
  let blocks = names.map((name) => [name]);
  for (;;) {
    const back = work.tensors
      .flatMap(({ path, readers }) =>
        readers.map((reader) => [blockOf(path, blocks), blockOf(reader, blocks)] as const),
      )
      .find(([from, to]) => to < from);
    if (back === undefined) return blocks;
    const [from, to] = back;
    blocks = [...blocks.slice(0, to), blocks.slice(to, from + 1).flat(), ...blocks.slice(from + 1)];
  }
}

/** Index of the block with the longest path that a path begins with; what has no layer, as the loss, goes to the last. */
function blockOf(path: string, blocks: readonly (readonly string[])[]): number {
  let [best, length] = [blocks.length - 1, 0];
  for (const [i, names] of blocks.entries())
    for (const name of names)
      if (name.length > length && (path === name || path.startsWith(`${name}.`)))
        [best, length] = [i, name.length];
  return best;
}

function sumsBy(
  entries: readonly (readonly [string, number])[],
  at: (name: string) => number,
  count: number,
): number[] {
  const sums = Array.from({ length: count }, () => 0);
  for (const [name, value] of entries) sums[at(name)]! += value;
  return sums;
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
