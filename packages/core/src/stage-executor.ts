import { Accumulators } from './accumulators.ts';
import { ProgramBuffers } from './buffers.ts';
import { type Device, type ReadInto, TRANSFER_BYTES } from './device.ts';
import { Dispatcher, type For, type Frame, type PreparedSegment } from './dispatcher.ts';
import type { Exchange, PipelineExchange } from './exchange.ts';
import { type Gathered, gather, handOver, movedBy, startGatherLeaves } from './gathered.ts';
import { decide, type SumDecision } from './gradient-scale.ts';
import type { HostTensor, TypedArray } from './host-tensor.ts';
import { checkInputs, type ProgramMemory, readOutputs, uploadShare } from './inputs-outputs.ts';
import { type Found, findNotFinite, type Place } from './not-finite.ts';
import { allLeaves, type Share } from './program.ts';
import type { ActionKind, Link, LinkPiece, StageProgram } from './stage-program.ts';
import type { StateStore } from './state.ts';
import { type Visit, visitOnce, visitSegment } from './visit.ts';

/** What a rank does with one microbatch at a time: a leaf of whole sequences, or its parts of one sequence. */
export interface StageAction {
  readonly kind: ActionKind;
  readonly microbatch: number;
}

/**
 * For each microbatch of a rank's actions which of its sets of buffers holds the microbatch's tensors, from its first
 * action to its last: as many sets as microbatches are ever in flight.
 */
export function setsInFlight(actions: readonly StageAction[]): ReadonlyMap<number, number> {
  const sets = new Map<number, number>();
  const last = new Map(actions.map(({ microbatch }, index) => [microbatch, index]));
  const free: number[] = [];
  let count = 0;
  for (const [index, { microbatch }] of actions.entries()) {
    if (!sets.has(microbatch)) sets.set(microbatch, free.shift() ?? count++);
    if (last.get(microbatch) === index) free.push(sets.get(microbatch)!);
  }
  return sets;
}

/** What a rank of a stage works on. */
export interface StageWork {
  readonly actions: readonly StageAction[];
  /** Where sequences are cut into parts: the consecutive ones of each that are this rank's. */
  readonly parts?: readonly number[];
}

/** Runs the segment of an action for some leaves. */
type RunSegment = (prepared: PreparedSegment, leaves: readonly For[], place: Place) => Promise<void>;

/** Runs the program of one stage of a pipeline on one device: its actions in order, then its part of the update. */
export class StageExecutor {
  readonly program: StageProgram;
  readonly device: Device;
  private readonly store: StateStore;
  private readonly actions: readonly StageAction[];
  private readonly parts: readonly number[] | undefined;
  private readonly sets: ReadonlyMap<number, number>;
  private readonly buffers: ProgramBuffers;
  private readonly memory: ProgramMemory;
  private readonly dispatcher: Dispatcher;
  private readonly sums: Accumulators | undefined;
  private segments: readonly PreparedSegment[] = [];
  /** What sends the messages of the last action. */
  private sends: (() => Promise<void>)[] = [];
  private inputs: Readonly<Record<string, TypedArray>> = {};

  private constructor(
    device: Device,
    program: StageProgram,
    store: StateStore,
    { actions, parts }: StageWork,
  ) {
    this.device = device;
    this.program = program;
    this.store = store;
    this.actions = actions;
    this.parts = program.leavesPerSequence > 1 ? (parts ?? allLeaves(program)[0]!.leaves) : undefined;
    this.sets = setsInFlight(actions);
    const leaves = [...this.sets.keys()].flatMap((microbatch) => this.leavesOf(microbatch));
    const sets = [...new Set(leaves.map(({ set }) => set))];
    this.buffers = new ProgramBuffers(device, program, store, sets, this.parts?.length);
    this.memory = { device, program, buffers: this.buffers };
    this.dispatcher = new Dispatcher(device, program, store, this.buffers);
    if (program.sums !== undefined) this.sums = new Accumulators(device, program, program.sums, this.buffers);
  }

  /** Compiles all kernels and allocates all buffers. */
  static async create(
    device: Device,
    program: StageProgram,
    store: StateStore,
    work: StageWork,
  ): Promise<StageExecutor> {
    const executor = new StageExecutor(device, program, store, work);
    const leaves = executor.parts ?? [...executor.sets.keys()];
    executor.segments = await Promise.all(
      program.segments.map((segment) => executor.dispatcher.prepare(segment, leaves)),
    );
    return executor;
  }

  /** What this rank works on. */
  get shares(): readonly Share[] {
    const { parts } = this;
    const microbatches = [...this.sets.keys()];
    return parts === undefined
      ? [{ round: 0, leaves: microbatches }]
      : microbatches.map((round) => ({ round, leaves: parts }));
  }

  /** Sets the batch; a microbatch's rows are uploaded when it goes forward. @throws as `Executor.setInputs`. */
  setInputs(inputs: Readonly<Record<string, TypedArray>>): void {
    checkInputs(this.program, inputs);
    this.inputs = inputs;
  }

