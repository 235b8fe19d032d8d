import { Accumulators } from './accumulators.ts';
import { ProgramBuffers } from './buffers.ts';
import type { Device } from './device.ts';
import { Dispatcher, type For, type Frame, type Prepared, type PreparedSegment } from './dispatcher.ts';
import { alone, type Exchange } from './exchange.ts';
import { gather, handOver, movedBy, startGatherLeaves } from './gathered.ts';
import { decide, type SumDecision } from './gradient-scale.ts';
import type { HostTensor, TypedArray } from './host-tensor.ts';
import { checkInputs, type ProgramMemory, readOutputs, uploadShare } from './inputs-outputs.ts';
import { type Found, findNotFinite } from './not-finite.ts';
import { allLeaves, type Program, type Publish, rounds, type Share, type Step } from './program.ts';
import type { StateStore } from './state.ts';
import { type Visit, visitSegment } from './visit.ts';

/** Some of a run's steps; what they publish to other leaves is copied by `finish`. */
export interface ProfiledPart {
  readonly steps: readonly Step[];
  readonly leaf: number;
  encode(encoder: GPUCommandEncoder, index: number, descriptor: GPUComputePassDescriptor): void;
  finish(encoder: GPUCommandEncoder): void;
}

/** A share among those that go side by side. */
interface Placed {
  readonly share: Share;
  readonly place: number;
}

/** Runs one program on one device for the leaves it owns. All buffers are allocated once and reused by every run. */
export class Executor {
  readonly program: Program;
  /** What this device works on, in this order. */
  readonly shares: readonly Share[];
  readonly device: Device;
  /** How many sequences in parts it works on side by side. */
  private readonly sequences: number;
  private readonly store: StateStore;
  private readonly buffers: ProgramBuffers;
  private readonly memory: ProgramMemory;
  private readonly dispatcher: Dispatcher;
  private readonly sums: Accumulators | undefined;
  private segments: readonly PreparedSegment[] = [];
  private inputs: Readonly<Record<string, TypedArray>> = {};

  private constructor(
    device: Device,
    program: Program,
    store: StateStore,
    shares: readonly Share[],
    sequences: number,
  ) {
    this.device = device;
    this.program = program;
    this.store = store;
    this.shares = shares;
    this.sequences = sequences;
    const { leaves } = rounds(program);
    const sets = Array.from({ length: sequences }, (_, i) => this.leaves.map((leaf) => i * leaves + leaf));
    this.buffers = new ProgramBuffers(device, program, store, sets.flat(), leaves);
    this.memory = { device, program, buffers: this.buffers };
    this.dispatcher = new Dispatcher(device, program, store, this.buffers);
    if (program.sums !== undefined) this.sums = new Accumulators(device, program, program.sums, this.buffers);
  }

  /**
   * Compiles all kernels and allocates all buffers. `shares` are this device's, all leaves by default; `sequences` in parts
   * go side by side, as the program was built for.
   */
  static async create(
    device: Device,
    program: Program,
    store: StateStore,
    shares: readonly Share[] = allLeaves(program),
    sequences = 1,
  ): Promise<Executor> {
    const executor = new Executor(device, program, store, shares, sequences);
    executor.segments = await Promise.all(
      program.segments.map((segment) => executor.dispatcher.prepare(segment, executor.leaves)),
    );
    return executor;
  }

  /** The leaves, of any round, that this device works on. */
  get leaves(): readonly number[] {
    return [...new Set(this.shares.flatMap(({ leaves }) => leaves))].sort((a, b) => a - b);
  }

  /** Dispatches encoded since the executor was made. */
  get dispatchCount(): number {
    return this.dispatcher.count;
  }

  /**
   * Sets the batch: for each input the values of all sequences, row-major; only the rows of this device's leaves are
   * uploaded. Views of shared memory are fine.
   *
   * @throws when an input is missing or has the wrong number of bytes.
   */
  setInputs(inputs: Readonly<Record<string, TypedArray>>): void {
    checkInputs(this.program, inputs);
    this.inputs = inputs;
    if (this.program.leavesPerSequence === 1)
      for (const leaf of this.leaves) uploadShare(this.memory, inputs, { share: leaf, set: leaf });
    this.device.check('uploading inputs');
  }

