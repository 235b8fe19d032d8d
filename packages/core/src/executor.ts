import type { Device } from './device.ts';
import { alone, type Exchange } from './exchange.ts';
import { decide, type SumDecision } from './gradient-scale.ts';
import { elementCount, type HostTensor, type TypedArray } from './host-tensor.ts';
import { allFinite, type Place } from './not-finite.ts';
import {
  type Binding,
  type Combine,
  type Program,
  type ProgramOutput,
  type Publish,
  piecesOf,
  rounds,
  type Segment,
  type Step,
} from './program.ts';
import type { StateStore } from './state.ts';
import { byteLength } from './tensor.ts';

/** Numbers that change from run to run. */
export interface Frame {
  readonly seed: number;
  readonly step: number;
  /** Global index of the first sequence of this batch: what randomness is keyed by. */
  readonly sequence: number;
  readonly scalars: Readonly<Record<string, number>>;
}

/** Some of a run's steps; what they publish to other leaves is copied by `finish`. */
export interface ProfiledPart {
  readonly steps: readonly Step[];
  readonly leaf: number;
  encode(encoder: GPUCommandEncoder, index: number, descriptor: GPUComputePassDescriptor): void;
  finish(encoder: GPUCommandEncoder): void;
}

/** Constants of a window: the largest offset alignment of a binding. */
const WINDOW_BYTES = 256;

interface Prepared {
  readonly step: Step;
  readonly pipeline: GPUComputePipeline;
  readonly access: readonly ('read' | 'read_write')[];
  /** Names of the state the step binds: their arrangement is part of the key of a cached bind group. */
  readonly state: readonly string[];
  readonly groups: Map<string, GPUBindGroup>;
}

interface PreparedSegment {
  readonly segment: Segment;
  readonly once: readonly Prepared[];
  /** The steps of each leaf that this device works on. */
  readonly leaves: ReadonlyMap<number, readonly Prepared[]>;
}

/** Runs one program on one device for the leaves it owns. All buffers are allocated once and reused by every run. */
export class Executor {
  readonly program: Program;
  /** The leaves of each round that this device works on. */
  readonly leaves: readonly number[];
  readonly device: Device;
  private readonly store: StateStore;
  private readonly shared = new Map<number, GPUBuffer>();
  private readonly perLeaf: ReadonlyMap<number, Map<number, GPUBuffer>>;
  private readonly stateOf: ReadonlyMap<number, { name: string; next: boolean }>;
  private readonly frameBytes = new ArrayBuffer(64);
  private segments: readonly PreparedSegment[] = [];
  private inputs: Readonly<Record<string, TypedArray>> = {};
  /** Constants of all windows, one after another; absent when nothing runs in windows. */
  private windows: GPUBuffer | undefined;
  private readonly windowOffsets = new Map<Step, number>();
  private dispatches = 0;

  private constructor(device: Device, program: Program, store: StateStore, leaves: readonly number[]) {
    this.device = device;
    this.program = program;
    this.store = store;
    this.leaves = leaves;
    this.perLeaf = new Map(leaves.map((leaf) => [leaf, new Map()]));
    this.stateOf = new Map(
      program.state.flatMap(({ name, slot, next }): [number, { name: string; next: boolean }][] => [
        [slot, { name, next: false }],
        ...(next === undefined
          ? []
          : [[next, { name, next: true }] satisfies [number, { name: string; next: boolean }]]),
      ]),
    );
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
    store.allocate(program.state);
    executor.allocate();
    executor.segments = await Promise.all(program.segments.map((segment) => executor.prepare(segment)));
    return executor;
  }

