import { createHash } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import {
  Device,
  type DeviceInfo,
  Executor,
  elementCount,
  type Frame,
  type HostDType,
  type HostTensor,
  notFinite,
  type Place,
  type Program,
  piecesOf,
  StateStore,
  type TypedArray,
} from '@cohesin/core';
import { expose } from 'comlink';
import { threadEndpoint } from './endpoint.ts';
import { type ExchangeMemory, ThreadExchange } from './exchange.ts';
import { Rendezvous, type RendezvousMemory } from './rendezvous.ts';

/** A tensor in shared memory. */
export interface SharedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: HostDType;
  readonly memory: SharedArrayBuffer;
}

/** A program for one rank, with the memory through which it talks to the others and to the main thread. */
export interface Job {
  readonly id: number;
  /** Programs with equal ids share their state. */
  readonly stateId: number;
  readonly program: Program;
  readonly leaves: readonly number[];
  readonly ranks: number;
  readonly rendezvous: RendezvousMemory;
  readonly exchange: ExchangeMemory;
  readonly inputs: readonly SharedTensor[];
  readonly outputs: readonly SharedTensor[];
  readonly deadlineMs: number;
}

/** What came of a step on this rank. */
export type StepReport =
  | { readonly kind: 'done'; readonly q: Int32Array | undefined; readonly repeats: number }
  /** The gradient of `tensor` is not finite: every rank knows, nothing was updated. */
  | { readonly kind: 'not-finite'; readonly tensor: string };

/** Where a step first went wrong on a rank; `message` is set if it was on this one. */
export interface Explanation {
  readonly message: string | undefined;
  readonly place: Place | undefined;
  readonly tensor: string;
}

interface Loaded {
  readonly job: Job;
  readonly executor: Executor;
  readonly store: StateStore;
  readonly exchange: ThreadExchange;
  readonly rendezvous: Rendezvous;
  step: number;
}

const { rank } = workerData as { rank: number };
let device: Device | undefined;
const stores = new Map<number, StateStore>();
const jobs = new Map<number, Loaded>();

/** What a rank can do. It is a thin interpreter of programs: it never sees models, tensors or closures. */
const api = {
  open: async (): Promise<DeviceInfo> => {
    device = await Device.open();
    return device.info;
  },

  load: async (job: Job): Promise<void> => {
    const store = stores.get(job.stateId) ?? new StateStore(device!);
    stores.set(job.stateId, store);
    const executor = await Executor.create(device!, job.program, store, job.leaves);
    const rendezvous = new Rendezvous(job.rendezvous, rank, job.deadlineMs);
    const exchange = new ThreadExchange({
      memory: job.exchange,
      rendezvous,
      rank,
      enter: (action) => rendezvous.enter(jobs.get(job.id)?.step ?? 0, action),
    });
    jobs.set(job.id, { job, executor, store, exchange, rendezvous, step: 0 });
  },

  unload: (id: number): void => {
    jobs.get(id)?.executor.close();
    jobs.delete(id);
  },

  step: async (id: number, frame: Frame, q: Int32Array | undefined): Promise<StepReport> => {
    const loaded = jobs.get(id)!;
    loaded.step = frame.step;
    return runStep(loaded, frame, q);
  },

  /** Runs the leaves of a step again, to find the first tensor that is not finite. */
  explain: async (id: number, frame: Frame, gradient: string): Promise<Explanation> => {
    const { executor, exchange, rendezvous } = jobs.get(id)!;
    rendezvous.enter(frame.step, 'forward and backward');
    const { message, tensor, place } = await notFinite(executor, frame, gradient, exchange);
    return { message: place === undefined ? undefined : message, place, tensor };
  },

  writeState: (stateId: number, tensors: readonly SharedTensor[]): void => {
    stores.get(stateId)!.write(new Map(tensors.map((tensor) => [tensor.name, hostTensorOf(tensor)])));
  },

  /** Fills the given tensors with this rank's state. */
  readState: async (stateId: number, into: readonly SharedTensor[]): Promise<void> => {
    const values = await stores.get(stateId)!.read(into.map(({ name }) => name));
    for (const { name, memory } of into) new Float32Array(memory).set(values.get(name)!.data as Float32Array);
  },

  /** A hash of this rank's state, to see that all ranks hold the same. */
  hashState: async (stateId: number): Promise<string> => {
    const hash = createHash('sha256');
    for (const [name, { data }] of await stores.get(stateId)!.read()) {
      hash.update(name).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    return hash.digest('hex');
  },

  /** GPU objects made so far. */
  created: (): Device['created'] => device!.created,

  /** Frees the device; afterwards the thread may be ended. */
  close: async (): Promise<void> => {
    await device?.close();
    device = undefined;
  },
};

export type RankApi = typeof api;

async function runStep(loaded: Loaded, frame: Frame, q: Int32Array | undefined): Promise<StepReport> {
  const { executor, exchange, rendezvous } = loaded;
  rendezvous.enter(frame.step, 'uploading inputs');
  executor.setInputs(inputsOf(loaded.job));
  let unit = q;
  for (let repeats = 0; ; repeats++) {
    rendezvous.enter(frame.step, 'forward and backward');
    const decision = await executor.run(frame, exchange, unit);
    if (decision?.kind === 'not-finite') return decision;
    unit = decision?.q;
    if (decision?.kind === 'repeat') continue;
    rendezvous.enter(frame.step, 'reading outputs');
    await writeOutputs(loaded);
    rendezvous.enter(frame.step, 'idle');
    return { kind: 'done', q: unit, repeats };
  }
}

function inputsOf({ inputs }: Job): Record<string, TypedArray> {
  return Object.fromEntries(inputs.map((tensor) => [tensor.name, arrayOf(tensor)]));
}

async function writeOutputs({ job, executor }: Loaded): Promise<void> {
  const values = await executor.outputs();
  for (const { name, memory } of job.outputs) {
    const output = job.program.outputs.find((candidate) => candidate.name === name)!;
    const data = values[name]!.data as Float32Array;
    if (output.layout === 'whole') {
      if (rank === 0) new Float32Array(memory).set(data);
      continue;
    }
    const pieces = piecesOf(job.program, output, job.leaves);
    const size = data.length / pieces.length;
    for (const [i, piece] of pieces.entries())
      new Float32Array(memory).set(data.subarray(i * size, (i + 1) * size), piece * size);
  }
}

function arrayOf({ memory, dtype, shape }: SharedTensor): TypedArray {
  const count = elementCount(shape);
  if (dtype === 'u8') return new Uint8Array(memory, 0, count);
  if (dtype === 'f16') return new Uint16Array(memory, 0, count);
  if (dtype === 'u32') return new Uint32Array(memory, 0, count);
  if (dtype === 'i32') return new Int32Array(memory, 0, count);
  return new Float32Array(memory, 0, count);
}

function hostTensorOf(tensor: SharedTensor): HostTensor {
  return { shape: tensor.shape, dtype: 'f32', data: arrayOf(tensor) };
}

// An error that no caller awaits: ending a thread with GPU work in flight would abort the process, so the device goes first.
process.on('uncaughtException', (error) => {
  process.stderr.write(`rank ${rank}: ${error.stack ?? error.message}\n`);
  void api.close().finally(() => process.exit(1));
});

if (parentPort === null) throw new Error('rank-worker must run in a worker thread; use openMesh()');
expose(api, threadEndpoint(parentPort));
