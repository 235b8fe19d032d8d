import type { Counters, StepCounters } from '../counters.ts';
import { type Device, kernelTarget } from '../device.ts';
import type { Frame } from '../dispatcher.ts';
import { Executor } from '../executor.ts';
import { initialScales } from '../gradient-scale.ts';
import { type Graph, roots, topologicalOrder } from '../graph.ts';
import type { HostTensor, TypedArray } from '../host-tensor.ts';
import { type KernelTarget, SOFTWARE } from '../kernel.ts';
import type { KernelTable } from '../kernels/kernel-table.ts';
import { LOSS_SCALE, withLossScale } from '../loss-scale.ts';
import { memoryReport } from '../memory-report.ts';
import { type Found, NotFiniteError, type Place } from '../not-finite.ts';
import { input, Parameter } from '../parameter.ts';
import { addLeaves, type Program, type ProgramState, pieceCount } from '../program.ts';
import { hashName, mix } from '../random.ts';
import { type Precision, withScope } from '../scope.ts';
import type { PipelineProgram } from '../stage-program.ts';
import { StateStore } from '../state.ts';
import type { DType, Tensor } from '../tensor.ts';
import { trace } from '../trace.ts';
import { buildProgram, type LogicalPlan, type Placement } from './build.ts';
import { buildPipeline, type PipelinePlacement } from './pipeline/build.ts';
import { buildShares, type SharePlacement } from './share-update.ts';

/** A function of tensors that can be compiled; `trainStep` makes one that has `counters`. */
export interface Traceable {
  (inputs: Readonly<Record<string, Tensor>>): Readonly<Record<string, Tensor>>;
  readonly counters?: StepCounters;
}

/** Shape of an input, leading axis the batch; f32 unless a dtype is given. */
export type InputSpec = readonly number[] | { readonly shape: readonly number[]; readonly dtype: DType };

export interface BuildOptions extends Placement {
  readonly inputs: Readonly<Record<string, InputSpec>>;
  /** Parts the batch is cut into; each is computed alone, so that any of them can be anywhere. */
  readonly leaves?: number;
  /** Parts each sequence is cut into along its rows, instead: for sequences that fit no device whole. */
  readonly leavesPerSequence?: number;
  /** What the kernels are written for; `compile` and `distribute` take it from the device. */
  readonly target?: KernelTarget;
  /** Tiles of kernels, of `readKernelTable`, in place of the shipped table. A part of the plan: it decides bits. */
  readonly kernelTable?: KernelTable;
  /** `mixed` needs shader-f16; training then scales its loss. Default `f32`. */
  readonly precision?: Precision;
  /** `false` gives every tensor a kernel and memory of its own: to look for errors of fused kernels. Rounds differently. */
  readonly fuse?: boolean;
}

/** A program with the parameters its state starts from. */
export interface Built {
  readonly program: Program;
  readonly parameters: ReadonlyMap<string, Parameter>;
  readonly counters: StepCounters | undefined;
}

/** Traces and compiles a function, without a device. */
export function build(fn: Traceable, options: BuildOptions): Built {
  const { graph, plan } = traced(fn, options);
  const program = buildProgram(graph, plan, options);
  return { program, ...stateAndCounters(fn, graph, program.state, program.scalars) };
}

/** The programs of ranks that share the update, with the parameters their state starts from. */
export interface BuiltShares extends Omit<Built, 'program'> {
  readonly programs: readonly Program[];
}

/** Traces and compiles a function for ranks that share the update: see `buildShares`. The bits are those of `build`. */
export function buildShared(fn: Traceable, options: BuildOptions & SharePlacement): BuiltShares {
  const { graph, plan } = traced(fn, options);
  const programs = buildShares(graph, plan, options);
  const state = programs.flatMap((program) => program.state);
  return { programs, ...stateAndCounters(fn, graph, state, programs[0]!.scalars) };
}

/** A step in stages with the parameters its state starts from. */
export interface BuiltPipeline extends Omit<Built, 'program'> {
  readonly program: PipelineProgram;
}

/** Traces and compiles a function in stages, without a device. The kernels, and so the bits, are those of `build`. */
export function buildStages(fn: Traceable, options: BuildOptions & PipelinePlacement): BuiltPipeline {
  const { graph, plan } = traced(fn, options);
  const program = buildPipeline(graph, plan, options);
  const state = (program.ranks ?? program.stages).flatMap((stage) => stage.state);
  return { program, ...stateAndCounters(fn, graph, state, program.scalars) };
}

/** The graph of a function, and what else decides its bits. */
export function traced(fn: Traceable, options: BuildOptions): { graph: Graph; plan: LogicalPlan } {
  const { inputs, leaves = 1, leavesPerSequence = 1, precision = 'f32', kernelTable } = options;
  const { target: device = SOFTWARE } = options;
  const target = kernelTable === undefined ? device : { ...device, table: kernelTable };
  const plan = { leaves, leavesPerSequence, target, precision, fuse: options.fuse ?? true };
  const tensors = Object.entries(inputs).map(([name, spec]) => {
    const { shape, dtype } = 'shape' in spec ? spec : { shape: spec, dtype: 'f32' as const };
    return [name, input(name, shape, dtype)] as const;
  });
  return { graph: trace(() => withScope({ precision }, () => fn(Object.fromEntries(tensors)))), plan };
}

