import type { Combine, Exchange, Gathering, GatherPart, Program, SumParts } from '@cohesin/core';
import { type Group, groupOf, type Rendezvous } from './rendezvous.ts';

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
  /** Ranks that share rounds. */
  readonly groups: readonly GroupMemory[];
  /** The group of each round, among them. */
  readonly groupOfRound: readonly number[];
}

/** Where some ranks meet, and what they gather. */
export interface GroupMemory {
  readonly group: Group;
  readonly gathered: ExchangeMemory['gathered'];
}

/** Memory for `ranks` that work on the same program, on each round those of `rounds`, on some rounds side by side. */
export function exchangeMemory(
  program: Program,
  ranks: number,
  rounds: readonly (readonly number[])[],
  sideBySide = 1,
): ExchangeMemory {
  const each = program.segments.map((segment) => gatheredBytes(segment.combine));
  const most = sideBySide * Math.max(0, ...each);
  const sharing = [...new Set(rounds.map((members) => members.join()))];
  const groups = sharing.map((members): GroupMemory => {
    const group = groupOf(members.split(',').map(Number));
    return { group, gathered: gatherMemory(group.members.length > 1 ? most : 0) };
  });
  const divided = groups.some(({ group }) => group.members.length < ranks);
  const kept = program.kept.reduce((sum, { bytes }) => sum + bytes * rounds.length, 0);
  const groupOfRound = rounds.map((members) => sharing.indexOf(members.join()));
  return { ...sumMemory(program, ranks, divided ? kept : 0), groups, groupOfRound };
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
    groups: [],
    groupOfRound: [],
  };
}

/** Bytes of host memory that exchanges between `ranks` take, with each rank's copy of what it gathered. */
export function exchangeBytes({ gathered, peaks, sums, total, groups }: ExchangeMemory): number {
  const shared = [...gathered, ...peaks, ...sums, total, ...groups.flatMap((group) => group.gathered)];
  const copies = groups.map((one) => one.group.members.length * one.gathered[0].byteLength);
  return [...shared.map(({ byteLength }) => byteLength), ...copies].reduce(
    (total, bytes) => total + bytes,
    sums.length * gathered[0].byteLength,
  );
}

/** Memory for what ranks gather, at most so many bytes at a time. */
export function gatherMemory(bytes: number): ExchangeMemory['gathered'] {
  return [new SharedArrayBuffer(Math.max(4, bytes)), new SharedArrayBuffer(Math.max(4, bytes))];
}

/** Where a rank meets others. */
export interface Meeting {
  readonly rendezvous: Rendezvous;
  /** The ranks that meet, if not all. */
  readonly group?: Group;
  /** Called before each exchange, so that those who wait can say where this rank is. */
  readonly enter: (
    action: 'combining statistics' | 'summing gradients' | 'forward and backward' | 'updating',
  ) => void;
}

/** How a rank that is a thread gathers with others: writes its part, meets them, reads theirs. */
export class ThreadGathering implements Gathering {
  readonly remote: boolean;
  private readonly gathered: ExchangeMemory['gathered'];
  private readonly meeting: Meeting;
  /** What was gathered last: Dawn cannot read shared memory. */
  private readonly copy: Uint8Array<ArrayBuffer>;
  private turn: 0 | 1 = 0;

  constructor(gathered: ExchangeMemory['gathered'], ranks: number, meeting: Meeting) {
    this.gathered = gathered;
    this.meeting = meeting;
    this.copy = new Uint8Array(gathered[0].byteLength);
    this.remote = ranks > 1;
  }

  async combine(parts: readonly GatherPart[]): Promise<readonly Uint8Array<ArrayBuffer>[]> {
    const { rendezvous, group, enter } = this.meeting;
    enter('combining statistics');
    // Who writes this area again has met everyone at the other one, after they had read this one.
    const area = new Uint8Array(this.gathered[this.turn]);
    this.turn = this.turn === 0 ? 1 : 0;
    const starts = offsets(parts.map(({ bytes }) => bytes));
    for (const [i, { own, offset }] of parts.entries()) area.set(own, starts[i]! + offset);
    rendezvous.meet(group);
    enter('forward and backward');
    return parts.map(({ bytes }, i) => {
      const copy = this.copy.subarray(starts[i]!, starts[i]! + bytes);
      copy.set(area.subarray(starts[i]!, starts[i]! + bytes));
      return copy;
    });
  }
}

/** The exchange of a rank that is a thread. */
export class ThreadExchange extends ThreadGathering implements Exchange {
  readonly divided: boolean;
  private readonly memory: ExchangeMemory;
  private readonly rendezvous: Rendezvous;
  /** Place among the ranks that exchange. */
  private readonly rank: number;
  private readonly group: Group | undefined;
  private readonly enter: Meeting['enter'];
  private readonly groups: readonly ThreadGathering[];

  constructor(memory: ExchangeMemory, rank: number, meeting: Meeting) {
    super(memory.gathered, memory.sums.length, meeting);
    this.memory = memory;
    this.rendezvous = meeting.rendezvous;
    this.rank = rank;
    this.group = meeting.group;
    this.enter = meeting.enter;
    this.divided = memory.groups.some(({ group }) => group.members.length < memory.sums.length);
    this.groups = memory.groups.map(
      ({ group, gathered }) => new ThreadGathering(gathered, group.members.length, { ...meeting, group }),
    );
  }

  round(round: number): Gathering {
    return this.groups[this.memory.groupOfRound[round]!]!;
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
