import { Accumulators } from './accumulators.ts';
import { ProgramBuffers } from './buffers.ts';
import type { Device } from './device.ts';
import { Dispatcher, type Frame, type Prepared, type PreparedSegment } from './dispatcher.ts';
import { alone, type Exchange } from './exchange.ts';
import { decide, type SumDecision } from './gradient-scale.ts';
import { elementCount, type HostTensor, type TypedArray } from './host-tensor.ts';
import { allFinite, type Place } from './not-finite.ts';
import {
  type Combine,
  type Program,
  type ProgramOutput,
  type Publish,
  piecesOf,
  rounds,
  type Step,
} from './program.ts';
import type { StateStore } from './state.ts';
import { byteLength } from './tensor.ts';

/** Some of a run's steps; what they publish to other leaves is copied by `finish`. */
export interface ProfiledPart {
  readonly steps: readonly Step[];
  readonly leaf: number;
  encode(encoder: GPUCommandEncoder, index: number, descriptor: GPUComputePassDescriptor): void;
  finish(encoder: GPUCommandEncoder): void;
}

/** Runs one program on one device for the leaves it owns. All buffers are allocated once and reused by every run. */
export class Executor {
  readonly program: Program;
  /** The leaves of each round that this device works on. */
  readonly leaves: readonly number[];
  readonly device: Device;
  private readonly store: StateStore;
  private readonly buffers: ProgramBuffers;
  private readonly dispatcher: Dispatcher;
  private readonly sums: Accumulators | undefined;
  private segments: readonly PreparedSegment[] = [];
  private inputs: Readonly<Record<string, TypedArray>> = {};

  private constructor(device: Device, program: Program, store: StateStore, leaves: readonly number[]) {
    this.device = device;
    this.program = program;
    this.store = store;
    this.leaves = leaves;
    this.buffers = new ProgramBuffers(device, program, store, leaves);
    this.dispatcher = new Dispatcher(device, program, store, this.buffers);
    if (program.sums !== undefined) this.sums = new Accumulators(device, program, program.sums, this.buffers);
  }

  /** Compiles all kernels and allocates all buffers. `leaves` of each round are this device's, all by default. */
  static async create(
    device: Device,
    program: Program,
    store: StateStore,
    leaves?: readonly number[],
  ): Promise<Executor> {
    const own = leaves ?? Array.from({ length: rounds(program).leaves }, (_, leaf) => leaf);
    const executor = new Executor(device, program, store, own);
    executor.segments = await Promise.all(
      program.segments.map((segment) => executor.dispatcher.prepare(segment, own)),
    );
    return executor;
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
    for (const input of this.program.inputs) {
      const values = inputs[input.name];
      if (values === undefined)
        throw new Error(
          `input ${input.name} is missing; the program needs ${this.program.inputs.map(({ name }) => name).join(', ')}`,
        );
      const expected = elementCount(input.shape);
      if (values.length !== expected)
        throw new Error(
          `input ${input.name}: ${values.length} values for shape [${input.shape.join(', ')}], which holds ${expected}`,
        );
    }
    this.inputs = inputs;
    if (this.program.leavesPerSequence === 1) for (const leaf of this.leaves) this.upload(leaf);
    this.device.check('uploading inputs');
  }

  /**
   * Runs the program once. A program with gradient sums ends in a commit of the new state; when a gradient does not fit
   * its scale, nothing commits and the decision is `repeat` with the scales to use.
   *
   * @throws NotFiniteError when a gradient is NaN or infinite; the state is unchanged.
   */
  async run(frame: Frame, exchange: Exchange = alone, q?: Int32Array): Promise<SumDecision | undefined> {
    const { program } = this;
    this.startSums(q);
    const update = program.update ?? this.segments.length;
    for (let round = 0; round < rounds(program).count; round++) {
      this.startRound(round);
      for (const prepared of this.segments.slice(0, update)) {
        this.dispatcher.segment(prepared, frame, round);
        await this.combine(prepared.segment.combine, exchange);
      }
    }
    const decision = program.sums === undefined ? undefined : await this.decideSums(exchange, q!);
    if (decision !== undefined && decision.kind !== 'commit') return decision;
    for (const prepared of this.segments.slice(update)) {
      this.dispatcher.segment(prepared, frame, 0);
      await this.combine(prepared.segment.combine, exchange);
    }
    this.store.commit(program.state.filter(({ next }) => next !== undefined).map(({ name }) => name));
    return decision;
  }