  /** Dispatches encoded since the executor was made. */
  get dispatchCount(): number {
    return this.dispatches;
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
        this.encode(prepared, frame, round);
        await this.combine(prepared.segment.combine, exchange);
      }
    }
    const decision = program.sums === undefined ? undefined : await this.decideSums(exchange, q!);
    if (decision !== undefined && decision.kind !== 'commit') return decision;
    for (const prepared of this.segments.slice(update)) {
      this.encode(prepared, frame, 0);
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
    const [read] = await this.device.read([{ buffer: this.bufferOf(slot, leaf), offset, bytes }]);
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
        this.pass(encoder, [prepared[index]!], this.place(frame, round, leaf), leaf, descriptor),
      finish: (encoder) => this.publish(encoder, publish, round, leaf),
    });
    if (once.length > 0) yield part(once, this.leaves[0] ?? 0, segment.publishOnce);
    for (const [leaf, steps] of leaves) yield part(steps, leaf, segment.publish);
  }

  /** Fills all memory that a step must write before it reads it with NaN, as f32 and as f16: a test that no kernel reads leftovers. */
  poison(): void {
    const pinned = new Set(this.program.inputs.map(({ slot }) => slot));
    for (const buffers of [this.shared, ...this.perLeaf.values()]) {
      for (const [slot, buffer] of buffers) {
        if (pinned.has(slot)) continue;
        this.device.write(
          buffer,
          0,
          new Uint8Array(new Uint32Array(buffer.size / 4).fill(0x7fc0_7fc0).buffer),
        );
      }
    }
  }

  close(): void {
    for (const buffers of [this.shared, ...this.perLeaf.values()]) {
      for (const buffer of buffers.values()) this.device.destroyBuffer(buffer);
      buffers.clear();
    }
    if (this.windows !== undefined) this.device.destroyBuffer(this.windows);
    this.windows = undefined;
  }

  private allocate(): void {
    this.program.slots.forEach(({ bytes, scope, label }, slot) => {
      if (scope === 'state' || scope === 'next') return;
      const owners = scope === 'leaf' ? [...this.perLeaf.values()] : [this.shared];
      for (const buffers of owners) buffers.set(slot, this.device.createBuffer(bytes, label));
    });
    const steps = this.program.segments.flatMap(({ once, leaf }) => [...once, ...leaf]);
    const windowed = steps.filter(({ window }) => window !== undefined);
    if (windowed.length === 0) return;
    const words = WINDOW_BYTES / 4;
    const constants = new Uint32Array(windowed.length * words);
    windowed.forEach((step, i) => {
      constants.set(step.window!.constants, i * words);
      this.windowOffsets.set(step, i * WINDOW_BYTES);
    });
    this.windows = this.device.createBuffer(constants.byteLength, 'windows');
    this.device.write(this.windows, 0, new Uint8Array(constants.buffer));
  }

  private async prepare(segment: Segment): Promise<PreparedSegment> {
    const prepared = (steps: readonly Step[]): Promise<Prepared[]> =>
      Promise.all(
        steps.map(async (step) => {
          const own = step.bindings.map((binding) => binding.access);
          const access = step.window === undefined ? own : [...own, 'read' as const];
          const pipeline = await this.device.pipeline(this.program.shaders[step.shader]!, access, step.label);
          const state = step.bindings.flatMap(({ slot }) => this.stateOf.get(slot)?.name ?? []);
          return { step, pipeline, access, state, groups: new Map() };
        }),
      );
    const [once, steps] = [await prepared(segment.once), await prepared(segment.leaf)];
    const leaves = this.leaves.map(
      (leaf) => [leaf, steps.filter(({ step }) => runsFor(step, leaf))] as const,
    );
    return { segment, once, leaves: new Map(leaves) };
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
      this.device.write(this.bufferOf(slot, share), 0, bytes);
    }
  }

  private startRound(round: number): void {
    if (this.program.leavesPerSequence > 1) this.upload(round);
  }

  private startSums(q: Int32Array | undefined): void {
    const { sums } = this.program;
    if (sums === undefined) return;
    if (q === undefined) throw new Error('a program with gradient sums needs their scales q');
    const encoder = this.device.encoder('clear gradient sums');
    encoder.clearBuffer(this.shared.get(sums.slot)!);
    encoder.clearBuffer(this.shared.get(sums.peakSlot)!);
    this.device.submit(encoder);
    this.device.queue.writeBuffer(this.shared.get(sums.scaleSlot)!, 0, q as Int32Array<ArrayBuffer>);
  }

  private async decideSums(exchange: Exchange, q: Int32Array): Promise<SumDecision> {
    const sums = this.program.sums!;
    const peakPart = { buffer: this.shared.get(sums.peakSlot)!, bytes: 4 * sums.tensors.length };
    const sumBuffer = this.shared.get(sums.slot)!;
    const bytes = this.program.slots[sums.slot]!.bytes;
    const read = await this.device.read(
      exchange.remote ? [peakPart, { buffer: sumBuffer, bytes }] : [peakPart],
    );
    const [peaks, own] = read.map((part) => new Uint32Array(part.slice().buffer));
    const all = await exchange.sum({ peaks: peaks!, sums: own });
    const decision = decide(sums, all.peaks, q);
    if (decision.kind === 'commit' && all.sums !== undefined) {
      const { buffer, byteOffset, byteLength } = all.sums as Uint32Array<ArrayBuffer>;
      this.device.write(sumBuffer, 0, new Uint8Array(buffer, byteOffset, byteLength));
    }
    return decision;
  }

  private encode({ segment, once, leaves }: PreparedSegment, frame: Frame, round: number): void {
    const encoder = this.device.encoder('segment');
    if (once.length > 0) {
      this.pass(encoder, once, this.place(frame, round, 0), 0); // the same on every rank
      this.publish(encoder, segment.publishOnce, round, 0);
    }
    for (const [leaf, steps] of leaves) {
      if (steps.length > 0) this.pass(encoder, steps, this.place(frame, round, leaf), leaf);
      this.publish(encoder, segment.publish, round, leaf);
    }
    this.device.submit(encoder);
  }

  /** Copies a leaf's pieces to where those of all leaves are gathered. */
  private publish(encoder: GPUCommandEncoder, pieces: readonly Publish[], round: number, leaf: number): void {
    for (const { from, to, bytes, parts, perRound } of pieces) {
      if (leaf < parts[0] || leaf >= parts[1]) continue;
      const place = (perRound ? round * (parts[1] - parts[0]) : 0) + leaf - parts[0];
      encoder.copyBufferToBuffer(this.bufferOf(from, leaf), 0, this.bufferOf(to, leaf), place * bytes, bytes);
    }
  }

  /** The frame of a leaf: which sequence it begins with. */
  private place(frame: Frame, round: number, leaf: number): Frame {
    const { sequences, leaves } = this.program;
    const own = sequences < leaves ? round : (leaf * sequences) / leaves;
    return { ...frame, sequence: frame.sequence + own };
  }

  private pass(
    encoder: GPUCommandEncoder,
    steps: readonly Prepared[],
    frame: Frame,
    leaf: number,
    descriptor: GPUComputePassDescriptor = {},
  ): void {
    const pass = encoder.beginComputePass(descriptor) as GPUComputePassEncoder & {
      setImmediates(offset: number, data: ArrayBuffer): void;
    };
    this.writeFrame(frame, leaf);
    const keys = new Uint32Array(this.frameBytes, 16, 4);
    for (const prepared of steps) {
      const { step, pipeline } = prepared;
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, this.bindGroup(prepared, leaf));
      if (step.keys !== undefined) {
        keys.fill(0);
        keys.set(step.keys);
        pass.setImmediates(0, this.frameBytes);
      }
      pass.dispatchWorkgroups(...step.workgroups);
    }
    pass.end();
    this.dispatches += steps.length;
    this.device.windowDispatches += steps.filter(({ step }) => step.window !== undefined).length;
  }

  private writeFrame({ seed, step, sequence, scalars }: Frame, leaf: number): void {
    new Uint32Array(this.frameBytes, 0, 4).set([seed, step, leaf, sequence]);
    const numbers = this.program.scalars.map((name) => {
      const value = scalars[name];
      if (value === undefined)
        throw new Error(`scalar ${name} is missing; the program needs ${this.program.scalars.join(', ')}`);
      return value;
    });
    new Float32Array(this.frameBytes, 32, 8).set(numbers);
  }

  private bindGroup(prepared: Prepared, leaf: number): GPUBindGroup {
    const key = `${leaf}${prepared.state.map((name) => (this.store.turned(name) ? 1 : 0)).join('')}`;
    const known = prepared.groups.get(key);
    if (known !== undefined) return known;
    const { step, access } = prepared;
    const entries = step.bindings.map((binding) => this.range(binding, leaf));
    if (step.window !== undefined)
      entries.push({ buffer: this.windows!, offset: this.windowOffsets.get(step)!, size: WINDOW_BYTES });
    const group = this.device.bindGroup(access, entries, step.label);
    prepared.groups.set(key, group);
    return group;
  }

  private range({ slot, offset = 0, bytes }: Binding, leaf: number): GPUBufferBinding {
    const buffer = this.bufferOf(slot, leaf);
    return { buffer, offset, size: bytes === undefined ? buffer.size - offset : Math.max(bytes, 4) };
  }

  private bufferOf(slot: number, leaf: number): GPUBuffer {
    const state = this.stateOf.get(slot);
    if (state !== undefined)
      return state.next ? this.store.nextBuffer(state.name) : this.store.buffer(state.name);
    return this.program.slots[slot]!.scope === 'leaf'
      ? this.perLeaf.get(leaf)!.get(slot)!
      : this.shared.get(slot)!;
  }

  /** Makes the pieces of all leaves known here, for the tensors gathered at the end of a segment. */
  private async combine(gathered: readonly Combine[], exchange: Exchange): Promise<void> {
    if (gathered.length === 0 || !exchange.remote) return;
    const ranges = gathered.map(({ slot, bytesPerLeaf, parts: [from, to] }) => {
      const own = this.leaves.filter((leaf) => leaf >= from && leaf < to).length;
      const first = Math.min(Math.max(this.leaves[0] ?? 0, from), to) - from;
      const buffer = this.shared.get(slot)!;
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
      this.device.write(this.shared.get(gathered[i]!.slot)!, 0, bytes.slice());
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
    const buffer = this.bufferOf(slot, this.leaves[0] ?? 0);
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

const runsFor = ({ parts }: Step, leaf: number): boolean =>
  parts === undefined || (leaf >= parts[0] && leaf < parts[1]);

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