  /**
   * Runs a step, together with all other ranks. `q` has the scales of the gradient sums of all stages. With `visit` it runs
   * kernel by kernel.
   *
   * @throws when another rank fails or does not answer.
   */
  async run(
    frame: Frame,
    exchange: PipelineExchange,
    q?: Int32Array,
    visit?: Visit,
  ): Promise<SumDecision | undefined> {
    if (this.sums !== undefined) this.sums.start(this.ownScales(q!));
    await this.beforeUpdate(frame, exchange, visit);
    await gather(this.device, exchange.stage, this.gatheredPieces(exchange.stage));
    const decision = await this.decide(exchange, q);
    if (decision !== undefined && decision.kind !== 'commit') return decision;
    await this.update(frame, exchange, visit);
    return decision;
  }

  /** As `Executor.outputs`, of the outputs that this stage computes. */
  async outputs(): Promise<Record<string, HostTensor>> {
    return readOutputs(this.memory, this.shares);
  }

  /** As `Executor.firstNotFinite`, for the work of this rank. */
  firstNotFinite(frame: Frame, exchange: PipelineExchange): Promise<Found | undefined> {
    return findNotFinite((visit) => this.beforeUpdate(frame, exchange, visit));
  }

  /** As `Executor.poison`. */
  poison(): void {
    this.buffers.poison();
  }

  close(): void {
    this.buffers.close();
  }

  /** What all microbatches share, then the actions. */
  private async beforeUpdate(
    frame: Frame,
    exchange: PipelineExchange,
    visit: Visit | undefined,
  ): Promise<void> {
    const { dispatcher, memory } = this;
    await this.once(0, frame, visit);
    const run: RunSegment =
      visit === undefined
        ? async (prepared, leaves) => dispatcher.segment(prepared, frame, [leaves])
        : (...of) => visitSegment({ dispatcher, memory, frame, visit }, ...of);
    for (const action of this.actions) await this.act(action, exchange, run);
    await this.sendAll();
  }

  private async once(index: number, frame: Frame, visit: Visit | undefined): Promise<void> {
    const { dispatcher, memory } = this;
    const prepared = this.segments[index]!;
    const all = { round: 0, leaf: 0, set: 0 };
    if (visit === undefined) return dispatcher.once(prepared, frame, all);
    const place = [0, index === 0 ? -1 : Number.POSITIVE_INFINITY, 0] as const; // before all leaves, or after
    await visitOnce({ dispatcher, memory, frame, visit }, prepared, all, place);
  }

  /** The leaves of a microbatch that are this rank's, with their sets of buffers. */
  private leavesOf(microbatch: number): For[] {
    const own = this.sets.get(microbatch)!;
    const { parts } = this;
    if (parts === undefined) return [{ round: 0, leaf: microbatch, set: own }];
    return parts.map((leaf, i) => ({ round: microbatch, leaf, set: own * parts.length + i }));
  }

  private async act(action: StageAction, exchange: PipelineExchange, run: RunSegment): Promise<void> {
    const { kind, microbatch } = action;
    const leaves = this.leavesOf(microbatch);
    const { set } = leaves[0]!;
    await exchange.enter(kind, microbatch);
    if (kind === 'forward') uploadShare(this.memory, this.inputs, { share: microbatch, set });
    for (const link of this.links(kind, 'to')) {
      if (!exchange.arrived(link, microbatch)) await this.sendAll();
      await exchange.receive(link, microbatch, ({ memory, ...piece }) =>
        this.device.write(this.linked(link, microbatch, piece), 0, memory),
      );
    }
    if (this.parts !== undefined) await this.sendAll(); // parts meet in this action, and another's may wait for a message
    await exchange.enter(kind, microbatch);
    const [from, to] = this.program.actions[kind]!;
    for (const [index, prepared] of this.segments.slice(from, to).entries()) {
      await run(prepared, leaves, this.placeOf(action, index));
      if (this.parts === undefined) continue; // leaves of whole sequences only meet after the last
      const { combine } = prepared.segment;
      const own = { leaves: this.parts, set };
      await startGatherLeaves(this.memory, combine, [own], exchange.stage.round(microbatch))();
    }
    await this.sendAll();
    for (const link of this.links(kind, 'from'))
      this.sends.push(await this.startSend(link, microbatch, exchange));
  }

  /**
   * Has the device copy what goes to another stage, and gives what sends it once the copy is there: the next action is
   * submitted before, so that the device need not wait for the host. A copy of several transfers is waited for, as later
   * work may write over what is not copied yet.
   */
  private async startSend(
    link: Link,
    microbatch: number,
    exchange: PipelineExchange,
  ): Promise<() => Promise<void>> {
    const ranges = exchange.outgoing(link, microbatch).map(({ memory, ...piece }): ReadInto => {
      return { buffer: this.linked(link, microbatch, piece), bytes: memory.length, to: memory };
    });
    const copied = this.device.readInto(ranges);
    copied.catch(() => {}); // is thrown where it is sent
    if (ranges.reduce((total, { bytes }) => total + bytes, 0) > TRANSFER_BYTES) await copied;
    return async () => {
      await copied;
      exchange.send(link, microbatch);
    };
  }

