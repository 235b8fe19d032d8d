import type { ProgramBuffers } from './buffers.ts';
import type { BufferRange, Device } from './device.ts';
import type { Gathering, GatherPart } from './exchange.ts';
import type { Combine, HandOver, UpdateShare } from './program.ts';
import type { StateStore } from './state.ts';

/** A tensor, or a piece of one, that one rank computed and others need. */
export interface Gathered {
  /** Undefined on a rank that neither computed nor needs it. */
  readonly buffer: GPUBuffer | undefined;
  readonly offset?: number;
  readonly bytes: number;
  /** Whether this rank gives it. */
  readonly own: boolean;
}

/**
 * Brings what each rank gives to those that have a buffer for it, as much at a time as the exchange has room for. All ranks
 * call it with the same bytes in the same order.
 */
export async function gather(device: Device, exchange: Gathering, all: readonly Gathered[]): Promise<void> {
  await startGather(device, exchange, all)();
}

/**
 * Has the device copy what this rank gives, and returns what brings it to the others: work submitted in between goes on
 * while ranks meet. All ranks finish what they started in the same order.
 */
function startGather(
  device: Device,
  exchange: Gathering,
  all: readonly Gathered[],
  site?: object,
): () => Promise<void> {
  if (!exchange.remote) return async () => {};
  const total = all.reduce((sum, { bytes }) => sum + bytes, 0);
  const turn = (from: number): Gathered[] => between(all, from, from + exchange.room);
  const first = readGiven(device, turn(0), site);
  first.catch(() => {}); // is thrown where it is awaited
  return async () => {
    for (let from = 0; from < total; from += exchange.room) {
      const gathered = turn(from);
      await exchangeGiven(
        device,
        exchange,
        gathered,
        await (from === 0 ? first : readGiven(device, gathered, site)),
      );
    }
  };
}

function readGiven(
  device: Device,
  all: readonly Gathered[],
  site?: object,
): Promise<Uint8Array<ArrayBuffer>[]> {
  const given = all.filter(({ own }) => own);
  return device.read(
    given.map(({ buffer, ...range }) => ({ ...range, buffer: buffer! })),
    site,
  );
}

async function exchangeGiven(
  device: Device,
  exchange: Gathering,
  all: readonly Gathered[],
  read: Uint8Array<ArrayBuffer>[],
): Promise<void> {
  const isWanted = ({ buffer, own }: Gathered): boolean => buffer !== undefined && !own;
  const parts = all.map((one): GatherPart => {
    return { own: one.own ? read.shift()! : NOTHING, offset: 0, bytes: one.bytes, wanted: isWanted(one) };
  });
  const values = await exchange.combine(parts);
  for (const [i, one] of all.entries())
    if (isWanted(one)) device.write(one.buffer!, one.offset ?? 0, values[i]!);
}

/** The bytes `[from, to)` of ranges that follow one another. */
export function between<T extends { readonly offset?: number; readonly bytes: number }>(
  ranges: readonly T[],
  from: number,
  to: number,
): T[] {
  let at = 0;
  return ranges.flatMap((range) => {
    const [first, last] = [Math.max(from, at), Math.min(to, at + range.bytes)];
    const offset = (range.offset ?? 0) + first - at;
    at += range.bytes;
    return first < last ? [{ ...range, offset, bytes: last - first }] : [];
  });
}

/** Leaves of a sequence that a rank has, and a set of its buffers. */
interface Own {
  readonly leaves: readonly number[];
  readonly set: number;
}

/**
 * Makes the pieces of all leaves of some sequences known on every rank that works on some of each: consecutive ones. What
 * is returned finishes it: see `startGather`.
 */
export function startGatherLeaves(
  { device, buffers }: { readonly device: Device; readonly buffers: ProgramBuffers },
  gathered: readonly Combine[],
  sequences: readonly Own[],
  exchange: Gathering,
): () => Promise<void> {
  const pieces = sequences.flatMap(({ leaves, set }) =>
    gathered.flatMap((one) => piecesOf(one, leaves, buffers.of(one.slot, set))),
  );
  return startGather(device, exchange, pieces, gathered);
}

/** The pieces of all leaves, a rank's own among them; of others', those that its leaves need. */
function piecesOf(combine: Combine, leaves: readonly number[], buffer: GPUBuffer): Gathered[] {
  const { bytesPerLeaf, addressed, reach = Number.POSITIVE_INFINITY } = combine;
  const [from, to] = combine.parts;
  const within = (leaf: number): number => Math.min(Math.max(leaf, from), to) - from;
  const [start, stop] = [leaves[0] ?? 0, (leaves.at(-1) ?? -1) + 1];
  const [first, end, count] = [within(start), within(stop), to - from];
  const unit = addressed === true ? bytesPerLeaf / count : bytesPerLeaf;
  const piece = (offset: number, until: number, own = false): Gathered => {
    return { buffer, offset: offset * unit, bytes: (until - offset) * unit, own };
  };
  const unread = (units: number): Gathered => ({ buffer: undefined, bytes: units * unit, own: false });
  if (addressed !== true) {
    const [near, far] = [within(start - reach), within(stop + reach)];
    return [unread(near), piece(near, first), piece(first, end, true), piece(end, far), unread(count - far)];
  }
  return Array.from({ length: count }, (_, leaf): Gathered[] => {
    const at = leaf * count;
    if (leaf >= first && leaf < end) return [piece(at, at + count, true)];
    return [unread(first), piece(at + first, at + end), unread(count - end)];
  }).flat();
}

/** Brings what a stage or rank of the update has computed to the others that read it; `own` is this one's. */
export function handOver(
  { device, buffers }: { readonly device: Device; readonly buffers: ProgramBuffers },
  handOvers: readonly HandOver[],
  own: number,
  exchange: Gathering,
): Promise<void> {
  const handed = handOvers.map(({ slot, from, bytes }): Gathered => {
    return { buffer: slot === undefined ? undefined : buffers.of(slot, 0), bytes, own: from === own };
  });
  return gather(device, exchange, handed);
}

/** Parameters that several ranks read, listed by the rank that moves them. */
export function movedBy({ ranks, parameters }: UpdateShare, store: StateStore): BufferRange[][] {
  return Array.from({ length: ranks }, (_, rank) =>
    parameters
      .filter(({ owner }) => owner === rank)
      .map(({ name, bytes }) => ({ buffer: store.buffer(name), bytes })),
  );
}

const NOTHING = new Uint8Array();
