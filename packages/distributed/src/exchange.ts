import type { Combine, Exchange, GatherPart, Program, SumParts } from '@cohesin/core';
import type { Group, Rendezvous } from './rendezvous.ts';

/** Shared memory through which ranks of one process exchange what they computed. */
export interface ExchangeMemory {
  /** Two areas used in turn, each large enough for all pieces gathered at the end of any segment. */
  readonly gathered: readonly [SharedArrayBuffer, SharedArrayBuffer];
  /** One area per rank: its peaks. */
  readonly peaks: readonly SharedArrayBuffer[];
  /** One area per rank: its gradient sums. */
  readonly sums: readonly SharedArrayBuffer[];
  /** The sums over all ranks. */
  readonly total: SharedArrayBuffer;
}

/** Memory for `ranks` that work on the same program. */
export function exchangeMemory(program: Program, ranks: number): ExchangeMemory {
  const gathered = program.segments.map((segment) => gatheredBytes(segment.combine));
  return sumMemory(program, ranks, Math.max(0, ...gathered));
}

/** Bytes of all pieces of what is gathered together. */
export function gatheredBytes(gathered: readonly Combine[]): number {
  return gathered.reduce((sum, { bytesPerLeaf, parts: [from, to] }) => sum + bytesPerLeaf * (to - from), 0);
}

/** Memory for what `ranks` gather, at most so many bytes at a time, and for a program's gradient sums. */
export function sumMemory(program: Program, ranks: number, gathered: number): ExchangeMemory {
  const { sums } = program;
  const sumBytes = sums === undefined ? 4 : program.slots[sums.slot]!.bytes;
  const peakBytes = 4 * Math.max(1, sums?.tensors.length ?? 0);
  const each = (bytes: number): SharedArrayBuffer[] =>
    Array.from({ length: ranks }, () => new SharedArrayBuffer(ranks > 1 ? bytes : 4));
  return {
    gathered: gatherMemory(ranks > 1 ? gathered : 0),
    peaks: each(peakBytes),
    sums: each(sumBytes),
    total: new SharedArrayBuffer(ranks > 1 ? sumBytes : 4),
  };
}

/** Bytes of host memory that exchanges between `ranks` take, with each rank's copy of what it gathered. */
export function exchangeBytes({ gathered, peaks, sums, total }: ExchangeMemory): number {
  const shared = [...gathered, ...peaks, ...sums, total].reduce(
    (bytes, { byteLength }) => bytes + byteLength,
    0,
  );
  return shared + sums.length * gathered[0].byteLength;
}

/** Memory for what ranks gather, at most so many bytes at a time. */
export function gatherMemory(bytes: number): ExchangeMemory['gathered'] {
  return [new SharedArrayBuffer(Math.max(4, bytes)), new SharedArrayBuffer(Math.max(4, bytes))];
}

/** The exchange of a rank that is a thread: writes its part, meets the others, reads theirs. */
export class ThreadExchange implements Exchange {
  readonly remote: boolean;
  private readonly memory: ExchangeMemory;
  private readonly rendezvous: Rendezvous;
  /** Place among the ranks that exchange. */
  private readonly rank: number;
  private readonly group: Group | undefined;
  /** What was gathered last: Dawn cannot read shared memory. */
  private readonly copy: Uint8Array<ArrayBuffer>;
  private turn: 0 | 1 = 0;
  /** Called before each exchange, so that those who wait can say where this rank is. */
  private readonly enter: (
    action: 'combining statistics' | 'summing gradients' | 'forward and backward' | 'updating',
  ) => void;

  constructor(options: {
    readonly memory: ExchangeMemory;
    readonly rendezvous: Rendezvous;
    readonly rank: number;
    /** The ranks that exchange, if not all. */
    readonly group?: Group;
    readonly enter: ThreadExchange['enter'];
  }) {
    this.memory = options.memory;
    this.rendezvous = options.rendezvous;
    this.rank = options.rank;
    this.group = options.group;
    this.enter = options.enter;
    this.copy = new Uint8Array(options.memory.gathered[0].byteLength);
    this.remote = options.memory.sums.length > 1;
  }

  async combine(parts: readonly GatherPart[]): Promise<readonly Uint8Array<ArrayBuffer>[]> {
    this.enter('combining statistics');
    // Who writes this area again has met everyone at the other one, after they had read this one.
    const area = new Uint8Array(this.memory.gathered[this.turn]);
    this.turn = this.turn === 0 ? 1 : 0;
    const starts = offsets(parts.map(({ bytes }) => bytes));
    for (const [i, { own, offset }] of parts.entries()) area.set(own, starts[i]! + offset);
    this.rendezvous.meet(this.group);
    this.enter('forward and backward');
    return parts.map(({ bytes }, i) => {
      const copy = this.copy.subarray(starts[i]!, starts[i]! + bytes);
      copy.set(area.subarray(starts[i]!, starts[i]! + bytes));
      return copy;
    });
  }

  async sum({ peaks, sums }: SumParts): Promise<SumParts> {
    if (!this.remote) return { peaks, sums };
    this.enter('summing gradients');
    new Uint32Array(this.memory.peaks[this.rank]!).set(peaks);
    new Uint32Array(this.memory.sums[this.rank]!).set(sums!);
    this.rendezvous.meet(this.group);
    const parts = this.memory.sums.map((part) => new Uint32Array(part));
    const [from, to] = share(sums!.length / 2, this.rank, parts.length);
    addWide(new Uint32Array(this.memory.total), parts, 2 * from, 2 * to);
    this.rendezvous.meet(this.group);
    this.enter('updating');
    return { peaks: largest(this.memory.peaks), sums: new Uint32Array(this.memory.total).slice() };
  }
}

/** The part `[from, to)` of `count` items that belongs to one of `ranks`. */
export function share(count: number, rank: number, ranks: number): readonly [from: number, to: number] {
  return [Math.floor((count * rank) / ranks), Math.floor((count * (rank + 1)) / ranks)];
}

/** Adds 64-bit integers, stored as low and high u32 words, of all parts in the words `[from, to)`. */
export function addWide(total: Uint32Array, parts: readonly Uint32Array[], from: number, to: number): void {
  const [first, ...others] = parts;
  total.set(first!.subarray(from, to), from);
  for (const part of others) {
    for (let i = from; i < to; i += 2) {
      const low = (total[i]! + part[i]!) >>> 0;
      total[i + 1] = total[i + 1]! + part[i + 1]! + (low < part[i]! ? 1 : 0);
      total[i] = low;
    }
  }
}

function largest(all: readonly SharedArrayBuffer[]): Uint32Array {
  const [first, ...others] = all.map((peaks) => new Uint32Array(peaks));
  const result = first!.slice();
  for (const peaks of others)
    for (let i = 0; i < result.length; i++) result[i] = Math.max(result[i]!, peaks[i]!);
  return result;
}

function offsets(sizes: readonly number[]): number[] {
  let at = 0;
  return sizes.map((size) => {
    at += size;
    return at - size;
  });
}
