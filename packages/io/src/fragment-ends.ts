/** From a row of a BED file to the ends that count, and what is wrong with it. */
import { someNames } from './bases.ts';
import type { BedRow } from './intervals.ts';

/** Which ends count: a fragment's `+` end is its start, its `-` end its last base. */
export type Strand = '+' | '-' | 'both';

export interface FragmentOptions {
  readonly strand?: Strand;
  /** Added to the places of + and of - ends, in bp: ChromBPNet moves ATAC cuts by 4 and -4. */
  readonly shiftBp?: readonly [plus: number, minus: number];
}

/** Whether a file is read as fragments, told by its name. */
export function isFragments(path: string): boolean {
  return /\.(bed|bedpe|tsv)(\.gz)?$/i.test(path);
}

/** Where the ends of a fragment count. */
export function endsOf(
  row: Omit<BedRow, 'line'>,
  where: string,
  { strand = 'both', shiftBp: [plusShift, minusShift] = [0, 0] }: FragmentOptions,
): number[] {
  const { first, last, side } = extent(row, where);
  const ends: number[] = [];
  if (strand !== '-' && side !== '-') ends.push(first + plusShift);
  if (strand !== '+' && side !== '+') ends.push(last + minusShift);
  return ends;
}

/** First and last base, and the strand of a single read. */
function extent(
  { chrom, startBp, endBp, rest }: Omit<BedRow, 'line'>,
  where: string,
): { first: number; last: number; side?: string } {
  if (rest.length >= 3 && /^\d+$/.test(rest[1]!) && /^\d+$/.test(rest[2]!)) {
    if (rest[0] !== chrom)
      throw new Error(`${where}: a pair on ${chrom} and ${rest[0]} is no fragment; leave such pairs out`);
    return { first: Math.min(startBp, Number(rest[1])), last: Math.max(endBp, Number(rest[2])) - 1 };
  }
  const side = rest[2]?.trim();
  const whole = { first: startBp, last: endBp - 1 };
  return side === '+' || side === '-' ? { ...whole, side } : whole;
}

export function endOutside(where: string, place: number, chrom: string, lengthBp: number): Error {
  return new Error(
    `${where}: an end at ${place} of ${chrom}, which has ${lengthBp} bp; is the file of another assembly, or the shift too large?`,
  );
}

export function noFragments(
  path: string,
  names: readonly string[],
  genome: ReadonlyMap<string, number>,
): Error {
  return new Error(
    `${path}: no fragments on the genome's chromosomes: it has ${someNames(names)}; the genome has ${someNames([...genome.keys()])}`,
  );
}

/** A warning about fragments on chromosomes that the genome lacks, if there are any. */
export function passedOver(path: string, unknown: readonly string[], over: number, all: number): string[] {
  if (unknown.length === 0) return [];
  return [
    `${path}: ${over} of ${all} fragments are on ${unknown.length} chromosomes the genome has not (${someNames(unknown)}); they are passed over`,
  ];
}
