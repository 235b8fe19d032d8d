/** Where the time of a compiled function goes: GPU time of every step, by layer and by kernel. */
import type { Device } from './device.ts';
import type { Executor, ProfiledPart } from './executor.ts';
import { initialScales } from './gradient-scale.ts';
import type { HostTensor, TypedArray } from './host-tensor.ts';
import type { Program, Step } from './program.ts';
import type { Phase } from './scope.ts';
import type { StateStore } from './state.ts';

/** Time of one or more steps of a program, over all leaves of this device. */
export interface StepTime {
  readonly path: string;
  readonly phase: Phase | '';
  readonly kernel: string;
  /** Of one step, its label in the program. */
  readonly label: string;
  /** Median over the measured runs. */
  readonly ms: number;
  readonly workgroups: number;
  readonly dispatches: number;
}

export interface Profile {
  /** What ran it. */
  readonly device: string;
  /** `timestamps`: time on the GPU. `wall`: the device has none, so each step was submitted and waited for alone. */
  readonly clock: 'timestamps' | 'wall';
  readonly runs: number;
  readonly totalMs: number;
  /**
   * By what part of its time the slower of two runs of a segment takes longer than their mean, for a leaf; on average over
   * all pairs of runs. Devices that meet wait for so long.
   */
  readonly jitter: number;
  /** In program order. */
  readonly steps: readonly StepTime[];
  /** Slowest first. */
  readonly layers: readonly StepTime[];
  readonly kernels: readonly StepTime[];
}

export interface ProfileOptions {
  /** Measured runs, after one that compiles and warms up. */
  readonly runs?: number;
}

/** A function on a device: one that `compile` gave, or what a rank has loaded. */
export interface Profiled {
  readonly executor: Executor;
  readonly program: Program;
  readonly state: StateStore;
}

/**
 * Runs a compiled function with a pass of its own for every step and measures each. Afterwards parameters, moments
 * and counters are as before. Per-step scalars are 1 and gradient scales the initial ones, which no timing depends on.
 *
 * @throws when an input is missing or has the wrong size.
 */
export async function profile(
  compiled: Profiled,
  inputs: Readonly<Record<string, TypedArray | HostTensor>>,
  { runs = 5 }: ProfileOptions = {},
): Promise<Profile> {
  const { executor, program } = compiled;
  executor.setInputs(
    Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, 'data' in x ? x.data : x])),
  );
  const state = await compiled.state.read(program.state.map(({ name }) => name)); // updates are written over it
  const measured: Measured[] = [];
  for (let run = 0; run < 1 + runs; run++) measured.push(await measure(executor, program));
  compiled.state.write(state);
  measured.shift();
  const steps = measured[0]!.steps.map(
    (step, i): StepTime => ({ ...step, ms: median(measured.map((one) => one.steps[i]!.ms)) }),
  );
  return {
    device: executor.device.info.device,
    clock: measured[0]!.clock,
    runs,
    totalMs: total(steps),
    jitter: jitterOf(measured.map(({ partMs }) => partMs)),
    steps,
    layers: grouped(steps, ({ path, phase }) => ({ path, phase, kernel: '', label: '' })),
    kernels: grouped(steps, ({ kernel, phase }) => ({
      path: '',
      phase,
      kernel: kernelName(kernel),
      label: '',
    })),
  };
}

/** A table of the slowest steps, layers and kernels. */
export function profileReport(profile: Profile, { rows = 20 }: { readonly rows?: number } = {}): string {
  const { clock, runs, totalMs, steps, layers, kernels } = profile;
  const how =
    clock === 'timestamps' ? 'GPU timestamps' : 'no GPU timestamps here: wall time of each step with a wait';
  const slowest = [...steps].sort((a, b) => b.ms - a.ms);
  return [
    `${totalMs.toFixed(2)} ms in ${steps.length} steps, median of ${runs} runs (${how})`,
    table('steps', slowest, totalMs, rows),
    table('layers', layers, totalMs, rows),
    table('kernels', kernels, totalMs, rows),
  ].join('\n\n');
}

interface Measured {
  readonly clock: Profile['clock'];
  readonly steps: readonly StepTime[];
  /** Of each segment, leaf by leaf. */
  readonly partMs: readonly number[];
}

/** One run. Steps of the leaves are added up. */
async function measure(executor: Executor, program: Program): Promise<Measured> {
  const times = new Map<Step, StepTime>();
  const partMs: number[] = [];
  const { device } = executor;
  const scalars = Object.fromEntries(program.scalars.map((name) => [name, 1]));
  const frame = { seed: 0, step: 0, sequence: 0, scalars };
  const q = program.sums === undefined ? undefined : initialScales(program.sums);
  const clock = device.info.features.includes('timestamp-query') ? 'timestamps' : 'wall';
  for (const part of executor.parts(frame, q)) {
    const ms = clock === 'timestamps' ? await stampedTimes(device, part) : await wallTimes(device, part);
    partMs.push(ms.reduce((sum, one) => sum + one, 0));
    part.steps.forEach((step, i) => {
      const { path, phase, label, workgroups } = step;
      const before = times.get(step) ?? { ms: 0, dispatches: 0 };
      times.set(step, {
        path,
        phase,
        kernel: label.startsWith(`${path}: `) ? label.slice(path.length + 2) : label,
        label,
        workgroups: workgroups[0] * workgroups[1],
        ms: before.ms + ms[i]!,
        dispatches: before.dispatches + 1,
      });
    });
  }
  return { clock, steps: [...times.values()], partMs };
}

