import { Parameter } from '../parameter.ts';
import type { Slot, SlotScope } from '../program.ts';
import type { Range, Storage } from './lives.ts';

/** A piece of storage and the positions in program order at which it is first written and last read. */
export interface Live {
  readonly bytes: number;
  readonly scope: SlotScope;
  readonly label: string;
  readonly first: number;
  readonly last: number;
}

/** Pieces of storage as slots have to hold them: state lives for ever. */
export function pieces(
  ranges: ReadonlyMap<Storage, Range>,
  bytes: (x: Storage) => number,
): ReadonlyMap<Storage, Live> {
  return new Map(
    [...ranges].map(([x, { scope, first, last }]) => [
      x,
      {
        bytes: bytes(x),
        scope,
        label: labelOf(x),
        first,
        last: poolOf(scope) === 'state' ? Number.POSITIVE_INFINITY : last,
      },
    ]),
  );
}

function labelOf(x: Storage): string {
  if (typeof x === 'string') return x;
  if ('of' in x) return `${x.of} partials`;
  return x instanceof Parameter ? x.name : String(x);
}

/** Slots are shared within a pool: buffers of the device, buffers of each leaf, and state, where nothing is shared. */
function poolOf(scope: SlotScope): 'device' | 'leaf' | 'state' {
  if (scope === 'leaf') return 'leaf';
  return scope === 'state' || scope === 'next' ? 'state' : 'device';
}

/**
 * Assigns slots to pieces of storage, the largest first: each takes the smallest slot of its pool that is free all its
 * life. A slot is as large as the piece it was made for (Pisarchyk & Lee 2020, "Efficient Memory Management for Deep
 * Neural Net Inference", greedy by size).
 */
export function assignSlots(lives: readonly Live[]): { slots: Slot[]; slotOf: number[] } {
  const slots: { slot: Slot; held: Live[] }[] = [];
  const slotOf: number[] = Array(lives.length);
  const bySize = lives
    .map((live, i) => ({ live, i }))
    .sort((a, b) => b.live.bytes - a.live.bytes || a.i - b.i);
  for (const { live, i } of bySize) {
    let found = -1;
    for (const [k, { slot, held }] of slots.entries()) {
      if (poolOf(slot.scope) !== poolOf(live.scope)) continue;
      if (held.every(({ first, last }) => last < live.first || live.last < first)) found = k; // the last is smallest
    }
    if (found < 0) {
      const { bytes, scope, label } = live;
      found = slots.push({ slot: { bytes, scope, label }, held: [] }) - 1;
    }
    slots[found]!.held.push(live);
    slotOf[i] = found;
  }
  return { slots: slots.map(({ slot }) => slot), slotOf };
}

/** Bytes in use at each position of the program: no assignment of slots can do with less than the largest. */
export function liveBytes(lives: Iterable<Live>, leavesOnDevice: number): number[] {
  const changes: number[] = [];
  for (const { bytes, scope, first, last } of lives) {
    const size = scope === 'leaf' ? bytes * leavesOnDevice : bytes;
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
export function slotBytes(slots: readonly Slot[], leavesOnDevice: number): number {
  return slots.reduce(
    (total, { bytes, scope }) => total + (scope === 'leaf' ? bytes * leavesOnDevice : bytes),
    0,
  );
}
