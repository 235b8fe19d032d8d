import {
  addLeaves,
  type Counters,
  comparePlaces,
  elementCount,
  FIRST_Q,
  type Frame,
  type HostTensor,
  NotFiniteError,
  type Profile,
  type Program,
  type ProgramInput,
  type ProgramOutput,
  pieceCount,
  type StepCounters,
  type TypedArray,
} from '@cohesin/core';
import type { Inspection, Written } from './inspect.ts';
import type { Mesh } from './mesh.ts';
import type { Explanation, SharedTensor, StepReport } from './rank-worker.ts';
import { abort } from './rendezvous.ts';
import { type DistributedState, sharedTensor } from './state.ts';

/** Everything that goes from step to step and is not on the devices. */
export interface HostState {
  readonly step: number;
  readonly counters: Counters;
  /** Gradient-sum scales by tensor. */
  readonly q: Readonly<Record<string, number>>;
}

/** What is the same of a function wherever it runs. */
export interface DistributedProgram
  extends Pick<Program, 'leaves' | 'leavesPerSequence' | 'sequences' | 'scalars' | 'bitsId' | 'activations'> {
  readonly inputs: readonly Pick<ProgramInput, 'name' | 'shape' | 'dtype'>[];
  readonly outputs: readonly ProgramOutput[];
  /** The memory plan of a rank, or of one rank of each stage, as text. */
  memory(): string;
}

/** A function that runs on all devices of a mesh: the same signature as a compiled one. */
export interface Distributed<P extends DistributedProgram = DistributedProgram> {
  (inputs: Readonly<Record<string, TypedArray>>): Promise<Record<string, HostTensor>>;
  /** Runs it kernel by kernel, and says what each rank wrote; slow, and with the same bits. */
  inspect(inputs: Readonly<Record<string, TypedArray>>, inspection?: Inspection): Promise<Inspected>;
  /**
   * Times each kernel on the first rank, for its leaves alone; the state stays as it is.
   *
   * @throws for a pipeline.
   */
  profile(inputs: Readonly<Record<string, TypedArray>>, options: { readonly runs: number }): Promise<Profile>;
  readonly program: P;
  /** Bytes on the device of each rank. */
  readonly deviceBytes: readonly number[];
  /** Bytes of host memory for inputs, outputs and exchanges, over all ranks. */
  readonly hostBytes: number;
  readonly state: DistributedState;
  /** Steps that were run again because a gradient left the window of its scale, or overflowed at the loss scale. */
  readonly repeats: number;
  readonly host: HostState;
  restoreHost(host: HostState): void;
  close(): Promise<void>;
}

/** A step that was run kernel by kernel. */
export interface Inspected {
  readonly outputs: Record<string, HostTensor>;
  /** By rank. */
  readonly written: readonly (readonly Written[])[];
}

/** A function that all ranks have loaded. */
export interface LoadedJob {
  readonly id: number;
  readonly program: DistributedProgram;
  /** Whether it changes the state. */
  readonly assigns: boolean;
  /** Parameters whose gradients are summed, in the order of their scales. */
  readonly sums: readonly string[];
  readonly inputs: readonly SharedTensor[];
  readonly outputs: readonly SharedTensor[];
  readonly deviceBytes: readonly number[];
  readonly hostBytes: number;
}

/** Memory for what goes in and out of a step. */
export function batchMemory(program: DistributedProgram): Pick<LoadedJob, 'inputs' | 'outputs'> {
  return {
    inputs: program.inputs.map(({ name, shape, dtype }) => sharedTensor(name, shape, dtype)),
    outputs: program.outputs.map((output) => {
      const { name, shape, layout } = output;
      const all = layout === 'partial' ? [pieceCount(program, output), ...shape] : shape;
      return sharedTensor(name, all, 'f32');
    }),
  };
}

export function batchBytes({ inputs, outputs }: Pick<LoadedJob, 'inputs' | 'outputs'>): number {
  return [...inputs, ...outputs].reduce((bytes, { memory }) => bytes + memory.byteLength, 0);
}

export interface RunnerOptions {
  readonly seed: number;
  readonly counters: StepCounters | undefined;
}