/** Of runs, each the times of the same parts. */
function jitterOf(runs: readonly (readonly number[])[]): number {
  let [slower, all] = [0, 0];
  for (const [i, a] of runs.entries())
    for (const b of runs.slice(0, i))
      for (const [part, ms] of a.entries()) {
        slower += Math.abs(ms - b[part]!) / 2;
        all += (ms + b[part]!) / 2;
      }
  return all === 0 ? 0 : slower / all;
}

const MAX_STEPS = 2048; // a query set holds at most 4,096 timestamps, two a step

async function stampedTimes(device: Device, part: ProfiledPart): Promise<number[]> {
  const ms: number[] = [];
  for (let from = 0; from < part.steps.length; from += MAX_STEPS) {
    const count = Math.min(MAX_STEPS, part.steps.length - from);
    const querySet = device.querySet(2 * count)!;
    const stamps = device.queryBuffer(16 * count);
    const encoder = device.encoder('profile');
    for (let k = 0; k < count; k++) {
      const timestampWrites = {
        querySet,
        beginningOfPassWriteIndex: 2 * k,
        endOfPassWriteIndex: 2 * k + 1,
      };
      part.encode(encoder, from + k, { timestampWrites });
    }
    encoder.resolveQuerySet(querySet, 0, 2 * count, stamps, 0);
    device.submit(encoder);
    const [bytes] = await device.read([{ buffer: stamps, bytes: 16 * count }]);
    const ns = new BigUint64Array(bytes!.slice().buffer);
    for (let k = 0; k < count; k++) ms.push(Number(ns[2 * k + 1]! - ns[2 * k]!) / 1e6);
    querySet.destroy();
    stamps.destroy();
  }
  finish(device, part);
  return ms;
}

async function wallTimes(device: Device, part: ProfiledPart): Promise<number[]> {
  const ms: number[] = [];
  await device.idle();
  for (const index of part.steps.keys()) {
    const start = performance.now();
    const encoder = device.encoder('profile');
    part.encode(encoder, index, {});
    device.submit(encoder);
    await device.idle();
    ms.push(performance.now() - start);
  }
  finish(device, part);
  return ms;
}

function finish(device: Device, part: ProfiledPart): void {
  const encoder = device.encoder('profile');
  part.finish(encoder);
  device.submit(encoder);
}

function grouped(
  steps: readonly StepTime[],
  label: (step: StepTime) => Pick<StepTime, 'path' | 'phase' | 'kernel' | 'label'>,
): StepTime[] {
  const groups = new Map<string, StepTime[]>();
  for (const step of steps) {
    const key = JSON.stringify(label(step));
    groups.set(key, [...(groups.get(key) ?? []), step]);
  }
  return [...groups.values()]
    .map((group) => ({
      ...label(group[0]!),
      ms: total(group),
      workgroups: group.reduce((sum, { workgroups }) => sum + workgroups, 0),
      dispatches: group.reduce((sum, { dispatches }) => sum + dispatches, 0),
    }))
    .sort((a, b) => b.ms - a.ms);
}

/** A kernel's name without the path of its core and without its shape: what equal kernels of all layers share. */
const kernelName = (kernel: string): string => kernel.replace(/^[^\s[]+: /, '').replace(/ \[[^\]]*\]/, '');

const total = (steps: readonly StepTime[]): number => steps.reduce((sum, { ms }) => sum + ms, 0);

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function table(title: string, times: readonly StepTime[], totalMs: number, rows: number): string {
  const shown = times.slice(0, rows);
  const rest = times.slice(rows);
  const cells = shown.map(({ path, phase, kernel, ms, workgroups, dispatches }) => [
    ms.toFixed(3),
    `${((100 * ms) / totalMs).toFixed(1)}`,
    phase,
    `${workgroups}`,
    `${dispatches}`,
    [path, kernel].filter((text) => text !== '').join('  '),
  ]);
  const lines = [['ms', '%', 'phase', 'workgroups', 'dispatches', title], ...cells];
  if (rest.length > 0) {
    const share = ((100 * total(rest)) / totalMs).toFixed(1);
    lines.push([total(rest).toFixed(3), share, '', '', '', `${rest.length} more`]);
  }
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines
    .map((line) =>
      line.map((cell, column) => (column < 5 ? cell.padStart(widths[column]!) : cell)).join('  '),
    )
    .join('\n');
}
