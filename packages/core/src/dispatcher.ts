import type { ProgramBuffers } from './buffers.ts';
import type { BindingAccess, Device } from './device.ts';
import type { Program, Publish, Segment, Step } from './program.ts';
import type { StateStore } from './state.ts';

/** Numbers that change from run to run. */
export interface Frame {
  readonly seed: number;
  readonly step: number;
  /** Global index of the first sequence of this batch: what randomness is keyed by. */
  readonly sequence: number;
  readonly scalars: Readonly<Record<string, number>>;
}

/** What work is done for. */
export interface For {
  readonly round: number;
  readonly leaf: number;
  /** The set of buffers that holds the leaf's own tensors. */
  readonly set: number;
}

/** A step with its pipeline. */
export interface Prepared {
  readonly step: Step;
  readonly pipeline: GPUComputePipeline;
  readonly access: readonly BindingAccess[];
  /** Names of the state the step binds: their arrangement is part of the key of a cached bind group. */
  readonly state: readonly string[];
  readonly groups: Map<string, GPUBindGroup>;
}

export interface PreparedSegment {
  readonly segment: Segment;
  readonly once: readonly Prepared[];
  /** The steps of each leaf that this device works on. */
  readonly leaves: ReadonlyMap<number, readonly Prepared[]>;
}

/** Encodes the steps of a program for a device. */
export class Dispatcher {
  private readonly device: Device;
  private readonly program: Program;
  private readonly store: StateStore;
  private readonly buffers: ProgramBuffers;
  private readonly frameBytes = new ArrayBuffer(64);
  private dispatches = 0;

  constructor(device: Device, program: Program, store: StateStore, buffers: ProgramBuffers) {
    this.device = device;
    this.program = program;
    this.store = store;
    this.buffers = buffers;
  }

  /** Dispatches encoded so far. */
  get count(): number {
    return this.dispatches;
  }

  /** Compiles the kernels of a segment. */
  async prepare(segment: Segment, leaves: readonly number[]): Promise<PreparedSegment> {
    const once = await Promise.all(segment.once.map((step) => this.prepareStep(step)));
    const steps = await Promise.all(segment.leaf.map((step) => this.prepareStep(step)));
    const own = leaves.map((leaf) => [leaf, steps.filter(({ step }) => runsFor(step, leaf))] as const);
    return { segment, once, leaves: new Map(own) };
  }

  /**
   * All of a segment for some leaves of each of some rounds, `but` for one: what runs once, then each leaf with what it
   * publishes.
   */
  segment(prepared: PreparedSegment, frame: Frame, rounds: readonly (readonly For[])[], but?: For): void {
    const encoder = this.device.encoder('segment');
    for (const own of rounds) {
      this.encodeOnce(encoder, prepared, frame, { ...own[0]!, leaf: 0 }); // the same on every rank
      for (const of of own) if (of !== but) this.encodeLeaf(encoder, prepared, frame, of);
    }
    this.device.submit(encoder);
  }

  /**
   * As `segment`, but for the last leaf. What is returned submits that leaf's steps up to a number of them, and with the
   * last of them what it publishes.
   */
  segmentInPieces(
    prepared: PreparedSegment,
    frame: Frame,
    rounds: readonly (readonly For[])[],
  ): (end: number) => void {
    const last = rounds.at(-1)!.at(-1)!;
    this.segment(prepared, frame, rounds, last);
    const steps = prepared.leaves.get(last.leaf)!;
    let [done, published] = [0, false];
    return (end) => {
      const piece = steps.slice(done, end);
      done += piece.length;
      const publish = done === steps.length && !published;
      if (piece.length === 0 && !publish) return;
      const encoder = this.device.encoder('piece of a segment');
      if (piece.length > 0) this.pass(encoder, piece, frame, last);
      if (publish) this.publish(encoder, prepared.segment.publish, last);
      published ||= publish;
      this.device.submit(encoder);
    };
  }

