import type { ActionKind, Link, LinkPiece, Parcel, PipelineExchange } from '@cohesin/core';
import { type ExchangeMemory, ThreadExchange, ThreadGathering } from './exchange.ts';
import type { Action, Group, Rendezvous } from './rendezvous.ts';
import { formatAction, type Transfer } from './schedule/action.ts';

/**
 * Shared memory through which a rank of one stage hands tensors to a rank of another. A microbatch's message has a slot
 * while the microbatch is in flight on the earlier of the two stages, so a sender finds it free.
 */
export interface Channel {
  readonly value: Link['value'];
  readonly from: number;
  readonly to: number;
  /** Stages of the two ranks. */
  readonly stages: readonly [from: number, to: number];
  /** Slot of each microbatch that both ranks work on. */
  readonly slots: ReadonlyMap<number, number>;
  /** What a message holds, in this order. */
  readonly pieces: readonly (LinkPiece & { readonly bytes: number })[];
  /** Of a message. */
  readonly bytes: number;
  /** A word for each slot: 0 while it is free, else the microbatch + 1. */
  readonly words: SharedArrayBuffer;
  readonly messages: SharedArrayBuffer;
}

export function channel(
  options: Pick<Channel, 'value' | 'from' | 'to' | 'stages' | 'slots' | 'pieces'>,
): Channel {
  const count = Math.max(1, ...[...options.slots.values()].map((slot) => slot + 1));
  const bytes = options.pieces.reduce((total, piece) => total + piece.bytes, 0);
  return {
    ...options,
    bytes,
    words: new SharedArrayBuffer(4 * count),
    messages: new SharedArrayBuffer(Math.max(4, bytes) * count),
  };
}

/** What a rank of a pipeline needs to talk to the others. */
export interface StageMemory {
  /** The ranks of its stage. */
  readonly group: Group;
  readonly exchange: ExchangeMemory;
  /** For what ranks of all stages gather. */
  readonly all: ExchangeMemory['gathered'];
  /** Those that begin or end at this rank. */
  readonly channels: readonly Channel[];
}

export interface StagePosition {
  readonly rank: number;
  readonly stage: number;
  readonly rendezvous: Rendezvous;
  /** The step that runs. */
  readonly step: () => number;
}

/** How a rank that is a thread hands tensors to other stages, and shares sums and norms with them. */
export class ThreadPipeline implements PipelineExchange {
  readonly stage: ThreadExchange;
  readonly all: ThreadGathering;
  private readonly memory: StageMemory;
  private readonly at: StagePosition;
  /** Whether nothing has been done since the rank said what it does. */
  private entered = false;

  constructor(memory: StageMemory, at: StagePosition) {
    this.memory = memory;
    this.at = at;
    const { rendezvous } = at;
    const enter = (action: Action): void => rendezvous.enter(at.step(), action);
    const { group, exchange, all } = memory;
    const place = group.members.indexOf(at.rank);
    this.stage = new ThreadExchange(exchange, place, { rendezvous, group, enter });
    this.all = new ThreadGathering(all, rendezvous.ranks, { rendezvous, enter });
  }

  async enter(action: ActionKind, microbatch: number): Promise<void> {
    await this.at.rendezvous.timeline?.settled();
    this.entered = true;
    this.at.rendezvous.enter(this.at.step(), action, { stage: this.at.stage, microbatch });
  }

  arrived(link: Link, microbatch: number): boolean {
    return this.find(link, microbatch, 'to').every(
      ({ words, index }) => Atomics.load(words, index) === microbatch + 1,
    );
  }

  async receive(link: Link, microbatch: number, take: (parcel: Parcel) => void): Promise<void> {
    const what = `the ${link.value} of microbatch ${microbatch} from stage ${link.from}`;
    for (const place of this.find(link, microbatch, 'to')) {
      const { channel, words, index } = place;
      this.begin(nameOf('receive', link, microbatch, channel.from), channel);
      const done = (value: number): boolean => value === microbatch + 1;
      this.at.rendezvous.waitFor({ words, index, done }, channel.from, what);
      for (const parcel of parcelsOf(place)) take(parcel);
      this.mark(words, index, 0);
    }
  }

  /** Keeps the time of a transfer: work that was entered and waits for it begins with it. */
  private begin(name: string, { bytes }: Channel): void {
    const { timeline } = this.at.rendezvous;
    if (this.entered) timeline?.begins(name, { bytes });
    else timeline?.enter(name, { bytes });
    this.entered = false;
  }

  outgoing(link: Link, microbatch: number): readonly Parcel[] {
    const what = `stage ${link.to} to take the ${link.value} before that of microbatch ${microbatch}`;
    return this.find(link, microbatch, 'from').flatMap((place) => {
      const { channel, words, index } = place;
      this.at.rendezvous.waitFor({ words, index, done: (value) => value === 0 }, channel.to, what);
      return parcelsOf(place);
    });
  }

  send(link: Link, microbatch: number): void {
    for (const { channel, words, index } of this.find(link, microbatch, 'from')) {
      const name = nameOf('send', link, microbatch, channel.to);
      const { bytes } = channel;
      this.at.rendezvous.within(name, { bytes }, () => this.mark(words, index, microbatch + 1));
    }
  }

  private mark(words: Int32Array, index: number, value: number): void {
    Atomics.store(words, index, value);
    Atomics.notify(words, index);
  }

  private find(link: Link, microbatch: number, end: 'from' | 'to'): Place[] {
    const channels = this.memory.channels.filter(
      ({ stages, slots, ...ranks }) =>
        ranks[end] === this.at.rank &&
        stages[0] === link.from &&
        stages[1] === link.to &&
        slots.has(microbatch),
    );
    return channels.map((channel) => {
      const index = channel.slots.get(microbatch)!;
      const message = new Uint8Array(channel.messages, index * channel.bytes, channel.bytes);
      return { channel, words: new Int32Array(channel.words), index, message };
    });
  }
}

/** A transfer as schedules call it, as `send 1F0 to 3`. */
const nameOf = (kind: Transfer['kind'], { value, from }: Link, microbatch: number, peer: number): string =>
  formatAction({ kind, value, stage: from, microbatch, peer });

function parcelsOf({ channel, message }: Place): Parcel[] {
  let at = 0;
  return channel.pieces.map(({ bytes, ...piece }) => {
    at += bytes;
    return { ...piece, memory: message.subarray(at - bytes, at) };
  });
}

interface Place {
  readonly channel: Channel;
  readonly words: Int32Array;
  readonly index: number;
  readonly message: Uint8Array;
}