  /**
   * Values of outputs after a run: whole tensors, or for this device's leaves their rows (`batch`) or addends
   * (`partial`, one per leaf), in the order of `leaves`.
   */
  async outputs(
    names: readonly string[] = this.program.outputs.map(({ name }) => name),
  ): Promise<Record<string, HostTensor>> {
    const outputs = names.map((name) => this.output(name));
    const parts = outputs.flatMap((output) => this.outputParts(output));
    const bytes = await this.device.read(parts);
    const result: Record<string, HostTensor> = {};
    for (const output of outputs) {
      const own = bytes.splice(0, output.layout === 'whole' ? 1 : this.pieces(output).length);
      result[output.name] = {
        shape: this.outputShape(output),
        dtype: 'f32',
        data: new Float32Array(join(own).buffer),
      };
    }
    return result;
  }

  /**
   * Runs up to the update again, kernel by kernel, for the first stored tensor that is not finite. All ranks must do so
   * together, since they exchange what they do in a run.
   */
  async firstNotFinite(
    frame: Frame,
    exchange: Exchange = alone,
  ): Promise<{ readonly step: Step; readonly place: Place } | undefined> {
    this.setInputs(this.inputs);
    let found: { readonly step: Step; readonly place: Place } | undefined;
    const update = this.program.update ?? this.segments.length;
    for (let round = 0; round < rounds(this.program).count; round++) {
      this.startRound(round);
      for (const [index, prepared] of this.segments.slice(0, update).entries()) {
        for (const { steps, leaf, encode, finish } of this.segmentParts(prepared, frame, round)) {
          for (const [i, step] of steps.entries()) {
            this.submit((encoder) => encode(encoder, i, {}));
            if (found === undefined && !(await this.isFinite(step, leaf)))
              found = { step, place: [round, index, leaf] };
          }
          this.submit(finish);
        }
        await this.combine(prepared.segment.combine, exchange);
      }
    }
    return found;
  }

  private submit(encode: (encoder: GPUCommandEncoder) => void): void {
    const encoder = this.device.encoder('inspect');
    encode(encoder);
    this.device.submit(encoder);
  }

  /** Whether what a step wrote is finite; a window that is not the last, and gradient sums, are not looked at. */
  private async isFinite({ label, window, bindings }: Step, leaf: number): Promise<boolean> {
    if (label.endsWith('add gradient') || (window !== undefined && window.index + 1 < window.count))
      return true;
    const { slot, offset = 0, bytes = 0, half } = window?.output ?? bindings.at(-1)!;
    const [read] = await this.device.read([{ buffer: this.buffers.of(slot, leaf), offset, bytes }]);
    return allFinite(read!.slice(), half === true);
  }

  /**
   * The work of one run in order, in parts that may be encoded with a pass for each step. Nothing is decided and nothing
   * commits; the update is written over the state.
   */
  *parts(frame: Frame, q?: Int32Array): Generator<ProfiledPart> {
    this.startSums(q);
    const update = this.program.update ?? this.segments.length;
    for (let round = 0; round < rounds(this.program).count; round++) {
      this.startRound(round);
      for (const prepared of this.segments.slice(0, update)) yield* this.segmentParts(prepared, frame, round);
    }
    for (const prepared of this.segments.slice(update)) yield* this.segmentParts(prepared, frame, 0);
  }

  private *segmentParts(
    { once, leaves, segment }: PreparedSegment,
    frame: Frame,
    round: number,
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
    if (once.length > 0) yield part(once, this.leaves[0] ?? 0, segment.publishOnce);
    for (const [leaf, steps] of leaves) yield part(steps, leaf, segment.publish);
  }

