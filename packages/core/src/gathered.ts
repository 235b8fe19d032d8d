import type { Device } from './device.ts';
import type { Gathering, GatherPart } from './exchange.ts';

/** A tensor, or a piece of one, that one rank computed and others need. */
export interface Gathered {
  /** Undefined on a rank that neither computed nor needs it. */
  readonly buffer: GPUBuffer | undefined;
  readonly offset?: number;
  readonly bytes: number;
  /** Whether this rank gives it. */
  readonly own: boolean;
}

/** Brings what each rank gives to those that have a buffer for it. All ranks call it with equal lists but for `own`. */
export async function gather(device: Device, exchange: Gathering, all: readonly Gathered[]): Promise<void> {
  if (all.length === 0 || !exchange.remote) return;
  const given = all.filter(({ own }) => own);
  const read = await device.read(
    given.map(({ buffer, offset = 0, bytes }) => ({ buffer: buffer!, offset, bytes })),
  );
  const parts = all.map(({ own, bytes }): GatherPart => {
    return { own: own ? read.shift()! : NOTHING, offset: 0, bytes };
  });
  const values = await exchange.combine(parts);
  for (const [i, { buffer, offset = 0, own }] of all.entries())
    if (buffer !== undefined && !own) device.write(buffer, offset, values[i]!);
}

const NOTHING = new Uint8Array();
