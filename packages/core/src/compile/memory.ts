import { Parameter } from '../parameter.ts';
import { copiesOf, type Slot, type SlotScope } from '../program.ts';
import type { Sharded } from './layout.ts';
import { type Range, type Storage, sourcesOf, touched } from './lives.ts';
import type { Stages } from './split.ts';
import { stored } from './stored.ts';

/** A piece of storage and the positions in program order at which it is first written and last read. */
export interface Live {
  readonly bytes: number;
  readonly scope: SlotScope;
  readonly label: string;
  readonly first: number;
  readonly last: number;
  /** Whether it is copied, cleared or read as a whole buffer, which it then has for itself as long as it lives. */
  readonly alone: boolean;
  /** What a dispatch binds with it, one of them for writing. WebGPU refuses that even for two ranges of one buffer. */
  readonly apart: Set<Live>;
}

/** Pieces of storage as slots have to hold them. */
export function pieces(
  ranges: ReadonlyMap<Storage, Range>,
  { sharded, stages, bytes }: { sharded: Sharded; stages: Stages; bytes: (x: Storage) => number },
): ReadonlyMap<Storage, Live> {
  const alone = wholeBuffers(sharded, stages);
  const lives = new Map<Storage, Live>();
  for (const [x, range] of ranges) {
    const isAlone = typeof x === 'string' || alone.has(x);
    lives.set(x, { bytes: bytes(x), label: labelOf(x), ...lifeOf(range), alone: isAlone, apart: new Set() });
  }
  for (const work of stages.stages.flatMap(({ once, leaf }) => [...once, ...leaf])) {
    const [reads, writes] = touched(work);
    if (writes === undefined) continue;
    const written = lives.get(writes)!;
    for (const x of reads) {
      lives.get(x)!.apart.add(written);
      written.apart.add(lives.get(x)!);
    }
  }
  return lives;
}

/** A range as slots see it: state lives for ever. */
export function lifeOf({ scope, first, last }: Range): Pick<Live, 'scope' | 'first' | 'last'> {
  return poolOf(scope) === 'state'
    ? { scope, first: 0, last: Number.POSITIVE_INFINITY }
    : { scope, first, last };
}

/** What is not only bound to kernels: inputs and outputs, what is gathered, and what from. */
function wholeBuffers({ graph }: Sharded, all: Stages): Set<Storage> {
  const { stages } = all;
  const exchanges = stages.flatMap(({ gather, keep }) => [...gather, ...keep]);
  const gathered = exchanges.flatMap((node) => [node, stored(node.inputs.x!)]);
  const handed = stages.flatMap(({ receive = [], send = [], handOver = [] }) => [
    ...receive,
    ...send,
    ...handOver,
  ]);
  const outputs = Object.values(graph.outputs).map(stored);
  return new Set<Storage>([...gathered, ...handed, ...outputs, ...sourcesOf(graph, all)]);
}

function labelOf(x: Storage): string {
  if (typeof x === 'string') return x;
  if ('of' in x) return `${x.of} partials`;
  return x instanceof Parameter ? x.name : String(x);
}

/** Slots are shared within a pool: buffers of the device, of each leaf, sequence or part, and state, where nothing is shared. */
function poolOf(scope: SlotScope): 'device' | 'leaf' | 'sequence' | 'part' | 'state' {
  if (scope === 'leaf' || scope === 'sequence' || scope === 'part') return scope;
  return scope === 'state' || scope === 'next' ? 'state' : 'device';
}

/** Where a piece is kept: from `offset` on in a slot. */
export interface Place {
  readonly slot: number;
  readonly offset: number;
}

interface Used {
  readonly slot: Slot;
  readonly held: { readonly live: Live; readonly offset: number }[];
}

const ALIGNMENT = 256; // WebGPU's default for the offset of a binding

/**
 * Assigns places to pieces of storage, the largest first: each takes the smallest gap that is free all its life, or
 * else a new slot of its own size (greedy by size, Pisarchyk & Lee 2020, "Efficient Memory Management for Deep Neural
 * Net Inference", within buffers instead of one arena, because of `apart`).
 */
export function assignSlots(lives: readonly Live[]): { slots: Slot[]; places: Place[] } {
  const used: Used[] = [];
  const places: Place[] = Array(lives.length);
  const bySize = lives
    .map((live, i) => ({ live, i }))
    .sort((a, b) => b.live.bytes - a.live.bytes || a.i - b.i);
  for (const { live, i } of bySize) {
    let best: { place: Place; gap: number } | undefined;
    for (const [slot, candidate] of used.entries()) {
      const found = smallestGap(candidate, live);
      if (found !== undefined && (best === undefined || found.gap < best.gap))
        best = { place: { slot, offset: found.offset }, gap: found.gap };
    }
    const { bytes, scope, label } = live;
    const place = best?.place ?? {
      slot: used.push({ slot: { bytes, scope, label }, held: [] }) - 1,
      offset: 0,
    };
    used[place.slot]!.held.push({ live, offset: place.offset });
    places[i] = place;
  }
  return { slots: used.map(({ slot }) => slot), places };
}

/** The smallest free range of a slot that holds a piece all its life. */
function smallestGap({ slot, held }: Used, live: Live): { offset: number; gap: number } | undefined {
  if (poolOf(slot.scope) !== poolOf(live.scope) || held[0]!.live.alone !== live.alone) return undefined;
  const beside = held.filter((other) => other.live.first <= live.last && live.first <= other.live.last);
  if (beside.length > 0 && (live.alone || beside.some((other) => live.apart.has(other.live))))
    return undefined;
  let best: { offset: number; gap: number } | undefined;
  let from = 0;
  const end = { offset: slot.bytes, live: { bytes: 0 } };
  for (const { offset, live: other } of [...beside.sort((a, b) => a.offset - b.offset), end]) {
    const gap = offset - from;
    if (gap >= live.bytes && (best === undefined || gap < best.gap)) best = { offset: from, gap };
    from = Math.max(from, Math.ceil((offset + other.bytes) / ALIGNMENT) * ALIGNMENT);
  }
  return best;
}

/** Bytes in use at each position of the program: no assignment of slots can do with less than the largest. */
export function liveBytes(
  lives: Iterable<Pick<Live, 'bytes' | 'scope' | 'first' | 'last'>>,
  leavesOnDevice: number,
  sequencesOnDevice?: number,
): number[] {
  const changes: number[] = [];
  for (const { bytes, scope, first, last } of lives) {
    const size = bytes * copiesOf(scope, leavesOnDevice, sequencesOnDevice);
    changes[first] = (changes[first] ?? 0) + size;
    if (Number.isFinite(last)) changes[last + 1] = (changes[last + 1] ?? 0) - size;
  }
  let total = 0;
  return Array.from(changes, (change) => {
    total += change ?? 0;
    return total;
  });
}

/** Bytes of slots on a device that works on `leavesOnDevice` leaves. */
export function slotBytes(
  slots: readonly Slot[],
  leavesOnDevice: number,
  sequencesOnDevice?: number,
): number {
  return slots.reduce(
    (total, { bytes, scope }) => total + bytes * copiesOf(scope, leavesOnDevice, sequencesOnDevice),
    0,
  );
}
