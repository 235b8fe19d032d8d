import { Accumulators } from './accumulators.ts';
import { ProgramBuffers } from './buffers.ts';
import type { Device } from './device.ts';
import { Dispatcher, type For, type Frame, type Prepared, type PreparedSegment } from './dispatcher.ts';
import type { PipelineExchange } from './exchange.ts';
import { type Gathered, gather } from './gathered.ts';
import { decide, type SumDecision } from './gradient-scale.ts';
import type { HostTensor, TypedArray } from './host-tensor.ts';
import { checkInputs, type ProgramMemory, readOutputs, uploadShare, wroteFinite } from './inputs-outputs.ts';
import type { Found, Place } from './not-finite.ts';
import type { Share } from './program.ts';
import type { ActionKind, HandOver, Link, StageProgram } from './stage-program.ts';
import type { StateStore } from './state.ts';

/** What a rank does with one leaf at a time: its microbatch. */
export interface StageAction {
  readonly kind: ActionKind;
  readonly leaf: number;
}

/**
 * For each leaf of a rank's actions which of its sets of buffers holds the leaf's tensors, from the leaf's first action
 * to its last: as many sets as leaves are ever in flight.
 */
export function setsInFlight(actions: readonly StageAction[]): ReadonlyMap<number, number> {
  const sets = new Map<number, number>();
  const last = new Map(actions.map(({ leaf }, index) => [leaf, index]));
  const free: number[] = [];
  let count = 0;
  for (const [index, { leaf }] of actions.entries()) {
    if (!sets.has(leaf)) sets.set(leaf, free.shift() ?? count++);
    if (last.get(leaf) === index) free.push(sets.get(leaf)!);
  }
  return sets;
}

/** Runs the program of one stage of a pipeline on one device: its actions in order, then its part of the update. */
export class StageExecutor {
  readonly program: StageProgram;
  readonly device: Device;
  private readonly store: StateStore;
  private readonly actions: readonly StageAction[];
  private readonly sets: ReadonlyMap<number, number>;
  private readonly buffers: ProgramBuffers;
  private readonly memory: ProgramMemory;
  private readonly dispatcher: Dispatcher;
  private readonly sums: Accumulators | undefined;
  private segments: readonly PreparedSegment[] = [];
  private inputs: Readonly<Record<string, TypedArray>> = {};

  private constructor(
    device: Device,
    program: StageProgram,
    store: StateStore,
    actions: readonly StageAction[],
  ) {
    this.device = device;
    this.program = program;
    this.store = store;
    this.actions = actions;
    this.sets = setsInFlight(actions);
    this.buffers = new ProgramBuffers(device, program, store, [...new Set(this.sets.values())]);
    this.memory = { device, program, buffers: this.buffers };
    this.dispatcher = new Dispatcher(device, program, store, this.buffers);
    if (program.sums !== undefined) this.sums = new Accumulators(device, program, program.sums, this.buffers);
  }

  /** Compiles all kernels and allocates all buffers. */
  static async create(
    device: Device,
    program: StageProgram,
    store: StateStore,
    actions: readonly StageAction[],
  ): Promise<StageExecutor> {
    const executor = new StageExecutor(device, program, store, actions);
    executor.segments = await Promise.all(
      program.segments.map((segment) => executor.dispatcher.prepare(segment, [...executor.sets.keys()])),
    );
    return executor;
  }

  /** What this rank works on. */
  get shares(): readonly Share[] {
    return [{ round: 0, leaves: [...this.sets.keys()] }];
  }

  /** Sets the batch; a leaf's rows are uploaded when it goes forward. @throws as `Executor.setInputs`. */
  setInputs(inputs: Readonly<Record<string, TypedArray>>): void {
    checkInputs(this.program, inputs);
    this.inputs = inputs;
  }

  /**
   * Runs a step, together with all other ranks. `q` has the scales of the gradient sums of all stages.
   *
   * @throws when another rank fails or does not answer.
   */
  async run(frame: Frame, exchange: PipelineExchange, q?: Int32Array): Promise<SumDecision | undefined> {
    if (this.sums !== undefined) this.sums.start(this.ownScales(q!));
    this.once(this.segments[0]!, frame); // what all leaves share
    for (const action of this.actions) await this.act(action, frame, exchange, this.encodeAll);
    await gather(this.device, exchange.stage, this.gatheredPieces());
    const decision = await this.decide(exchange, q);
    if (decision !== undefined && decision.kind !== 'commit') return decision;
    await this.update(frame, exchange);
    return decision;
  }

  /** As `Executor.outputs`, of the outputs that this stage computes. */
  async outputs(): Promise<Record<string, HostTensor>> {
    return readOutputs(this.memory, this.shares);
  }

  /** As `Executor.firstNotFinite`, for the work of this rank. */
  async firstNotFinite(frame: Frame, exchange: PipelineExchange): Promise<Found | undefined> {
    let found: Found | undefined;
    this.once(this.segments[0]!, frame);
    for (const action of this.actions) {
      await this.act(action, frame, exchange, async (steps, of) => {
        for (const prepared of steps) {
          this.submit((encoder) => this.dispatcher.pass(encoder, [prepared], frame, of));
          if (found !== undefined || (await wroteFinite(this.memory, prepared.step, of.set))) continue;
          found = { step: prepared.step, place: this.placeOf(action) };
        }
      });
    }
    return found;
  }

