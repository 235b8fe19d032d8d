import type { Slot, SlotScope } from '../program.ts';

/** A piece of storage and the positions in program order at which it is first written and last read. */
export interface Live {
  readonly bytes: number;
  readonly scope: SlotScope;
  readonly label: string;
  readonly first: number;
  readonly last: number;
}

/**
 * Assigns slots to pieces that come in order of first use. A piece takes the smallest free slot of its scope that holds
 * it, or else grows the largest free one: nothing is allocated yet.
 */
export function assignSlots(pieces: readonly Live[]): { slots: Slot[]; slotOf: number[] } {
  const slots: { bytes: number; scope: SlotScope; label: string; busyTo: number }[] = [];
  const slotOf = pieces.map((piece) => {
    const free = slots.filter(({ scope, busyTo }) => scope === piece.scope && busyTo < piece.first);
    const bySize = free.sort((a, b) => a.bytes - b.bytes);
    const slot = bySize.find(({ bytes }) => bytes >= piece.bytes) ?? bySize.at(-1);
    if (slot === undefined)
      return (
        slots.push({ bytes: piece.bytes, scope: piece.scope, label: piece.label, busyTo: piece.last }) - 1
      );
    if (piece.bytes > slot.bytes) Object.assign(slot, { bytes: piece.bytes, label: piece.label });
    slot.busyTo = piece.last;
    return slots.indexOf(slot);
  });
  return { slots: slots.map(({ bytes, scope, label }) => ({ bytes, scope, label })), slotOf };
}
