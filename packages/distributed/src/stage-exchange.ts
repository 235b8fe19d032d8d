import type { ActionKind, Link, PipelineExchange } from '@cohesin/core';
import { type ExchangeMemory, ThreadExchange, ThreadGathering } from './exchange.ts';
import type { Action, Group, Rendezvous } from './rendezvous.ts';

/**
 * Shared memory through which a rank of one stage hands tensors to a rank of another. A leaf's message has a slot while
 * the leaf is in flight on the earlier of the two stages, so a sender finds it free.
 */
export interface Channel {
  readonly value: Link['value'];
  readonly from: number;
  readonly to: number;
  /** Stages of the two ranks. */
  readonly stages: readonly [from: number, to: number];
  /** Slot of each leaf that both ranks work on. */
  readonly slots: ReadonlyMap<number, number>;
  readonly bytes: number;
  /** A word for each slot: 0 while it is free, else the leaf + 1. */
  readonly words: SharedArrayBuffer;
  readonly messages: SharedArrayBuffer;
}

export function channel(
  options: Pick<Channel, 'value' | 'from' | 'to' | 'stages' | 'slots' | 'bytes'>,
): Channel {
  const count = Math.max(1, ...[...options.slots.values()].map((slot) => slot + 1));
  return {
    ...options,
    words: new SharedArrayBuffer(4 * count),
    messages: new SharedArrayBuffer(Math.max(4, options.bytes) * count),
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

  enter(action: ActionKind, leaf: number): void {
    this.at.rendezvous.enter(this.at.step(), action, { stage: this.at.stage, leaf });
  }

  async receive(link: Link, leaf: number): Promise<Uint8Array<ArrayBuffer>> {
    const { channel, words, index, message } = this.find(link, leaf, 'to');
    const what = `the ${link.value} of leaf ${leaf} from stage ${link.from}`;
    this.at.rendezvous.waitFor({ words, index, done: (value) => value === leaf + 1 }, channel.from, what);
    const received = message.slice(); // not shared memory
    this.mark(words, index, 0);
    return received;
  }

  async send(link: Link, leaf: number, tensors: readonly Uint8Array[]): Promise<void> {
    const { channel, words, index, message } = this.find(link, leaf, 'from');
    const what = `stage ${link.to} to take the ${link.value} before that of leaf ${leaf}`;
    this.at.rendezvous.waitFor({ words, index, done: (value) => value === 0 }, channel.to, what);
    let at = 0;
    for (const tensor of tensors) {
      message.set(tensor, at);
      at += tensor.length;
    }
    this.mark(words, index, leaf + 1);
  }

  private mark(words: Int32Array, index: number, value: number): void {
    Atomics.store(words, index, value);
    Atomics.notify(words, index);
  }

  private find(link: Link, leaf: number, end: 'from' | 'to'): Place {
    const channel = this.memory.channels.find(
      ({ stages, slots, ...ranks }) =>
        ranks[end] === this.at.rank && stages[0] === link.from && stages[1] === link.to && slots.has(leaf),
    )!;
    const index = channel.slots.get(leaf)!;
    const message = new Uint8Array(channel.messages, index * channel.bytes, channel.bytes);
    return { channel, words: new Int32Array(channel.words), index, message };
  }
}

interface Place {
  readonly channel: Channel;
  readonly words: Int32Array;
  readonly index: number;
  readonly message: Uint8Array;
}
