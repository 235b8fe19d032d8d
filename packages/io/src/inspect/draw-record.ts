import type { Dataset } from '../shard-set.ts';
import type { Notes } from './inspection.ts';

const SHOWN_TRACKS = 6;

type Drawn = Pick<
  Dataset,
  'sequenceLengthBp' | 'targetLength' | 'numTargets' | 'cropBp' | 'poolWidthBp' | 'diagonalOffset' | 'targets'
>;

/** A record as pictures: GC and tracks by bin, or the contact maps that its upper triangles are of. */
export function drawRecord(
  set: Drawn,
  { sequence, values }: { readonly sequence: Uint8Array; readonly values: Float32Array },
  notes: Notes,
): void {
  const { targetLength, numTargets, diagonalOffset, targets } = set;
  const shown = Array.from({ length: Math.min(SHOWN_TRACKS, numTargets) }, (_, track) => ({
    name: targets[track]?.identifier ?? `track ${track}`,
    own: Array.from({ length: targetLength }, (_, i) => values[i * numTargets + track]!),
  }));
  if (diagonalOffset === undefined) {
    notes.curves.push({ name: 'GC', values: gcByBin(set, sequence) });
    for (const { name, own } of shown) notes.curves.push({ name, values: own });
  } else {
    const side = (set.sequenceLengthBp - 2 * set.cropBp) / set.poolWidthBp;
    for (const { name, own } of shown)
      notes.maps.push({ name, side, values: fromTriangle(own, side, diagonalOffset) });
  }
}

/** Share of G and C of the bases in each bin. */
function gcByBin({ targetLength, cropBp, poolWidthBp }: Drawn, sequence: Uint8Array): number[] {
  return Array.from({ length: targetLength }, (_, bin) => {
    const codes = sequence.subarray(cropBp + bin * poolWidthBp, cropBp + (bin + 1) * poolWidthBp);
    const known = codes.filter((code) => code < 4);
    return known.filter((code) => code === 1 || code === 2).length / (known.length || 1);
  });
}

function fromTriangle(values: readonly number[], side: number, diagonalOffset: number): Float64Array {
  const map = new Float64Array(side * side).fill(Number.NaN);
  let at = 0;
  for (let row = 0; row < side; row++)
    for (let column = row + diagonalOffset; column < side; column++)
      map[row * side + column] = map[column * side + row] = values[at++]!;
  return map;
}

/** Codes as letters. */
export function letters(codes: Uint8Array): string {
  return Array.from(codes, (code) => 'ACGTN'[code] ?? '?').join('');
}
