import type { ProgramBuffers } from './buffers.ts';
import type { Device } from './device.ts';
import type { Gathering, GatherPart } from './exchange.ts';
import type { Combine, HandOver } from './program.ts';

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

/** Leaves of a sequence that a rank has, and a set of its buffers. */
interface Own {
  readonly leaves: readonly number[];
  readonly set: number;
}

/** Makes the pieces of all leaves of some sequences known on every rank that works on some of each. */
export async function gatherLeaves(
  { device, buffers }: { readonly device: Device; readonly buffers: ProgramBuffers },
  gathered: readonly Combine[],
  sequences: readonly Own[],
  exchange: Gathering,
): Promise<void> {
  if (gathered.length === 0 || !exchange.remote) return;
  const ranges = sequences.flatMap(({ leaves, set }) =>
    gathered.map(({ slot, bytesPerLeaf, parts: [from, to] }) => {
      const own = leaves.filter((leaf) => leaf >= from && leaf < to).length;
      const offset = (Math.min(Math.max(leaves[0] ?? 0, from), to) - from) * bytesPerLeaf;
      return {
        buffer: buffers.of(slot, set),
        offset,
        bytes: own * bytesPerLeaf,
        all: (to - from) * bytesPerLeaf,
      };
    }),
  );
  const read = await device.read(ranges);
  const pieces = ranges.map(({ offset, all }, i): GatherPart => ({ own: read[i]!, offset, bytes: all }));
  const all = await exchange.combine(pieces);
  for (const [i, bytes] of all.entries()) device.write(ranges[i]!.buffer, 0, bytes);
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

const NOTHING = new Uint8Array();