  /** What runs once. */
  once(prepared: PreparedSegment, frame: Frame, of: For): void {
    if (prepared.once.length + prepared.segment.publishOnce.length === 0) return;
    const encoder = this.device.encoder('segment');
    this.encodeOnce(encoder, prepared, frame, of);
    this.device.submit(encoder);
  }

  private encodeOnce(
    encoder: GPUCommandEncoder,
    { segment, once }: PreparedSegment,
    frame: Frame,
    of: For,
  ): void {
    if (once.length > 0) this.pass(encoder, once, frame, of);
    this.publish(encoder, segment.publishOnce, of);
  }

  private encodeLeaf(
    encoder: GPUCommandEncoder,
    { segment, leaves }: PreparedSegment,
    frame: Frame,
    of: For,
  ): void {
    const steps = leaves.get(of.leaf)!;
    if (steps.length > 0) this.pass(encoder, steps, frame, of);
    this.publish(encoder, segment.publish, of);
  }

  /** Steps in one pass. */
  pass(
    encoder: GPUCommandEncoder,
    steps: readonly Prepared[],
    frame: Frame,
    of: For,
    descriptor: GPUComputePassDescriptor = {},
  ): void {
    const pass = encoder.beginComputePass(descriptor) as GPUComputePassEncoder & {
      setImmediates(offset: number, data: ArrayBuffer): void;
    };
    this.writeFrame(frame, of);
    const keys = new Uint32Array(this.frameBytes, 16, 4);
    for (const prepared of steps) {
      const { step, pipeline } = prepared;
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, this.bindGroup(prepared, of.set));
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

  /** Copies a leaf's pieces to where those of all leaves are gathered. */
  publish(encoder: GPUCommandEncoder, pieces: readonly Publish[], { round, leaf, set }: For): void {
    for (const { from, to, bytes, parts, perRound } of pieces) {
      if (leaf < parts[0] || leaf >= parts[1]) continue;
      const place = (perRound ? round * (parts[1] - parts[0]) : 0) + leaf - parts[0];
      const [source, target] = [this.buffers.of(from, set), this.buffers.of(to, set)];
      encoder.copyBufferToBuffer(source, 0, target, place * bytes, bytes);
    }
  }

  private async prepareStep(step: Step): Promise<Prepared> {
    const own = step.bindings.map((binding) => binding.access);
    const access = step.window === undefined ? own : [...own, 'uniform' as const];
    const pipeline = await this.device.pipeline(this.program.shaders[step.shader]!, access, step.label);
    return { step, pipeline, access, state: this.buffers.stateBoundBy(step), groups: new Map() };
  }

  private bindGroup({ step, access, state, groups }: Prepared, set: number): GPUBindGroup {
    const key = `${set}${state.map((name) => (this.store.turned(name) ? 1 : 0)).join('')}`;
    const known = groups.get(key);
    if (known !== undefined) return known;
    const group = this.device.bindGroup(access, this.buffers.entries(step, set), step.label);
    groups.set(key, group);
    return group;
  }

  /** The immediates of a leaf: among them which sequence it begins with. */
  private writeFrame({ seed, step, sequence, scalars }: Frame, { round, leaf }: For): void {
    const { sequences, leaves } = this.program;
    const own = sequences < leaves ? round : (leaf * sequences) / leaves;
    new Uint32Array(this.frameBytes, 0, 4).set([seed, step, leaf, sequence + own]);
    const numbers = this.program.scalars.map((name) => {
      const value = scalars[name];
      if (value === undefined)
        throw new Error(`scalar ${name} is missing; the program needs ${this.program.scalars.join(', ')}`);
      return value;
    });
    new Float32Array(this.frameBytes, 32, 8).set(numbers);
  }
}

const runsFor = ({ parts }: Step, leaf: number): boolean =>
  parts === undefined || (leaf >= parts[0] && leaf < parts[1]);