  /**
   * Runs the program once. A program with gradient sums ends in a commit of the new state; when a gradient does not fit
   * its scale, nothing commits and the decision is `repeat` with the scales to use. With `visit` it runs kernel by kernel.
   *
   * @throws NotFiniteError when a gradient is NaN or infinite; the state is unchanged.
   */
  async run(
    frame: Frame,
    exchange: Exchange = alone,
    q?: Int32Array,
    visit?: Visit,
  ): Promise<SumDecision | undefined> {
    const { program } = this;
    const { updateShare } = program;
    this.startSums(q);
    await this.beforeUpdate(frame, exchange, visit);
    if (!this.addsInLastSegment(visit)) await this.sums?.add(exchange, () => undefined);
    await this.gatherKept(exchange);
    const decision = program.sums === undefined ? undefined : await this.decideSums(exchange, q!);
    if (decision !== undefined && decision.kind !== 'commit') return decision;
    if (decision !== undefined) exchange.updating();
    const own = this.leavesOf({ round: 0, leaves: this.leaves }, 0);
    for (let index = this.updateFrom; index < this.segments.length; index++) {
      await this.segment(index, [own], frame, visit);
      if (updateShare === undefined) continue;
      const handOvers = program.handOvers[index - this.updateFrom]!;
      await handOver(this.memory, handOvers, updateShare.rank, exchange);
    }
    this.store.commit(program.state.filter(({ next }) => next !== undefined).map(({ name }) => name));
    if (updateShare !== undefined) await exchange.give(this.device, movedBy(updateShare, this.store));
    return decision;
  }

  /**
   * Values of outputs after a run: whole tensors, or for this device's shares their rows (`batch`, `sequence`) or addends
   * (`partial`, one per leaf), in the order of `shares`.
   */
  async outputs(
    names: readonly string[] = this.program.outputs.map(({ name }) => name),
  ): Promise<Record<string, HostTensor>> {
    return readOutputs(this.memory, this.shares, names);
  }

  /**
   * Runs up to the update again, kernel by kernel, for the first stored tensor that is not finite. All ranks must do so
   * together, since they exchange what they do in a run.
   */
  async firstNotFinite(frame: Frame, exchange: Exchange = alone): Promise<Found | undefined> {
    this.setInputs(this.inputs);
    return findNotFinite((visit) => this.beforeUpdate(frame, exchange, visit));
  }

  /** The first segment of the update. */
  private get updateFrom(): number {
    return this.program.update ?? this.segments.length;
  }

  /** Sequences side by side go in two halves in turn: while the parts of one meet, the device works on the other. */
  private async beforeUpdate(frame: Frame, exchange: Exchange, visit: Visit | undefined): Promise<void> {
    for (const shares of this.sideBySide(exchange)) {
      const middle = Math.ceil(shares.length / 2);
      const halves = [shares.slice(0, middle), shares.slice(middle)].filter(({ length }) => length > 0);
      const meeting = halves.map(() => async () => {});
      for (let index = 0; index < this.updateFrom; index++) {
        for (const [i, half] of halves.entries()) {
          await meeting[i]!();
          if (index === 0) await this.firstSegment(half, frame, exchange, visit);
          else await this.segmentOf(half, index, frame, exchange, visit);
          meeting[i] = this.startGatherRounds(this.segments[index]!, half, exchange);
        }
      }
      for (const finish of meeting) await finish();
    }
  }

  /** The device has begun with a sequence when the next one is uploaded. */
  private async firstSegment(
    placed: readonly Placed[],
    frame: Frame,
    exchange: Exchange,
    visit: Visit | undefined,
  ): Promise<void> {
    for (const one of placed) {
      this.startRound(one.share, one.place);
      await this.segmentOf([one], 0, frame, exchange, visit);
    }
  }

  private async segmentOf(
    placed: readonly Placed[],
    index: number,
    frame: Frame,
    exchange: Exchange,
    visit: Visit | undefined,
  ): Promise<void> {
    const own = placed.map(({ share, place }) => this.leavesOf(share, place));
    const isLast = placed.at(-1)!.share === this.shares.at(-1) && index === this.updateFrom - 1;
    if (isLast && this.addsInLastSegment(visit)) await this.lastSegment(own, frame, exchange);
    else await this.segment(index, own, frame, visit);
  }

  private async segment(
    index: number,
    rounds: readonly (readonly For[])[],
    frame: Frame,
    visit: Visit | undefined,
  ): Promise<void> {
    const { dispatcher, memory } = this;
    const prepared = this.segments[index]!;
    if (visit === undefined) return dispatcher.segment(prepared, frame, rounds);
    for (const own of rounds)
      await visitSegment({ dispatcher, memory, frame, visit }, prepared, own, [own[0]!.round, index, 0]);
  }

  /** Not where leaves of a sequence meet after it: ranks that have another sequence to go would wait for that first. */
  private addsInLastSegment(visit: Visit | undefined): boolean {
    if (this.sums === undefined || visit !== undefined) return false;
    const { combine } = this.program.segments[this.updateFrom - 1]!;
    return combine.length === 0 || rounds(this.program).count === 1;
  }

