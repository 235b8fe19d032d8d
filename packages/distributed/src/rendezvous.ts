/** What a rank is doing, in the order of a step; kept in shared memory so that whoever waits can say for whom. */
export const ACTIONS = [
  'idle',
  'uploading inputs',
  'forward and backward',
  'combining statistics',
  'summing gradients',
  'updating',
  'reading outputs',
] as const;
export type Action = (typeof ACTIONS)[number];

/** The ranks' meeting point: a barrier, an abort flag and a word per rank that says where it is. */
export interface RendezvousMemory {
  readonly ranks: number;
  readonly words: SharedArrayBuffer;
}

const ARRIVED = 0;
const GENERATION = 1;
const ABORT = 2;
const HEADER = 4;
const WORDS_PER_RANK = 2;
const SLICE_MS = 50;

export function rendezvousMemory(ranks: number): RendezvousMemory {
  return { ranks, words: new SharedArrayBuffer(4 * (HEADER + WORDS_PER_RANK * ranks)) };
}

/** Tells every rank that waits, or will wait, to give up. */
export function abort({ words }: RendezvousMemory): void {
  const control = new Int32Array(words);
  Atomics.store(control, ABORT, 1);
  Atomics.notify(control, GENERATION);
}

/** One rank's side of the meeting point. */
export class Rendezvous {
  private readonly control: Int32Array;
  private readonly ranks: number;
  private readonly rank: number;
  private readonly deadlineMs: number;

  constructor({ ranks, words }: RendezvousMemory, rank: number, deadlineMs: number) {
    this.control = new Int32Array(words);
    this.ranks = ranks;
    this.rank = rank;
    this.deadlineMs = deadlineMs;
  }

  /** Records what this rank does now. */
  enter(step: number, action: Action): void {
    const at = HEADER + WORDS_PER_RANK * this.rank;
    Atomics.store(this.control, at, step);
    Atomics.store(this.control, at + 1, ACTIONS.indexOf(action));
  }

  /**
   * Waits until all ranks are here. Blocks the thread: no promise of the device may be pending.
   *
   * @throws when another rank failed, or the deadline passes: names the ranks that did not come and what they did last.
   */
  meet(): void {
    const { control, ranks } = this;
    const generation = Atomics.load(control, GENERATION);
    if (Atomics.add(control, ARRIVED, 1) === ranks - 1) {
      Atomics.store(control, ARRIVED, 0);
      Atomics.add(control, GENERATION, 1);
      Atomics.notify(control, GENERATION);
      return;
    }
    const start = performance.now();
    while (Atomics.load(control, GENERATION) === generation) {
      if (Atomics.load(control, ABORT) !== 0)
        throw new Error(`rank ${this.rank} stops because another rank failed`);
      if (performance.now() - start > this.deadlineMs) throw new Error(this.missing());
      Atomics.wait(control, GENERATION, generation, SLICE_MS);
    }
  }

  private place(rank: number): { step: number; action: Action } {
    const at = HEADER + WORDS_PER_RANK * rank;
    return { step: Atomics.load(this.control, at), action: ACTIONS[Atomics.load(this.control, at + 1)]! };
  }

  private missing(): string {
    const own = this.place(this.rank);
    const others = Array.from({ length: this.ranks }, (_, rank) => rank)
      .filter((rank) => rank !== this.rank)
      .map((rank) => ({ rank, ...this.place(rank) }))
      .filter(({ step, action }) => step !== own.step || action !== own.action)
      .map(({ rank, step, action }) => `rank ${rank} is at step ${step}, ${action}`);
    const seconds = (this.deadlineMs / 1000).toFixed(0);
    return `rank ${this.rank} waited ${seconds} s at step ${own.step}, ${own.action}: ${others.join('; ')}. A device hangs or is far slower than the others; restart from the last checkpoint, or raise the deadline`;
  }
}