  /** As `Executor.poison`. */
  poison(): void {
    this.buffers.poison();
  }

  close(): void {
    this.buffers.close();
  }

  private readonly encodeAll = async (steps: readonly Prepared[], of: For, frame: Frame): Promise<void> =>
    this.submit((encoder) => this.dispatcher.pass(encoder, steps, frame, of));

  private submit(encode: (encoder: GPUCommandEncoder) => void): void {
    const encoder = this.device.encoder(`stage ${this.program.stage}`);
    encode(encoder);
    this.device.submit(encoder);
  }

  private once({ once, segment }: PreparedSegment, frame: Frame): void {
    if (once.length === 0) return;
    const all = { round: 0, leaf: 0, set: 0 };
    this.submit((encoder) => {
      this.dispatcher.pass(encoder, once, frame, all);
      this.dispatcher.publish(encoder, segment.publishOnce, all);
    });
  }

  private async act(
    { kind, leaf }: StageAction,
    frame: Frame,
    exchange: PipelineExchange,
    run: (steps: readonly Prepared[], of: For, frame: Frame) => Promise<void>,
  ): Promise<void> {
    const { segment, leaves } = this.segments[this.program.actions[kind]!]!;
    const of = { round: 0, leaf, set: this.sets.get(leaf)! };
    exchange.enter(kind, leaf);
    if (kind === 'forward') uploadShare(this.memory, this.inputs, { share: leaf, set: of.set });
    for (const link of this.links(kind, 'to')) this.take(link, of.set, await exchange.receive(link, leaf));
    exchange.enter(kind, leaf);
    const steps = leaves.get(leaf)!;
    if (steps.length > 0) await run(steps, of, frame);
    this.submit((encoder) => this.dispatcher.publish(encoder, segment.publish, of));
    for (const link of this.links(kind, 'from'))
      await exchange.send(link, leaf, await this.message(link, of.set));
  }

  /** Links whose message comes before (`to`) or goes after (`from`) an action. */
  private links(kind: ActionKind, end: 'from' | 'to'): readonly Link[] {
    if (kind === 'weightGradient') return [];
    const value = kind === 'forward' ? 'activation' : 'gradient';
    return this.program.links.filter((link) => link.value === value && link[end] === this.program.stage);
  }

  private take({ tensors }: Link, set: number, message: Uint8Array<ArrayBuffer>): void {
    let at = 0;
    for (const { slot, bytes } of tensors) {
      this.device.write(this.buffers.of(slot, set), 0, message.subarray(at, at + bytes));
      at += bytes;
    }
  }

  private message({ tensors }: Link, set: number): Promise<Uint8Array[]> {
    return this.device.read(
      tensors.map(({ slot, bytes }) => ({ buffer: this.buffers.of(slot, set), bytes })),
    );
  }

  /** The pieces of all leaves, of what is gathered on the ranks of this stage. */
  private gatheredPieces(): Gathered[] {
    const gathered = this.program.segments.flatMap(({ combine }) => combine);
    return gathered.flatMap(({ slot, bytesPerLeaf: bytes, parts: [from, to] }) =>
      Array.from({ length: to - from }, (_, i) => {
        return { buffer: this.buffers.of(slot, 0), offset: i * bytes, bytes, own: this.sets.has(from + i) };
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
    const own = this.sums && (await exchange.stage.sum(await this.sums.read(exchange.stage.remote)));
    const peaks = new Uint8Array((own?.peaks ?? new Uint32Array()).slice().buffer);
    const [all] = await exchange.all.combine([{ own: peaks, offset: 4 * first, bytes: 4 * tensors.length }]);
    const inPlaces = new Uint32Array(all!.slice().buffer);
    const inOrder = Uint32Array.from(tensors, ({ place }) => inPlaces[place]!);
    const decision = decide({ tensors }, inOrder, q!);
    if (decision.kind === 'commit' && own?.sums !== undefined) this.sums!.write(own.sums);
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

  private async update(frame: Frame, exchange: PipelineExchange): Promise<void> {
    const { program } = this;
    for (const [level, handOvers] of program.handOvers.entries()) {
      this.once(this.segments[program.update! + level]!, frame);
      await this.handOver(handOvers, exchange.all);
    }
    this.store.commit(program.state.filter(({ next }) => next !== undefined).map(({ name }) => name));
    const shared = program.sharedParameters.map(({ name, held, from, bytes }): Gathered => {
      return { buffer: held ? this.store.buffer(name) : undefined, bytes, own: from === program.stage };
    });
    await gather(this.device, exchange.all, shared);
  }

  private handOver(handOvers: readonly HandOver[], exchange: PipelineExchange['all']): Promise<void> {
    const { stage } = this.program;
    const shared = handOvers.map(({ slot, from, bytes }): Gathered => {
      return {
        buffer: slot === undefined ? undefined : this.buffers.of(slot, 0),
        bytes,
        own: from === stage,
      };
    });
    return gather(this.device, exchange, shared);
  }

  /** Leaf by leaf, each through all stages and back. */
  private placeOf({ kind, leaf }: StageAction): Place {
    const { stage } = this.program;
    const turn = kind === 'forward' ? stage : LAST_TURN - stage;
    return [0, leaf * (LAST_TURN + 1) + turn, leaf];
  }
}

const LAST_TURN = 2 ** 16;
