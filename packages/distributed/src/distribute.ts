import {
  addLeaves,
  type BuildOptions,
  type Built,
  build,
  type Counters,
  elementCount,
  type Frame,
  type HostDType,
  type HostTensor,
  initialScales,
  initialState,
  kernelTarget,
  memoryReport,
  NotFiniteError,
  type Place,
  type Program,
  pieceCount,
  rounds,
  type Traceable,
  type TypedArray,
} from '@cohesin/core';
import { exchangeBytes, exchangeMemory, share } from './exchange.ts';
import type { Mesh } from './mesh.ts';
import type { Explanation, SharedTensor, StepReport } from './rank-worker.ts';
import { abort } from './rendezvous.ts';

export interface DistributeOptions extends BuildOptions {
  readonly mesh: Mesh;
  readonly seed?: number;
  /** Use the state of another distributed function on the same mesh: training and evaluation share parameters. */
  readonly state?: DistributedState;
}

/** Everything that goes from step to step and is not on the devices. */
export interface HostState {
  readonly step: number;
  readonly counters: Counters;
  /** Gradient-sum scales by tensor. */
  readonly q: Readonly<Record<string, number>>;
}

/** A function that runs on all devices of a mesh: the same signature as a compiled one. */
export interface Distributed {
  (inputs: Readonly<Record<string, TypedArray>>): Promise<Record<string, HostTensor>>;
  readonly program: Program & { memory(): string };
  /** Bytes of host memory for inputs, outputs and exchanges, over all ranks. */
  readonly hostBytes: number;
  readonly state: DistributedState;
  /** Steps that were run again because a gradient left the window of its scale, or overflowed at the loss scale. */
  readonly repeats: number;
  readonly host: HostState;
  restoreHost(host: HostState): void;
  close(): Promise<void>;
}

let nextId = 0;

/** State that every rank of a mesh holds alike. */
export class DistributedState {
  readonly id: number;
  private readonly mesh: Mesh;
  private readonly shapes = new Map<string, readonly number[]>();

  constructor(mesh: Mesh) {
    this.mesh = mesh;
    this.id = nextId++;
  }

  get names(): readonly string[] {
    return [...this.shapes.keys()].sort();
  }

  has(name: string): boolean {
    return this.shapes.has(name);
  }

  /** Declares state that a loaded program brought; called by `distribute`. */
  declare(program: Program): void {
    for (const { name, shape } of program.state) this.shapes.set(name, shape);
  }

  /** Sets values on every rank. @throws for unknown names or other shapes. */
  async write(values: ReadonlyMap<string, HostTensor>): Promise<void> {
    const tensors = [...values].map(([name, { shape, data }]) => {
      const tensor = sharedTensor(name, shape, 'f32');
      new Float32Array(tensor.memory).set(data as Float32Array);
      return tensor;
    });
    await Promise.all(this.mesh.ranks.map((rank) => rank.call((api) => api.writeState(this.id, tensors))));
  }

  /** Values in name order, from rank 0. */
  async read(names: readonly string[] = this.names): Promise<Map<string, HostTensor>> {
    const tensors = names.map((name) => sharedTensor(name, this.shapes.get(name)!, 'f32'));
    await this.mesh.ranks[0]!.call((api) => api.readState(this.id, tensors));
    return new Map(
      tensors.map(({ name, shape, memory }) => [
        name,
        { shape, dtype: 'f32', data: new Float32Array(memory).slice() },
      ]),
    );
  }

  /** @throws when ranks hold different bits, naming the first that differs from rank 0. */
  async checkEqual(): Promise<void> {
    const hashes = await Promise.all(
      this.mesh.ranks.map((rank) => rank.call((api) => api.hashState(this.id))),
    );
    const other = hashes.findIndex((hash) => hash !== hashes[0]);
    if (other >= 0)
      throw new Error(
        `rank ${other} holds other weights than rank 0; a device computed something else. Restart from the last checkpoint`,
      );
  }
}

/**
 * Compiles a function once and runs it on every device of a mesh: leaves of the batch are dealt out in order, gradients
 * are added as integers, every rank applies the same update. The result has the same bits on any number of devices.
 *
 * @throws when there are more devices than leaves.
 */
export async function distribute(fn: Traceable, options: DistributeOptions): Promise<Distributed> {
  const { mesh, seed = 0 } = options;
  const leavesOnDevice = Math.ceil((options.leavesPerSequence ?? options.leaves ?? 1) / mesh.ranks.length);
  const own = {
    target: kernelTarget(mesh.info, options.precision),
    bindingLimit: mesh.info.maxBindingBytes,
  };
  const built = build(fn, { ...own, ...options, leavesOnDevice });
  const { leaves } = rounds(built.program);
  if (mesh.ranks.length > leaves) {
    throw new Error(
      `${mesh.ranks.length} devices but only ${leaves} leaves at a time; use at most ${leaves} devices, a larger batch or more leaves a sequence`,
    );
  }
  const state = options.state ?? new DistributedState(mesh);
  const job = await load(built.program, mesh, state);
  const fresh = new Map([...built.parameters].filter(([name]) => !state.has(name)));
  state.declare(built.program);
  await state.write(initialState(fresh, seed));
  return runner(built, job, mesh, state, seed);
}