  /** Fills all memory that a step must write before it reads it with NaN: a test that no kernel reads leftovers. */
  poison(): void {
    this.buffers.poison();
  }

  close(): void {
    this.buffers.close();
  }

  /** Uploads a leaf's share of the batch, or where leaves share a sequence, that sequence. */
  private upload(share: number): void {
    const { inputs, leaves, leavesPerSequence } = this.program;
    for (const { name, slot } of inputs) {
      const values = this.inputs[name]!;
      const rows = values.length / (leaves / leavesPerSequence);
      const own = values.subarray(share * rows, (share + 1) * rows) as Uint8Array;
      const bytes = new Uint8Array(Math.ceil(own.byteLength / 4) * 4); // not shared memory
      bytes.set(new Uint8Array(own.buffer, own.byteOffset, own.byteLength));
      this.device.write(this.buffers.of(slot, share), 0, bytes);
    }
  }

  private startRound(round: number): void {
    if (this.program.leavesPerSequence > 1) this.upload(round);
  }

  private startSums(q: Int32Array | undefined): void {
    if (this.sums === undefined) return;
    if (q === undefined) throw new Error('a program with gradient sums needs their scales q');
    this.sums.start(q);
  }

  private async decideSums(exchange: Exchange, q: Int32Array): Promise<SumDecision> {
    const all = await exchange.sum(await this.sums!.read(exchange.remote));
    const decision = decide(this.program.sums!, all.peaks, q);
    if (decision.kind === 'commit' && all.sums !== undefined) this.sums!.write(all.sums);
    return decision;
  }

  /** Makes the pieces of all leaves known here, for the tensors gathered at the end of a segment. */
  private async combine(gathered: readonly Combine[], exchange: Exchange): Promise<void> {
    if (gathered.length === 0 || !exchange.remote) return;
    const ranges = gathered.map(({ slot, bytesPerLeaf, parts: [from, to] }) => {
      const own = this.leaves.filter((leaf) => leaf >= from && leaf < to).length;
      const first = Math.min(Math.max(this.leaves[0] ?? 0, from), to) - from;
      const buffer = this.buffers.of(slot, 0);
      return { buffer, offset: first * bytesPerLeaf, bytes: own * bytesPerLeaf };
    });
    const read = await this.device.read(ranges);
    const pieces = gathered.map(({ bytesPerLeaf, parts: [from, to] }, i) => ({
      own: read[i]!,
      offset: ranges[i]!.offset,
      bytes: (to - from) * bytesPerLeaf,
    }));
    const all = await exchange.combine(pieces);
    all.forEach((bytes, i) => {
      this.device.write(this.buffers.of(gathered[i]!.slot, 0), 0, bytes);
    });
  }

  private output(name: string): ProgramOutput {
    const output = this.program.outputs.find((candidate) => candidate.name === name);
    if (output === undefined)
      throw new Error(
        `no output is called '${name}'; there are ${this.program.outputs.map((o) => o.name).join(', ')}`,
      );
    return output;
  }

  private pieces(output: ProgramOutput): readonly number[] {
    return piecesOf(this.program, output, this.leaves);
  }

  private outputParts(output: ProgramOutput): { buffer: GPUBuffer; offset?: number; bytes: number }[] {
    const { slot, shape, layout } = output;
    const buffer = this.buffers.of(slot, this.leaves[0] ?? 0);
    const bytes = byteLength({ shape, dtype: 'f32' });
    if (layout === 'whole') return [{ buffer, bytes }];
    const piece = layout === 'batch' ? bytes / this.program.leaves : bytes;
    return this.pieces(output).map((index) => ({ buffer, offset: index * piece, bytes: piece }));
  }

  private outputShape(output: ProgramOutput): readonly number[] {
    const { shape, layout } = output;
    if (layout === 'whole') return shape;
    const share = this.pieces(output).length;
    return layout === 'batch'
      ? [(shape[0]! * share) / this.program.leaves, ...shape.slice(1)]
      : [share, ...shape];
  }
}

/** The pieces one after another, in memory of their own. */
function join(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
