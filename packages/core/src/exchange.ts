import type { BufferRange, Device } from './device.ts';
import type { ActionKind, Link, LinkPiece } from './stage-program.ts';

/** This rank's bytes of a tensor that is gathered, and where among all bytes they lie. */
export interface GatherPart {
  readonly own: Uint8Array<ArrayBuffer>;
  readonly offset: number;
  readonly bytes: number;
  /** Whether this rank wants to know all of it. */
  readonly wanted: boolean;
}

/** How some ranks learn what each of them computed. */
export interface Gathering {
  /** Whether there are others than this one. */
  readonly remote: boolean;
  /** Bytes that can be gathered at a time. */
  readonly room: number;
  /** Given this rank's part of each gathered tensor, gives all of each wanted one, to be read before the next call. */
  combine(pieces: readonly GatherPart[]): Promise<readonly Uint8Array[]>;
}

/** Has the device do what finishes the sums before a byte, and nothing if it has; for `Infinity` all it has to do. */
export type SubmitSums = (end: number) => void;

/** How a rank learns what other ranks computed. On one device there is nothing to exchange. */
export interface Exchange extends Gathering {
  /** Whether some ranks do not work on all rounds. */
  readonly divided: boolean;
  /** The ranks that work on leaves of a round. */
  round(round: number): Gathering;
  /** The largest of each peak over all ranks. */
  peaks(own: Uint32Array<ArrayBuffer>): Promise<Uint32Array>;
  /** Adds the 64-bit integers of a range over all ranks, and puts the totals in their place on each. */
  sum(device: Device, range: BufferRange, submit: SubmitSums): Promise<void>;
  /** The same for ranges listed by rank, each getting the totals of its own alone. */
  sumOwn(device: Device, ranges: readonly (readonly BufferRange[])[], submit: SubmitSums): Promise<void>;
  /** All ranks have decided to update. */
  updating(): void;
  /** Brings what each rank has in the ranges listed for it to the others. */
  give(device: Device, ranges: readonly (readonly BufferRange[])[]): Promise<void>;
}

/** The exchange of a device that owns every leaf. */
export const alone: Exchange = {
  remote: false,
  room: Number.POSITIVE_INFINITY,
  combine: async (pieces) => pieces.map(({ own }) => own),
  divided: false,
  round: () => alone,
  peaks: async (own) => own,
  sum: async (_device, _range, submit) => submit(Number.POSITIVE_INFINITY),
  sumOwn: async (_device, _ranges, submit) => submit(Number.POSITIVE_INFINITY),
  updating: () => undefined,
  give: async () => undefined,
};

/** A piece of what one stage hands to another, and the memory it goes through, which may be shared. */
export interface Parcel extends LinkPiece {
  readonly memory: Uint8Array;
}

/** How a rank of a pipeline reaches the others. */
export interface PipelineExchange {
  /** The ranks of its own stage, which share its leaves. */
  readonly stage: Exchange;
  /** All ranks. */
  readonly all: Gathering;
  /** Whether `receive` would not have to wait. */
  arrived(link: Link, microbatch: number): boolean;
  /** Waits for what another stage computed for a microbatch and this rank needs; `take` copies a piece of it. */
  receive(link: Link, microbatch: number, take: (parcel: Parcel) => void): Promise<void>;
  /** Where to put what this rank hands on; waits until what was there is taken. */
  outgoing(link: Link, microbatch: number): readonly Parcel[];
  /** Says that it is there. */
  send(link: Link, microbatch: number): void;
  /** Says what the rank does now, for those who wait for it; waits for the device where times are kept. */
  enter(action: ActionKind, microbatch: number): void | Promise<void>;
}