function stateAndCounters(
  fn: Traceable,
  graph: Graph,
  state: readonly ProgramState[],
  scalars: readonly string[],
): Omit<Built, 'program'> {
  const reached = topologicalOrder(roots(graph)).filter((node) => node instanceof Parameter);
  const all = [...reached, ...graph.assignments.map(({ parameter }) => parameter)];
  const held = new Set(state.map(({ name }) => name)); // not those of which only the shape was used
  const scaled = fn.counters !== undefined && scalars.includes(LOSS_SCALE);
  return {
    parameters: new Map(
      all.filter(({ name }) => held.has(name)).map((parameter) => [parameter.name, parameter]),
    ),
    counters: scaled ? withLossScale(fn.counters) : fn.counters,
  };
}

/** Initial values of parameters: each from the seed and its own name, so that no order matters. */
export function initialState(
  parameters: ReadonlyMap<string, Parameter>,
  seed: number,
): Map<string, HostTensor> {
  return new Map(
    [...parameters].map(([name, { shape, initializer }]) => [
      name,
      { shape, dtype: 'f32', data: initializer(shape, mix(seed, hashName(name))) },
    ]),
  );
}

export interface CompileOptions extends BuildOptions {
  readonly device: Device;
  readonly seed?: number;
  /** Share parameters with another compiled function: pass its `state`. */
  readonly state?: StateStore;
}

/** A compiled function on one device. Outputs that are sums over sequences arrive added up. */
export interface Compiled {
  (inputs: Readonly<Record<string, TypedArray | HostTensor>>): Promise<Record<string, HostTensor>>;
  readonly program: Program & { memory(): string };
  readonly state: StateStore;
  readonly executor: Executor;
  /** Host counters of the optimizer after the last step. */
  readonly counters: Counters;
  close(): void;
}

/**
 * Compiles a function for one device: traces it once on the given shapes, allocates its memory, and returns an async
 * function that runs it. State (parameters, running statistics, moments) stays on the device between calls.
 */
export async function compile(fn: Traceable, options: CompileOptions): Promise<Compiled> {
  const { device, seed = 0 } = options;
  const own = {
    target: kernelTarget(device.info, options.precision),
    bindingLimit: device.info.maxBindingBytes,
  };
  const { program, parameters, counters: host } = build(fn, { ...own, ...options });
  const state = options.state ?? new StateStore(device);
  const fresh = new Map([...parameters].filter(([name]) => !state.has(name)));
  const executor = await Executor.create(device, program, state);
  state.write(initialState(fresh, seed));
  let counters: Counters = host?.counters() ?? {};
  let step = 0;
  let q = program.sums === undefined ? undefined : initialScales(program.sums);
  const { sequences } = program;
  const run = async (
    inputs: Readonly<Record<string, TypedArray | HostTensor>>,
  ): Promise<Record<string, HostTensor>> => {
    executor.setInputs(
      Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, 'data' in x ? x.data : x])),
    );
    let tried = counters;
    for (;;) {
      const frame = { seed, step, sequence: step * sequences, scalars: host?.scalars(tried) ?? {} };
      const decision = await executor.run(frame, undefined, q);
      if (decision?.kind === 'not-finite') {
        const next = host?.afterOverflow?.(tried);
        if (next === undefined)
          throw await notFinite(program, frame, decision.tensor, () => executor.firstNotFinite(frame));
        tried = next;
        continue;
      }
      q = decision?.q ?? q;
      if (decision?.kind !== 'repeat') break;
    }
    step++;
    counters = host?.advance(tried) ?? counters;
    return addUp(program, await executor.outputs());
  };
  return Object.defineProperties(run as Compiled, {
    program: { value: { ...program, memory: () => memoryReport(program) } },
    state: { value: state },
    executor: { value: executor },
    counters: { get: () => counters },
    close: { value: () => executor.close() },
  });
}

/** Outputs that are one addend per leaf, added in float64 in leaf order. */
function addUp(program: Program, outputs: Record<string, HostTensor>): Record<string, HostTensor> {
  for (const output of program.outputs) {
    const { name, layout, shape } = output;
    if (layout !== 'partial') continue;
    const totals = addLeaves(outputs[name]!.data as Float32Array, pieceCount(program, output));
    outputs[name] = { shape, dtype: 'f64', data: totals };
  }
  return outputs;
}

function sequencesOf(
  { sequences, leaves }: Pick<Program, 'sequences' | 'leaves'>,
  from: number,
  [round, , leaf]: Place,
): string {
  if (leaves > sequences) return `sequence ${from + round}, part ${leaf}`;
  const [first, last] = [from + (leaf * sequences) / leaves, from + ((leaf + 1) * sequences) / leaves - 1];
  return `${first === last ? `sequence ${first}` : `sequences ${first}–${last}`}, leaf ${leaf}`;
}

/**
 * The error for a NaN or infinite gradient: names the first stored tensor that is not finite, which `find` runs the step
 * again for, and the sequence. All ranks must call it together.
 */
export async function notFinite(
  program: Pick<Program, 'sequences' | 'leaves'>,
  frame: Frame,
  gradient: string,
  find: () => Promise<Found | undefined>,
): Promise<NotFiniteError> {
  const found = await find();
  if (found !== undefined) {
    const { label } = found.step;
    const sequences = sequencesOf(program, frame.sequence, found.place);
    return new NotFiniteError(
      `step ${frame.step}: ${label} is the first tensor that is not finite (${sequences}); the gradient of ${gradient} is then not finite either. Nothing was updated. Lower the learning rate, clip gradients, or check the targets of that sequence`,
      label,
      found.place,
    );
  }
  return new NotFiniteError(
    `step ${frame.step}: the gradient of ${gradient} is not finite; nothing was updated. Lower the learning rate or clip gradients`,
    gradient,
  );
}
