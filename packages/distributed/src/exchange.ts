import type {
  BufferRange,
  Combine,
  Device,
  Exchange,
  Gathering,
  GatherPart,
  Program,
  SubmitSums,
} from '@cohesin/core';
import { type ChunkMemory, Chunks, chunkBytes, chunkMemory } from './chunks.ts';
import { type Group, groupOf, type Rendezvous } from './rendezvous.ts';
import type { Timeline } from './timeline.ts';

/** Shared memory through which ranks of one process exchange what they computed. */
export interface ExchangeMemory {
  readonly ranks: number;
  /** Two areas used in turn, each large enough for all that is gathered together. */
  readonly gathered: readonly [SharedArrayBuffer, SharedArrayBuffer];
  /** For gradient sums, and parameters that one rank moves. */
  readonly chunks: ChunkMemory;
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
  const handed = program.handOvers.map((list) => list.reduce((total, { bytes }) => total + bytes, 0));
  const together = Math.max(divided ? kept : 0, ...handed);
  return { ...sumMemory(program, ranks, together), groups, groupOfRound };
}

/** Bytes of all pieces of what is gathered together. */
export function gatheredBytes(gathered: readonly Combine[]): number {
  return gathered.reduce((sum, { bytesPerLeaf, parts: [from, to] }) => sum + bytesPerLeaf * (to - from), 0);
}

/** Memory for what `ranks` gather, at most so many bytes at a time, and for a program's gradient sums. */
export function sumMemory(program: Program, ranks: number, gathered: number): ExchangeMemory {
  const { sums } = program;
  const sumBytes = sums === undefined ? 0 : program.slots[sums.slot]!.bytes;
  const peakBytes = 4 * ranks * (sums?.tensors.length ?? 0);
  return {
    ranks,
    gathered: gatherMemory(ranks > 1 ? Math.max(gathered, peakBytes) : 0),
    chunks: chunkMemory(ranks, sumBytes),
    groups: [],
    groupOfRound: [],
  };
}

/** Bytes of host memory that exchanges between ranks take. */
export function exchangeBytes({ ranks, gathered, chunks, groups }: ExchangeMemory): number {
  const areas = [...gathered, ...groups.flatMap((group) => group.gathered)];
  return areas.reduce((total, { byteLength }) => total + byteLength, chunkBytes(chunks, ranks));
}

/** The most that is gathered at a time: larger tensors in several turns. */
const ROOM_BYTES = 32 * 2 ** 20;

/** Memory for what ranks gather, so many bytes if there is room. */
export function gatherMemory(bytes: number): ExchangeMemory['gathered'] {
  const room = Math.min(Math.max(4, bytes), ROOM_BYTES);
  return [new SharedArrayBuffer(room), new SharedArrayBuffer(room)];
}

/** Where a rank meets others. */
export interface Meeting {
  readonly rendezvous: Rendezvous;
  /** The ranks that meet, if not all. */
  readonly group?: Group;
  /** Called before each exchange, so that those who wait can say where this rank is. */
  readonly enter: (action: 'summing gradients' | 'updating') => void;
}

/** How a rank that is a thread gathers with others: writes its part, meets them, gives theirs where they lie. */
export class ThreadGathering implements Gathering {
  readonly remote: boolean;
  readonly room: number;
  private readonly gathered: ExchangeMemory['gathered'];
  protected readonly meeting: Meeting;
  private turn: 0 | 1 = 0;

  constructor(gathered: ExchangeMemory['gathered'], ranks: number, meeting: Meeting) {
    this.gathered = gathered;
    this.meeting = meeting;
    this.remote = ranks > 1;
    this.room = gathered[0].byteLength;
  }

  async combine(parts: readonly GatherPart[]): Promise<readonly Uint8Array[]> {
    const bytes = parts.reduce((total, part) => total + part.bytes, 0);
    return this.meeting.rendezvous.during('combining statistics', { bytes }, () => this.gather(parts));
  }

