/** Predictions averaged over shifts and reverse complement, as basenji's EnsembleShift and EnsembleReverseComplement. */
import { reverseTriangle } from '@cohesin/core';
import type { Ensemble, ModelConfig } from '@cohesin/models';
import type { TargetView } from './batch.ts';

/** One way to read a sequence: first shifted, then, where `reverse`, reverse-complemented. */
export interface Variant {
  readonly reverse: boolean;
  /** To the right. */
  readonly shiftBp: number;
}

/** Each shift forward and, where asked for, in reverse. */
export function variantsOf({ reverseComplement, shiftsBp }: Ensemble): readonly Variant[] {
  const strands = reverseComplement ? [false, true] : [false];
  return shiftsBp.flatMap((shiftBp) => strands.map((reverse) => ({ reverse, shiftBp })));
}

const UNKNOWN = 4; // N

/** codes [batch, lengthBp] → the same so read, N where nothing moved in: what `augmentSequence` does on the device. */
export function readAs({ reverse, shiftBp }: Variant, codes: Uint8Array, lengthBp: number): Uint8Array {
  return codes.map((_, i) => {
    const row = i % lengthBp;
    const source = (reverse ? lengthBp - 1 - row : row) - shiftBp;
    if (source < 0 || source >= lengthBp) return UNKNOWN;
    const code = codes[i - row + source]!;
    return reverse && code < UNKNOWN ? UNKNOWN - 1 - code : code; // A pairs with T, C with G
  });
}

/** For each row and track of one sequence's prediction, where it is in that of the reverse complement. */
export type Turn = (row: number, track: number) => number;

/** How predictions turn back: bins reversed and tracks swapped with their strand pair; a triangle with its map. */
export function turnOf(
  { targetLength, triangle }: Pick<ModelConfig, 'targetLength' | 'triangle'>,
  { tracks, strandPair }: Pick<TargetView, 'tracks' | 'strandPair'>,
): Turn {
  if (triangle === undefined) return (row, track) => (targetLength - 1 - row) * tracks + strandPair[track]!;
  const order = reverseTriangle(triangle.length, triangle);
  return (row, track) => order[row]! * tracks + track;
}

/**
 * The mean, added up in float64 in the order of `variants`, of predictions [batch, rows, tracks] of codes
 * [batch, lengthBp] so read; those of reverse complements are turned back.
 */
export async function averaged(
  predict: (codes: Uint8Array) => Promise<Float32Array>,
  variants: readonly Variant[],
  { codes, lengthBp, tracks, turn }: { codes: Uint8Array; lengthBp: number; tracks: number; turn: Turn },
): Promise<Float32Array> {
  const [first] = variants;
  if (variants.length === 1 && !first!.reverse) return predict(readAs(first!, codes, lengthBp));
  const batch = codes.length / lengthBp;
  let totals = new Float64Array();
  for (const variant of variants) {
    const prediction = await predict(readAs(variant, codes, lengthBp));
    const size = prediction.length / batch;
    if (totals.length === 0) totals = new Float64Array(prediction.length);
    for (let start = 0; start < prediction.length; start += size)
      for (let row = 0, i = 0; i < size; row++)
        for (let track = 0; track < tracks; track++, i++)
          totals[start + i]! += prediction[start + (variant.reverse ? turn(row, track) : i)]!;
  }
  return Float32Array.from(totals, (total) => total / variants.length);
}
