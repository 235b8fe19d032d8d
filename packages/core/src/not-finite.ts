import type { Step } from './program.ts';
import { isHalf, type Visit } from './visit.ts';

/** A step in which a gradient or the loss is NaN or infinite. The state is as before the step. */
export class NotFiniteError extends Error {
  readonly tensor: string;
  /** Where a computation of this device first went wrong; undefined when none did. */
  readonly place: Place | undefined;

  constructor(message: string, tensor: string, place?: Place) {
    super(message);
    this.name = 'NotFiniteError';
    this.tensor = tensor;
    this.place = place;
  }
}

/** Somewhere in a run: the earlier comes first. What leaves share counts as their first leaf's. */
export type Place = readonly [round: number, segment: number, leaf: number];

/** Negative where the first of two places is earlier. */
export function comparePlaces(a: Place, b: Place): number {
  const differing = a.findIndex((value, i) => value !== b[i]);
  return differing < 0 ? 0 : a[differing]! - b[differing]!;
}

/** A step that wrote what is not finite. */
export interface Found {
  readonly step: Step;
  readonly place: Place;
}

/** The earliest kernel of a run that writes what is not finite. */
export async function findNotFinite(run: (visit: Visit) => Promise<void>): Promise<Found | undefined> {
  let found: Found | undefined;
  await run(async ({ step, place, read }) => {
    if (found !== undefined && comparePlaces(found.place, place) <= 0) return;
    const written = await read();
    if (written !== undefined && !allFinite(written, isHalf(step))) found = { step, place };
  });
  return found;
}

/** Whether all values of a tensor, f32 or `half` f16, are finite. */
function allFinite({ buffer }: Uint8Array, half: boolean): boolean {
  return half
    ? new Uint16Array(buffer).every((bits) => (bits & 0x7c00) !== 0x7c00) // exponent all ones: infinite or NaN
    : new Float32Array(buffer).every(Number.isFinite);
}