interface LoadedJob {
  readonly id: number;
  readonly inputs: readonly SharedTensor[];
  readonly outputs: readonly SharedTensor[];
  readonly hostBytes: number;
}

async function load(program: Program, mesh: Mesh, state: DistributedState): Promise<LoadedJob> {
  const id = nextId++;
  const inputs = program.inputs.map(({ name, shape, dtype }) => sharedTensor(name, shape, dtype));
  const outputs = program.outputs.map((output) => {
    const { name, shape, layout } = output;
    return sharedTensor(name, layout === 'partial' ? [pieceCount(program, output), ...shape] : shape, 'f32');
  });
  const ranks = mesh.ranks.length;
  const exchange = exchangeMemory(program, ranks);
  const { rendezvous, deadlineMs } = mesh;
  await Promise.all(
    mesh.ranks.map((rank) => {
      const [from, to] = share(rounds(program).leaves, rank.index, ranks);
      const leaves = Array.from({ length: to - from }, (_, i) => from + i);
      const job = {
        id,
        stateId: state.id,
        program,
        leaves,
        ranks,
        rendezvous,
        exchange,
        inputs,
        outputs,
        deadlineMs,
      };
      return rank.call((api) => api.load(job));
    }),
  );
  const tensors = [...inputs, ...outputs].reduce((bytes, { memory }) => bytes + memory.byteLength, 0);
  return { id, inputs, outputs, hostBytes: tensors + exchangeBytes(exchange) };
}

function runner(
  built: Built,
  job: LoadedJob,
  mesh: Mesh,
  state: DistributedState,
  seed: number,
): Distributed {
  const { program, counters: rules } = built;
  let host: HostState = { step: 0, counters: rules?.counters() ?? {}, q: namedScales(program, undefined) };
  let repeats = 0;
  const run = async (inputs: Readonly<Record<string, TypedArray>>): Promise<Record<string, HostTensor>> => {
    fillInputs(program, job.inputs, inputs);
    const sequence = host.step * program.sequences;
    const q =
      program.sums === undefined
        ? undefined
        : Int32Array.from(program.sums.tensors, ({ name }) => host.q[name]!);
    let { counters } = host;
    for (;;) {
      const frame: Frame = { seed, step: host.step, sequence, scalars: rules?.scalars(counters) ?? {} };
      const [report] = await stepAll(mesh, job, frame, q); // they differ in nothing: the ranks decided together
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
        q: namedScales(program, report!.q),
      };
      return collect(program, job.outputs);
    }
  };
  return Object.defineProperties(run as Distributed, {
    program: {
      value: {
        ...program,
        memory: () =>
          [
            memoryReport(program, Math.ceil(rounds(program).leaves / mesh.ranks.length)),
            `host memory for inputs, outputs and exchanges of ${mesh.ranks.length} ranks: ${(job.hostBytes / 2 ** 20).toFixed(2)} MiB`,
          ].join('\n'),
      },
    },
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
): Promise<StepReport[]> {
  let failure: unknown;
  const settled = await Promise.allSettled(
    mesh.ranks.map(async (rank) => {
      try {
        return await rank.call<StepReport>((api) => api.step(job.id, frame, q));
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
    .sort((a, b) => compare(a.place!, b.place!));
  return new NotFiniteError(
    first?.message ?? `step ${frame.step}: the gradient of ${gradient} is not finite; nothing was updated`,
    first?.tensor ?? gradient,
  );
}

/** Which of two places in a run is earlier. */
function compare(a: Place, b: Place): number {
  const differing = a.findIndex((value, i) => value !== b[i]);
  return differing < 0 ? 0 : a[differing]! - b[differing]!;
}

function fillInputs(
  program: Program,
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
function collect(program: Program, shared: readonly SharedTensor[]): Record<string, HostTensor> {
  return Object.fromEntries(
    program.outputs.map((output, i): [string, HostTensor] => {
      const { name, shape, layout } = output;
      const values = new Float32Array(shared[i]!.memory);
      if (layout !== 'partial') return [name, { shape, dtype: 'f32', data: values.slice() }];
      return [name, { shape, dtype: 'f64', data: addLeaves(values, pieceCount(program, output)) }];
    }),
  );
}

function namedScales(program: Program, q: Int32Array | undefined): Record<string, number> {
  const { sums } = program;
  if (sums === undefined) return {};
  const values = q ?? initialScales(sums);
  return Object.fromEntries(sums.tensors.map(({ name }, i) => [name, values[i]!]));
}

const BYTES: Partial<Record<HostDType, number>> = { u8: 1, f16: 2 };

function sharedTensor(name: string, shape: readonly number[], dtype: HostDType): SharedTensor {
  const bytes = elementCount(shape) * (BYTES[dtype] ?? 4);
  return { name, shape, dtype, memory: new SharedArrayBuffer(Math.max(4, Math.ceil(bytes / 4) * 4)) };
}