  protected gather(parts: readonly GatherPart[]): Uint8Array[] {
    const { rendezvous, group } = this.meeting;
    // Who writes this area again has met everyone at the other one, after they had read this one.
    const area = new Uint8Array(this.gathered[this.turn]);
    this.turn = this.turn === 0 ? 1 : 0;
    const starts = offsets(parts.map(({ bytes }) => bytes));
    for (const [i, { own, offset }] of parts.entries()) area.set(own, starts[i]! + offset);
    rendezvous.meet(group);
    return parts.map(({ bytes, wanted }, i) =>
      wanted ? area.subarray(starts[i]!, starts[i]! + bytes) : NOTHING,
    );
  }
}

const NOTHING = new Uint8Array();

/** The exchange of a rank that is a thread. */
export class ThreadExchange extends ThreadGathering implements Exchange {
  readonly divided: boolean;
  private readonly memory: ExchangeMemory;
  /** Place among the ranks that exchange. */
  private readonly rank: number;
  private readonly enter: Meeting['enter'];
  private readonly chunks: Chunks;
  private readonly timeline: Timeline | undefined;
  private readonly groups: readonly ThreadGathering[];

  constructor(memory: ExchangeMemory, rank: number, meeting: Meeting) {
    const { ranks, gathered, chunks } = memory;
    super(gathered, ranks, meeting);
    this.memory = memory;
    this.rank = rank;
    this.enter = meeting.enter;
    this.timeline = meeting.rendezvous.timeline;
    this.chunks = new Chunks({
      memory: chunks,
      ranks,
      rank,
      meet: () => meeting.rendezvous.meet(meeting.group),
      adding: (...of) => this.adding(...of),
    });
    this.divided = memory.groups.some(({ group }) => group.members.length < ranks);
    this.groups = memory.groups.map(
      ({ group, gathered }) => new ThreadGathering(gathered, group.members.length, { ...meeting, group }),
    );
  }

  round(round: number): Gathering {
    return this.groups[this.memory.groupOfRound[round]!]!;
  }

  async peaks(own: Uint32Array<ArrayBuffer>): Promise<Uint32Array> {
    if (!this.remote) return own;
    this.enter('summing gradients');
    const { ranks } = this.memory;
    const { byteLength: size } = own;
    const part = {
      own: new Uint8Array(own.buffer),
      offset: this.rank * size,
      bytes: ranks * size,
      wanted: true,
    };
    const [bytes] = this.gather([part]);
    const all = new Uint32Array(bytes!.buffer, bytes!.byteOffset, ranks * own.length);
    return own.map((_, i) => {
      let most = 0;
      for (let at = i; at < all.length; at += own.length) most = Math.max(most, all[at]!);
      return most;
    });
  }

  async sum(device: Device, range: BufferRange, submit: SubmitSums): Promise<void> {
    if (this.remote) await this.chunks.sum(device, range, submit);
    else submit(Number.POSITIVE_INFINITY);
  }

  async sumOwn(
    device: Device,
    ranges: readonly (readonly BufferRange[])[],
    submit: SubmitSums,
  ): Promise<void> {
    if (this.remote) await this.chunks.sumOwn(device, ranges, submit);
    else submit(Number.POSITIVE_INFINITY);
  }

  updating(): void {
    this.enter('updating');
  }

  async give(device: Device, ranges: readonly (readonly BufferRange[])[]): Promise<void> {
    if (this.remote) await this.chunks.give(device, ranges);
  }

  /** Sums are added inside of the backward pass, but for the last, which wait for its end. */
  private adding(bytes: number, last: boolean, add: () => void): void {
    if (last) {
      this.enter('summing gradients');
      this.timeline?.note({ bytes });
      add();
    } else this.meeting.rendezvous.during('summing gradients', { bytes }, add);
  }
}

/** The part `[from, to)` of `count` items that belongs to one of `ranks`. */
export function share(count: number, rank: number, ranks: number): readonly [from: number, to: number] {
  return [Math.floor((count * rank) / ranks), Math.floor((count * (rank + 1)) / ranks)];
}

function offsets(sizes: readonly number[]): number[] {
  let at = 0;
  return sizes.map((size) => {
    at += size;
    return at - size;
  });
}
