import type { Device } from './device.ts';
import { type Binding, type Program, type ProgramState, type Step, WINDOW_BYTES } from './program.ts';
import type { StateStore } from './state.ts';

/** The memory of one program on one device. All of it is allocated once; state belongs to the store. */
export class ProgramBuffers {
  private readonly device: Device;
  private readonly program: Program;
  private readonly store: StateStore;
  private readonly shared = new Map<number, GPUBuffer>();
  private readonly sets: ReadonlyMap<number, Map<number, GPUBuffer>>;
  private readonly sequences: ReadonlyMap<number, Map<number, GPUBuffer>>;
  private readonly parts: ReadonlyMap<number, Map<number, GPUBuffer>>;
  private readonly setsPerSequence: number;
  private readonly stateOf: ReadonlyMap<number, StateSlot>;
  /** Constants of all windows, one after another; absent when nothing runs in windows. */
  private windows: GPUBuffer | undefined;
  private readonly windowOffsets = new Map<Step, number>();

  /**
   * `sets`: numbers of the leaves whose own tensors are kept at one time; where several sequences in parts are on their
   * way, those of the first, of the second, …, `setsPerSequence` of each.
   */
  constructor(
    device: Device,
    program: Program,
    store: StateStore,
    sets: readonly number[],
    setsPerSequence = 1,
  ) {
    this.device = device;
    this.program = program;
    this.store = store;
    this.setsPerSequence = setsPerSequence;
    this.sets = new Map(sets.map((set) => [set, new Map()]));
    this.sequences = new Map(sets.map((set) => [Math.floor(set / setsPerSequence), new Map()]));
    this.parts = new Map(sets.map((set) => [set % setsPerSequence, new Map()]));
    this.stateOf = new Map(program.state.flatMap(statesOf));
    store.allocate(program.state);
    this.allocate();
  }

  /** The buffer behind a slot; `set` chooses among those that leaves have for themselves. */
  of(slot: number, set: number): GPUBuffer {
    const state = this.stateOf.get(slot);
    if (state !== undefined)
      return state.next ? this.store.nextBuffer(state.name) : this.store.buffer(state.name);
    switch (this.program.slots[slot]!.scope) {
      case 'leaf':
        return this.sets.get(set)!.get(slot)!;
      case 'sequence':
        return this.sequences.get(Math.floor(set / this.setsPerSequence))!.get(slot)!;
      case 'part':
        return this.parts.get(set % this.setsPerSequence)!.get(slot)!;
      default:
        return this.shared.get(slot)!;
    }
  }

  /** Buffers by slot: those there is one of, and those of each leaf, sequence and part. */
  private get all(): Map<number, GPUBuffer>[] {
    return [this.shared, ...this.sets.values(), ...this.sequences.values(), ...this.parts.values()];
  }

  /** What a step binds, in order. */
  entries(step: Step, set: number): GPUBufferBinding[] {
    const entries = step.bindings.map((binding) => this.range(binding, set));
    if (step.window === undefined) return entries;
    const offset = this.windowOffsets.get(step)!;
    return [...entries, { buffer: this.windows!, offset, size: WINDOW_BYTES }];
  }

  /** Names of the state that a step binds. */
  stateBoundBy({ bindings }: Step): string[] {
    return bindings.flatMap(({ slot }) => this.stateOf.get(slot)?.name ?? []);
  }

  /** Fills all memory that a step must write before it reads it with NaN, as f32 and as f16. */
  poison(): void {
    const pinned = new Set(this.program.inputs.map(({ slot }) => slot));
    for (const buffers of this.all) {
      for (const [slot, buffer] of buffers) {
        if (pinned.has(slot)) continue;
        const words = new Uint32Array(buffer.size / 4).fill(0x7fc0_7fc0);
        this.device.write(buffer, 0, new Uint8Array(words.buffer));
      }
    }
  }

  close(): void {
    for (const buffers of this.all) {
      for (const buffer of buffers.values()) this.device.destroyBuffer(buffer);
      buffers.clear();
    }
    if (this.windows !== undefined) this.device.destroyBuffer(this.windows);
    this.windows = undefined;
  }

  private range({ slot, offset = 0, bytes }: Binding, set: number): GPUBufferBinding {
    const buffer = this.of(slot, set);
    return { buffer, offset, size: bytes === undefined ? buffer.size - offset : Math.max(bytes, 4) };
  }

  private allocate(): void {
    this.program.slots.forEach(({ bytes, scope, label }, slot) => {
      if (scope === 'state' || scope === 'next') return;
      const owners = { leaf: this.sets, sequence: this.sequences, part: this.parts };
      const each =
        scope === 'leaf' || scope === 'sequence' || scope === 'part' ? owners[scope].values() : [this.shared];
      for (const buffers of each) buffers.set(slot, this.device.createBuffer(bytes, label));
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
    this.windows = this.device.createBuffer(constants.byteLength, 'windows', GPUBufferUsage.UNIFORM);
    this.device.write(this.windows, 0, new Uint8Array(constants.buffer));
  }
}

interface StateSlot {
  readonly name: string;
  /** Whether it holds the new value, until the step commits. */
  readonly next: boolean;
}

function statesOf({ name, slot, next }: ProgramState): [number, StateSlot][] {
  const current: [number, StateSlot] = [slot, { name, next: false }];
  return next === undefined ? [current] : [current, [next, { name, next: true }]];
}