  /** The last work of leaves: gradients that its last leaf has finished are added over ranks while it computes others. */
  private async lastSegment(
    rounds: readonly (readonly For[])[],
    frame: Frame,
    exchange: Exchange,
  ): Promise<void> {
    const prepared = this.segments[this.updateFrom - 1]!;
    const submit = this.dispatcher.segmentInPieces(prepared, frame, rounds);
    const { leaf } = rounds.at(-1)!.at(-1)!;
    const steps = prepared.leaves.get(leaf)!.map(({ step }) => step);
    await this.sums!.add(exchange, (end) => submit(this.sums!.stepsBefore(end, steps)));
  }

  /**
   * The work of one run in order, in parts that may be encoded with a pass for each step. Nothing is decided and nothing
   * commits; the update is written over the state.
   */
  *parts(frame: Frame, q?: Int32Array): Generator<ProfiledPart> {
    this.startSums(q);
    for (const share of this.shares) {
      this.startRound(share);
      for (const prepared of this.segments.slice(0, this.updateFrom))
        yield* this.segmentParts(prepared, frame, share);
    }
    for (const prepared of this.segments.slice(this.updateFrom))
      yield* this.segmentParts(prepared, frame, { round: 0, leaves: this.leaves });
  }

  private *segmentParts(
    { once, leaves, segment }: PreparedSegment,
    frame: Frame,
    { round, leaves: own }: Share,
  ): Generator<ProfiledPart> {
    const part = (
      prepared: readonly Prepared[],
      leaf: number,
      publish: readonly Publish[],
    ): ProfiledPart => ({
      steps: prepared.map(({ step }) => step),
      leaf,
      encode: (encoder, index, descriptor) =>
        this.dispatcher.pass(encoder, [prepared[index]!], frame, { round, leaf, set: leaf }, descriptor),
      finish: (encoder) => this.dispatcher.publish(encoder, publish, { round, leaf, set: leaf }),
    });
    if (once.length > 0) yield part(once, own[0] ?? 0, segment.publishOnce);
    for (const leaf of own) yield part(leaves.get(leaf)!, leaf, segment.publish);
  }

  /** Fills all memory that a step must write before it reads it with NaN: a test that no kernel reads leftovers. */
  poison(): void {
    this.buffers.poison();
  }

  close(): void {
    this.buffers.close();
  }

  /** Shares that go side by side, all with the same ranks. */
  private sideBySide(exchange: Exchange): Placed[][] {
    const groups: Placed[][] = [];
    for (const share of this.shares) {
      const last = groups.at(-1);
      const fits = last !== undefined && last.length < this.sequences;
      if (fits && exchange.round(last[0]!.share.round) === exchange.round(share.round))
        last.push({ share, place: last.length });
      else groups.push([{ share, place: 0 }]);
    }
    return groups;
  }

  /** A leaf's own tensors are in the set of its number, behind those of sequences at places before its own. */
  private leavesOf({ round, leaves }: Share, place: number): For[] {
    return leaves.map((leaf) => ({ round, leaf, set: this.setOf(leaf, place) }));
  }

  private setOf(leaf: number, place: number): number {
    return place * rounds(this.program).leaves + leaf;
  }

  /** Where leaves share a sequence, uploads it when its turn comes. */
  private startRound({ round, leaves }: Share, place = 0): void {
    const set = this.setOf(leaves[0]!, place);
    if (this.program.leavesPerSequence > 1) uploadShare(this.memory, this.inputs, { share: round, set });
  }

  private startSums(q: Int32Array | undefined): void {
    if (this.sums === undefined) return;
    if (q === undefined) throw new Error('a program with gradient sums needs their scales q');
    this.sums.start(q);
  }

  private async decideSums(exchange: Exchange, q: Int32Array): Promise<SumDecision> {
    const peaks = await exchange.peaks(await this.sums!.peaks());
    return decide(this.program.sums!, peaks, q);
  }

  private startGatherRounds(
    { segment }: PreparedSegment,
    shares: readonly Placed[],
    exchange: Exchange,
  ): () => Promise<void> {
    const own = shares.map(({ share: { leaves }, place }) => {
      return { leaves, set: this.setOf(leaves[0]!, place) };
    });
    return startGatherLeaves(this.memory, segment.combine, own, exchange.round(shares[0]!.share.round));
  }

  /** Makes the pieces of all sequences known here, of what the update needs of each: each from its first leaf's rank. */
  private async gatherKept(exchange: Exchange): Promise<void> {
    if (!exchange.divided) return;
    const own = new Set(this.shares.filter(({ leaves }) => leaves[0] === 0).map(({ round }) => round));
    const pieces = this.program.kept.flatMap(({ slot, bytes }) =>
      Array.from({ length: rounds(this.program).count }, (_, round) => {
        return { buffer: this.buffers.of(slot, 0), offset: round * bytes, bytes, own: own.has(round) };
      }),
    );
    await gather(this.device, exchange, pieces);
  }
}