  /** A rank keeps nothing back while it waits for another. */
  private async sendAll(): Promise<void> {
    for (const send of this.sends.splice(0)) await send();
  }

  /** Links whose message comes before (`to`) or goes after (`from`) an action. */
  private links(kind: ActionKind, end: 'from' | 'to'): readonly Link[] {
    if (kind === 'weightGradient') return [];
    const value = kind === 'forward' ? 'activation' : 'gradient';
    return this.program.links.filter((link) => link.value === value && link[end] === this.program.stage);
  }

  /** The buffer of a link's tensor, or of a part's piece of it. */
  private linked({ tensors }: Link, microbatch: number, { tensor, part }: LinkPiece): GPUBuffer {
    const leaves = this.leavesOf(microbatch);
    const { set } = leaves.find(({ leaf }) => leaf === part) ?? leaves[0]!;
    return this.buffers.of(tensors[tensor]!.slot, set);
  }

  /**
   * What the update needs of all microbatches, on the ranks of this stage: pieces of leaves, or of sequences where their
   * parts have exchanged the others and the ranks do not share them all.
   */
  private gatheredPieces({ divided }: Exchange): Gathered[] {
    const { segments, kept } = this.program;
    const count = this.program.leaves / this.program.leavesPerSequence;
    const sequences = divided ? kept.map((one) => ({ ...one, first: 0, count })) : [];
    const gives = this.parts === undefined || this.parts[0] === 0; // one of the ranks that share a sequence
    const leaves = segments.flatMap(({ combine }) =>
      combine.map(({ slot, bytesPerLeaf, parts: [from, to] }) => {
        return { slot, bytes: bytesPerLeaf, first: from, count: to - from };
      }),
    );
    return (this.parts === undefined ? leaves : sequences).flatMap(({ slot, bytes, first, count }) =>
      Array.from({ length: count }, (_, i) => {
        return {
          buffer: this.buffers.of(slot, 0),
          offset: i * bytes,
          bytes,
          own: gives && this.sets.has(first + i),
        };
      }),
    );
  }

  /** All ranks decide alike, from the largest leaf gradients of all stages. */
  private async decide(
    exchange: PipelineExchange,
    q: Int32Array | undefined,
  ): Promise<SumDecision | undefined> {
    const { tensors, first } = this.program.peaks;
    if (tensors.length === 0) return undefined;
    const own = this.sums && (await exchange.stage.peaks(await this.sums.peaks()));
    const peaks = new Uint8Array((own ?? new Uint32Array()).slice().buffer);
    const [all] = await exchange.all.combine([
      { own: peaks, offset: 4 * first, bytes: 4 * tensors.length, wanted: true },
    ]);
    const inPlaces = new Uint32Array(all!.slice().buffer);
    const inOrder = Uint32Array.from(tensors, ({ place }) => inPlaces[place]!);
    const decision = decide({ tensors }, inOrder, q!);
    if (decision.kind !== 'commit') return decision;
    if (this.sums !== undefined) await this.sums.add(exchange.stage, () => undefined);
    exchange.stage.updating();
    return decision;
  }

  private ownScales(q: Int32Array): Int32Array {
    const { tensors, first } = this.program.peaks;
    const count = this.program.sums!.tensors.length;
    return Int32Array.from(
      { length: count },
      (_, i) => q[tensors.findIndex(({ place }) => place === first + i)]!,
    );
  }

  private async update(frame: Frame, exchange: PipelineExchange, visit: Visit | undefined): Promise<void> {
    const { program } = this;
    for (const [level, handOvers] of program.handOvers.entries()) {
      await this.once(program.update! + level, frame, visit);
      await handOver(this.memory, handOvers, program.unit, exchange.all);
    }
    this.store.commit(program.state.filter(({ next }) => next !== undefined).map(({ name }) => name));
    if (program.updateShare !== undefined)
      await exchange.stage.give(this.device, movedBy(program.updateShare, this.store));
    const shared = program.sharedParameters.map(({ name, held, from, bytes }): Gathered => {
      return { buffer: held ? this.store.buffer(name) : undefined, bytes, own: from === program.unit };
    });
    await gather(this.device, exchange.all, shared);
  }

  /** Microbatch by microbatch, each through all stages and back. */
  private placeOf({ kind, microbatch }: StageAction, index: number): Place {
    const { stage } = this.program;
    const turn = kind === 'forward' ? stage : LAST_TURN - stage;
    return this.parts === undefined
      ? [0, microbatch * (LAST_TURN + 1) + turn, microbatch]
      : [microbatch, turn * MOST_SEGMENTS + index, 0];
  }
}

const LAST_TURN = 2 ** 16;
const MOST_SEGMENTS = 2 ** 16;
