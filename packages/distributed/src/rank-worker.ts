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
  type NotFiniteError,
  notFinite,
  type Place,
  type Profile,
  type Program,
  piecesOf,
  profile,
  type Share,
  StageExecutor,
  type StageProgram,
  type StageWork,
  StateStore,
  type SumDecision,
  type TypedArray,
  type Visit,
} from '@cohesin/core';
import { expose } from 'comlink';
import { threadEndpoint } from './endpoint.ts';
import { type ExchangeMemory, ThreadExchange } from './exchange.ts';
import { type Inspection, Recorder, type Written } from './inspect.ts';
import { type Action, Rendezvous, type RendezvousMemory } from './rendezvous.ts';
import { type StageMemory, ThreadPipeline } from './stage-exchange.ts';
import { Timeline, type TraceSpan } from './timeline.ts';

/** A tensor in shared memory. */
export interface SharedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: HostDType;
  readonly memory: SharedArrayBuffer;
}

/** A program for one rank, with the memory through which it talks to the others and to the main thread. */
export type Job = LeavesJob | StageJob;

interface Shared {
  readonly id: number;
  /** Programs with equal ids share their state. */
  readonly stateId: number;
  readonly rendezvous: RendezvousMemory;
  readonly inputs: readonly SharedTensor[];
  readonly outputs: readonly SharedTensor[];
  readonly deadlineMs: number;
}

/** A whole step for some of its leaves. */
export interface LeavesJob extends Shared {
  readonly kind: 'leaves';
  readonly program: Program;
  readonly shares: readonly Share[];
  /** How many sequences in parts go side by side. */
  readonly sequences: number;
  readonly exchange: ExchangeMemory;
}

/** A stage of a step. */
export interface StageJob extends Shared {
  readonly kind: 'stage';
  readonly program: StageProgram;
  readonly work: StageWork;
  readonly memory: StageMemory;
}

/** What came of a step on this rank. */
export type StepReport =
  | {
      readonly kind: 'done';
      readonly q: Int32Array | undefined;
      readonly repeats: number;
      /** Of a step that is inspected. */
      readonly written: readonly Written[];
    }
  /** The gradient of `tensor` is not finite: every rank knows, nothing was updated. */
  | { readonly kind: 'not-finite'; readonly tensor: string };

/** Where a step first went wrong on a rank; `message` is set if it was on this one. */
export interface Explanation {
  readonly message: string | undefined;
  readonly place: Place | undefined;
  readonly tensor: string;
}

/** A program on this rank's device. */
interface Running {
  readonly program: Program;
  readonly shares: readonly Share[];
  setInputs(inputs: Readonly<Record<string, TypedArray>>): void;
  run(frame: Frame, q: Int32Array | undefined, visit: Visit | undefined): Promise<SumDecision | undefined>;
  outputs(): Promise<Record<string, HostTensor>>;
  explain(frame: Frame, gradient: string): Promise<NotFiniteError>;
  /** GPU time of each kernel; a stage has none to itself. */
  profile?(inputs: Readonly<Record<string, TypedArray>>, runs: number): Promise<Profile>;
  close(): void;
}

interface Loaded {
  readonly job: Job;
  readonly running: Running;
  readonly rendezvous: Rendezvous;
  step: number;
}

const { rank } = workerData as { rank: number };
let device: Device | undefined;
const stores = new Map<number, StateStore>();
const jobs = new Map<number, Loaded>();
const timeline = new Timeline(async () => device?.idle());

/** What a rank can do. It is a thin interpreter of programs: it never sees models, tensors or closures. */
const api = {
  open: async (): Promise<DeviceInfo> => {
    device = await Device.open();
    return device.info;
  },

  load: async (job: Job): Promise<void> => {
    const store = stores.get(job.stateId) ?? new StateStore(device!);
    stores.set(job.stateId, store);
    const rendezvous = new Rendezvous(job.rendezvous, rank, job.deadlineMs, timeline);
    const open =
      job.kind === 'leaves' ? openLeaves(job, store, rendezvous) : openStage(job, store, rendezvous);
    jobs.set(job.id, { job, running: await open, rendezvous, step: 0 });
  },

  unload: (id: number): void => {
    jobs.get(id)?.running.close();
    jobs.delete(id);
  },

  step: async (
    id: number,
    frame: Frame,
    q: Int32Array | undefined,
    inspection?: Inspection,
  ): Promise<StepReport> => {
    const loaded = jobs.get(id)!;
    loaded.step = frame.step;
    return runStep(loaded, frame, q, inspection);
  },

  /** Runs the leaves of a step again, to find the first tensor that is not finite. */
  explain: async (id: number, frame: Frame, gradient: string): Promise<Explanation> => {
    const { running, rendezvous } = jobs.get(id)!;
    rendezvous.enter(frame.step, 'forward and backward');
    const { message, tensor, place } = await running.explain(frame, gradient);
    return { message: place === undefined ? undefined : message, place, tensor };
  },

  /** Times the kernels of a function for this rank's leaves, without meeting the others. */
  profile: async (id: number, runs: number): Promise<Profile> => {
    const { job, running } = jobs.get(id)!;
    if (running.profile === undefined)
      throw new Error('a stage of a pipeline is not profiled alone; profile the whole step on one device');
    return running.profile(inputsOf(job), runs);
  },

  writeState: (stateId: number, tensors: readonly SharedTensor[]): void => {
    stores.get(stateId)!.write(new Map(tensors.map((tensor) => [tensor.name, hostTensorOf(tensor)])));
  },

  /** Fills the given tensors with this rank's state. */
  readState: async (stateId: number, into: readonly SharedTensor[]): Promise<void> => {
    const values = await stores.get(stateId)!.read(into.map(({ name }) => name));
    for (const { name, memory } of into) new Float32Array(memory).set(values.get(name)!.data as Float32Array);
  },

  /** A hash of each tensor, to see that ranks hold the same. */
  hashState: async (stateId: number, names: readonly string[]): Promise<string[]> => {
    const values = await stores.get(stateId)!.read(names);
    return [...values.values()].map(({ data }) =>
      createHash('sha256')
        .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
        .digest('hex'),
    );
  },

  /** Keeps the times of what is done from now on. */
  record: (): void => timeline.record(),

  /** What was done since `record`. */
  recorded: (): TraceSpan[] => timeline.take(),

  /** GPU objects made so far. */
  created: (): Device['created'] => device!.created,

  /** Frees the device; afterwards the thread may be ended. */
  close: async (): Promise<void> => {
    await device?.close();
    device = undefined;
  },
};

