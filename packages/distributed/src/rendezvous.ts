import type { ActionKind } from '@cohesin/core';
import { formatAction } from './schedule/action.ts';
import type { Timeline, TraceArgs } from './timeline.ts';

/** What a rank is doing, in the order of a step; kept in shared memory so that whoever waits can say for whom. */
export const ACTIONS = [
  'idle',
  'uploading inputs',
  'forward and backward',
  'forward',
  'backward',
  'inputGradient',
  'weightGradient',
  'combining statistics',
  'summing gradients',
  'updating',
  'reading outputs',
] as const;
export type Action = (typeof ACTIONS)[number];

/** Where ranks meet: a barrier for all of them, an abort flag, and for each rank words that say where it is. */
export interface RendezvousMemory {
  readonly ranks: number;
  readonly words: SharedArrayBuffer;
}

/** Ranks that meet without the others. */
export interface Group {
  readonly members: readonly number[];
  readonly words: SharedArrayBuffer;
}

/** What a rank of a pipeline works on. */
export interface Work {
  readonly stage: number;
  readonly microbatch: number;
}

const ARRIVED = 0;
const GENERATION = 1;
const ABORT = 2;
const HEADER = 4;
const WORDS_PER_RANK = 4; // step, action, stage + 1, microbatch
const SLICE_MS = 50;

export function rendezvousMemory(ranks: number): RendezvousMemory {
  return { ranks, words: new SharedArrayBuffer(4 * (HEADER + WORDS_PER_RANK * ranks)) };
}

export function groupOf(members: readonly number[]): Group {
  return { members, words: new SharedArrayBuffer(4 * HEADER) };
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
  readonly ranks: number;
  private readonly rank: number;
  private readonly deadlineMs: number;
  /** Where times are kept. */
  readonly timeline: Timeline | undefined;
  private current: Doing = { step: 0, action: 'idle' };

  constructor({ ranks, words }: RendezvousMemory, rank: number, deadlineMs: number, timeline?: Timeline) {
    this.control = new Int32Array(words);
    this.ranks = ranks;
    this.rank = rank;
    this.deadlineMs = deadlineMs;
    this.timeline = timeline;
  }

  /** Records what this rank does now. */
  enter(step: number, action: Action, work?: Work): void {
    this.tell(step, action, work);
    if (action !== 'idle') this.timeline?.enter(nameOf(action, work));
  }

  /** Records what this rank does in `body`, inside of what it did before and then does again. */
  during<T>(action: Action, args: TraceArgs, body: () => T): T {
    const { step, action: before, work } = this.current;
    this.tell(step, action);
    const result = this.within(action, args, body);
    this.tell(step, before, work);
    return result;
  }

  /** Keeps the time of `body` where times are kept, inside of what this rank does. */
  within<T>(name: string, args: TraceArgs, body: () => T): T {
    return this.timeline === undefined ? body() : this.timeline.within(name, body, args);
  }

  private tell(step: number, action: Action, work?: Work): void {
    const words = [step, ACTIONS.indexOf(action), (work?.stage ?? -1) + 1, work?.microbatch ?? 0];
    for (const [i, word] of words.entries())
      Atomics.store(this.control, HEADER + WORDS_PER_RANK * this.rank + i, word);
    this.current = { step, action, work };
  }

  /**
   * Waits until all ranks, or those of a group, are here. Blocks the thread: what the device does meanwhile is only heard
   * of afterwards.
   *
   * @throws when another rank failed, or the deadline passes: names the ranks that did not come and what they did last.
   */
  meet(group?: Group): void {
    const barrier = group === undefined ? this.control : new Int32Array(group.words);
    const members = group?.members ?? Array.from({ length: this.ranks }, (_, rank) => rank);
    const generation = Atomics.load(barrier, GENERATION);
    if (Atomics.add(barrier, ARRIVED, 1) === members.length - 1) {
      Atomics.store(barrier, ARRIVED, 0);
      Atomics.add(barrier, GENERATION, 1);
      Atomics.notify(barrier, GENERATION);
      return;
    }
    this.wait({ words: barrier, index: GENERATION, done: (value) => value !== generation }, () =>
      this.missing(members),
    );
  }

  /**
   * Waits until a word in shared memory says what it should. Blocks the thread.
   *
   * @throws when another rank failed, or the deadline passes: with `what` this rank waited for, and where the peer is.
   */
  waitFor(word: Word, peer: number, what: string): void {
    this.wait(word, () => ` for ${what}: ${this.placeText(peer)}`);
  }

  private wait({ words, index, done }: Word, whom: () => string): void {
    if (done(Atomics.load(words, index))) return;
    this.within('wait', {}, () => this.sleep({ words, index, done }, whom));
  }

  private sleep({ words, index, done }: Word, whom: () => string): void {
    const start = performance.now();
    for (;;) {
      const value = Atomics.load(words, index);
      if (done(value)) return;
      if (Atomics.load(this.control, ABORT) !== 0)
        throw new Error(`rank ${this.rank} stops because another rank failed`);
      if (performance.now() - start > this.deadlineMs) throw new Error(this.late(whom()));
      Atomics.wait(words, index, value, SLICE_MS);
    }
  }

  private late(whom: string): string {
    const seconds = (this.deadlineMs / 1000).toFixed(0);
    return `rank ${this.rank} waited ${seconds} s at ${this.doing(this.rank)}${whom}. A device hangs or is far slower than the others; restart from the last checkpoint, or raise the deadline`;
  }

  private missing(members: readonly number[]): string {
    const own = this.doing(this.rank);
    const late = members
      .filter((rank) => rank !== this.rank && this.doing(rank) !== own)
      .map((rank) => this.placeText(rank));
    return `: ${late.join('; ')}`;
  }

  private placeText(rank: number): string {
    return `rank ${rank} is at ${this.doing(rank)}`;
  }

  /** `step 7, forward of microbatch 3 in stage 1`. */
  private doing(rank: number): string {
    const at = HEADER + WORDS_PER_RANK * rank;
    const [step, action, stage, microbatch] = [0, 1, 2, 3].map((i) => Atomics.load(this.control, at + i));
    const of = stage === 0 ? '' : ` of microbatch ${microbatch} in stage ${stage! - 1}`;
    return `step ${step}, ${ACTIONS[action!]}${of}`;
  }
}

/** A word of shared memory that ranks wait for. */
export interface Word {
  readonly words: Int32Array;
  readonly index: number;
  readonly done: (value: number) => boolean;
}

interface Doing {
  readonly step: number;
  readonly action: Action;
  readonly work?: Work | undefined;
}

/** Work of a stage as schedules call it, as `1F0`. */
function nameOf(action: Action, work: Work | undefined): string {
  return work === undefined ? action : formatAction({ kind: action as ActionKind, ...work });
}