/** Runs steps of a loaded function on all ranks. */
export function runner(
  job: LoadedJob,
  mesh: Mesh,
  state: DistributedState,
  options: RunnerOptions,
): Distributed {
  const { seed, counters: rules } = options;
  const { program } = job;
  let host: HostState = { step: 0, counters: rules?.counters() ?? {}, q: namedScales(job.sums, undefined) };
  let repeats = 0;
  const run = async (
    inputs: Readonly<Record<string, TypedArray>>,
    inspection?: Inspection,
  ): Promise<Inspected> => {
    fillInputs(program, job.inputs, inputs);
    if (!job.assigns) await state.refresh();
    const sequence = host.step * program.sequences;
    const q = job.sums.length === 0 ? undefined : Int32Array.from(job.sums, (name) => host.q[name]!);
    let { counters } = host;
    for (;;) {
      const frame: Frame = { seed, step: host.step, sequence, scalars: rules?.scalars(counters) ?? {} };
      const reports = await stepAll(mesh, job, frame, q, inspection);
      const [report] = reports; // they differ in nothing that matters here: the ranks decided together
      if (report!.kind === 'not-finite') {
        const next = rules?.afterOverflow?.(counters);
        if (next === undefined) throw await explainAll(mesh, job, frame, report!.tensor);
        counters = next;
        repeats++;
        continue;
      }
      repeats += report!.repeats;
      host = {
        step: host.step + 1,
        counters: rules?.advance(counters) ?? {},
        q: namedScales(job.sums, report!.q),
      };
      if (job.assigns) state.changed();
      const written = reports.map((one) => (one.kind === 'done' ? one.written : []));
      return { outputs: collect(program, job.outputs), written };
    }
  };
  const step = async (inputs: Readonly<Record<string, TypedArray>>): Promise<Record<string, HostTensor>> =>
    (await run(inputs)).outputs;
  return Object.defineProperties(step as Distributed, {
    inspect: {
      value: (inputs: Readonly<Record<string, TypedArray>>, inspection: Inspection = {}) =>
        run(inputs, inspection),
    },
    profile: {
      value: async (
        inputs: Readonly<Record<string, TypedArray>>,
        { runs }: { readonly runs: number },
      ): Promise<Profile> => {
        if (!job.assigns) await state.refresh();
        fillInputs(program, job.inputs, inputs);
        return mesh.ranks[0]!.call<Profile>((api) => api.profile(job.id, runs));
      },
    },
    program: {
      value: {
        ...program,
        memory: () =>
          [
            program.memory(),
            `host memory for inputs, outputs and exchanges of ${mesh.ranks.length} ranks: ${(job.hostBytes / 2 ** 20).toFixed(2)} MiB`,
          ].join('\n'),
      },
    },
    deviceBytes: { value: job.deviceBytes },
    hostBytes: { value: job.hostBytes },
    state: { value: state },
    repeats: { get: () => repeats },
    host: { get: () => host },
    restoreHost: {
      value: (saved: HostState) => {
        host = saved;
      },
    },
    close: {
      value: async () =>
        void (await Promise.all(mesh.ranks.map((rank) => rank.call((api) => api.unload(job.id))))),
    },
  });
}

/** Runs a step on all ranks. The first failure makes the others stop waiting; it is the one that is thrown. */
async function stepAll(
  mesh: Mesh,
  job: LoadedJob,
  frame: Frame,
  q: Int32Array | undefined,
  inspection: Inspection | undefined,
): Promise<StepReport[]> {
  let failure: unknown;
  const settled = await Promise.allSettled(
    mesh.ranks.map(async (rank) => {
      try {
        return await rank.call<StepReport>((api) => api.step(job.id, frame, q, inspection));
      } catch (error) {
        failure ??= new Error(`step ${frame.step}, rank ${rank.index}: ${(error as Error).message}`, {
          cause: error,
        });
        abort(mesh.rendezvous);
        throw error;
      }
    }),
  );
  if (failure !== undefined) throw failure;
  return settled.map((result) => (result as PromiseFulfilledResult<StepReport>).value);
}

/** The error that names the first tensor that is not finite, over all ranks. */
async function explainAll(
  mesh: Mesh,
  job: LoadedJob,
  frame: Frame,
  gradient: string,
): Promise<NotFiniteError> {
  const found = await Promise.all(
    mesh.ranks.map((rank) => rank.call<Explanation>((api) => api.explain(job.id, frame, gradient))),
  );
  const [first] = found
    .filter(({ place }) => place !== undefined)
    .sort((a, b) => comparePlaces(a.place!, b.place!));
  return new NotFiniteError(
    first?.message ?? `step ${frame.step}: the gradient of ${gradient} is not finite; nothing was updated`,
    first?.tensor ?? gradient,
  );
}

function fillInputs(
  program: DistributedProgram,
  shared: readonly SharedTensor[],
  inputs: Readonly<Record<string, TypedArray>>,
): void {
  for (const [i, { name, memory }] of shared.entries()) {
    const values = inputs[name];
    const expected = elementCount(program.inputs[i]!.shape);
    if (values?.length !== expected) {
      throw new Error(
        `input ${name}: ${values?.length ?? 'no'} values for shape [${program.inputs[i]!.shape.join(', ')}], which holds ${expected}`,
      );
    }
    new Uint8Array(memory).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
}

/** Outputs as one device would give them; addends of the leaves are added in float64, in leaf order. */
function collect(program: DistributedProgram, shared: readonly SharedTensor[]): Record<string, HostTensor> {
  return Object.fromEntries(
    program.outputs.map((output, i): [string, HostTensor] => {
      const { name, shape, layout } = output;
      const values = new Float32Array(shared[i]!.memory);
      if (layout !== 'partial') return [name, { shape, dtype: 'f32', data: values.slice() }];
      return [name, { shape, dtype: 'f64', data: addLeaves(values, pieceCount(program, output)) }];
    }),
  );
}

function namedScales(sums: readonly string[], q: Int32Array | undefined): Record<string, number> {
  return Object.fromEntries(sums.map((name, i) => [name, q?.[i] ?? FIRST_Q]));
}

/** Whether a program changes its state. */
export function assigns({ update, state }: Program): boolean {
  return update !== undefined || state.some(({ next }) => next !== undefined);
}