export type RankApi = typeof api;

async function openLeaves(job: LeavesJob, store: StateStore, rendezvous: Rendezvous): Promise<Running> {
  const { program, shares, sequences, exchange: memory } = job;
  const executor = await Executor.create(device!, program, store, shares, sequences);
  const enter = (action: Action): void => rendezvous.enter(stepOf(job), action);
  const exchange = new ThreadExchange(memory, rank, { rendezvous, enter });
  return {
    program,
    shares,
    setInputs: (inputs) => executor.setInputs(inputs),
    run: (frame, q, visit) => executor.run(frame, exchange, q, visit),
    outputs: () => executor.outputs(),
    explain: (frame, gradient) =>
      notFinite(program, frame, gradient, () => executor.firstNotFinite(frame, exchange)),
    profile: (inputs, runs) => profile({ executor, program, state: store }, inputs, { runs }),
    close: () => executor.close(),
  };
}

async function openStage(job: StageJob, store: StateStore, rendezvous: Rendezvous): Promise<Running> {
  const { program, work, memory } = job;
  const executor = await StageExecutor.create(device!, program, store, work);
  const at = { rank, stage: program.stage, rendezvous, step: () => stepOf(job) };
  const exchange = new ThreadPipeline(memory, at);
  return {
    program,
    shares: executor.shares,
    setInputs: (inputs) => executor.setInputs(inputs),
    run: (frame, q, visit) => executor.run(frame, exchange, q, visit),
    outputs: () => executor.outputs(),
    explain: (frame, gradient) =>
      notFinite(program, frame, gradient, () => executor.firstNotFinite(frame, exchange)),
    close: () => executor.close(),
  };
}

const stepOf = ({ id }: Job): number => jobs.get(id)?.step ?? 0;

async function runStep(
  loaded: Loaded,
  frame: Frame,
  q: Int32Array | undefined,
  inspection: Inspection | undefined,
): Promise<StepReport> {
  const { running, rendezvous } = loaded;
  timeline.begin(running.program.update === undefined ? 'prediction' : `step ${frame.step}`);
  rendezvous.enter(frame.step, 'uploading inputs');
  running.setInputs(inputsOf(loaded.job));
  let unit = q;
  for (let repeats = 0; ; repeats++) {
    rendezvous.enter(frame.step, 'forward and backward');
    const recorder = inspection && new Recorder(inspection);
    const decision = await running.run(frame, unit, recorder?.visit);
    if (decision?.kind === 'not-finite') return decision;
    unit = decision?.q;
    if (decision?.kind === 'repeat') continue;
    await timeline.settled();
    rendezvous.enter(frame.step, 'reading outputs');
    await writeOutputs(loaded);
    rendezvous.enter(frame.step, 'idle');
    timeline.end();
    return { kind: 'done', q: unit, repeats, written: recorder?.written ?? [] };
  }
}

function inputsOf({ inputs }: Job): Record<string, TypedArray> {
  return Object.fromEntries(inputs.map((tensor) => [tensor.name, arrayOf(tensor)]));
}

/** Writes what this rank has of the outputs; what several ranks have alike, the first of them writes. */
async function writeOutputs({ job, running }: Loaded): Promise<void> {
  const values = await running.outputs();
  const isFirst = job.kind === 'leaves' ? rank === 0 : job.memory.group.members[0] === rank;
  for (const output of running.program.outputs) {
    const { memory } = job.outputs.find(({ name }) => name === output.name)!;
    const data = values[output.name]!.data as Float32Array;
    if (output.layout === 'whole') {
      if (isFirst) new Float32Array(memory).set(data);
      continue;
    }
    const pieces = piecesOf(output, running.shares);
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
