/** Sequenced fragments as a track: how many 5′ ends lie on each bp, as BPNet and ChromBPNet count them. */
import { checkPlace, someNames } from './bases.ts';
import { type BedRow, readBed } from './intervals.ts';
import { nameIn } from './prepare/names.ts';
import type { Track } from './track.ts';

/** Which ends count: a fragment's `+` end is its start, its `-` end its last base. */
export type Strand = '+' | '-' | 'both';

export interface FragmentOptions {
  readonly strand?: Strand;
  /** Added to the places of + and of - ends, in bp: ChromBPNet moves ATAC cuts by 4 and -4. */
  readonly shiftBp?: readonly [plus: number, minus: number];
}

/** A file's ends by chromosome, in the order of their places. */
type Ends = ReadonlyMap<string, Int32Array>;

/**
 * The ends of a BED file of fragments (three columns), of reads (six, with a strand: only its own end) or of a BEDPE of
 * pairs (ten: from the lesser start to the greater end), plain or gzipped. Chromosomes are named and as long as in `genome`;
 * those the genome lacks are passed over. Holds 4 bytes for each end.
 *
 * @throws when the file cannot be read, a row is no interval, an end lies outside its chromosome, or no chromosome is known
 */
export async function openFragments(
  path: string,
  genome: ReadonlyMap<string, number>,
  { strand = 'both', shiftBp = [0, 0] }: FragmentOptions = {},
): Promise<Track> {
  const ends = await readEnds(path, genome, strand, shiftBp);
  const chromosomes = new Map([...genome].filter(([name]) => ends.has(name)));
  return {
    path,
    chromosomes,
    read: async (chrom, startBp, endBp) => {
      checkPlace(path, chromosomes, chrom, startBp, endBp);
      const places = ends.get(chrom)!;
      const counts = new Float32Array(endBp - startBp);
      for (let i = firstFrom(places, startBp); i < places.length && places[i]! < endBp; i++)
        counts[places[i]! - startBp]!++;
      return counts;
    },
    close: async () => {},
  };
}

async function readEnds(
  path: string,
  genome: ReadonlyMap<string, number>,
  strand: Strand,
  [plusShift, minusShift]: readonly [number, number],
): Promise<Ends> {
  const found = new Map<string, number[]>();
  const names = new Map<string, string | undefined>();
  for await (const row of readBed(path)) {
    if (!names.has(row.chrom))
      names.set(
        row.chrom,
        nameIn((name) => genome.has(name), row.chrom),
      );
    const chrom = names.get(row.chrom);
    if (chrom === undefined) continue;
    const { first, last, side } = extent(row, path);
    const places = found.get(chrom) ?? [];
    found.set(chrom, places);
    const add = (place: number): void => {
      if (place < 0 || place >= genome.get(chrom)!)
        throw new Error(
          `${path}: line ${row.line}: an end at ${place} of ${row.chrom}, which has ${genome.get(chrom)} bp; is the file of another assembly, or the shift too large?`,
        );
      places.push(place);
    };
    if (strand !== '-' && side !== '-') add(first + plusShift);
    if (strand !== '+' && side !== '+') add(last + minusShift);
  }
  if (found.size === 0)
    throw new Error(
      `${path}: no fragments on the genome's chromosomes: it has ${someNames([...names.keys()])}; the genome has ${someNames([...genome.keys()])}`,
    );
  return new Map([...found].map(([chrom, places]) => [chrom, Int32Array.from(places).sort()]));
}

/** First and last base, and the strand of a single read. */
function extent(
  { chrom, startBp, endBp, rest, line }: BedRow,
  path: string,
): { first: number; last: number; side?: string } {
  if (rest.length >= 3 && /^\d+$/.test(rest[1]!) && /^\d+$/.test(rest[2]!)) {
    if (rest[0] !== chrom)
      throw new Error(
        `${path}: line ${line}: a pair on ${chrom} and ${rest[0]} is no fragment; leave such pairs out`,
      );
    return { first: Math.min(startBp, Number(rest[1])), last: Math.max(endBp, Number(rest[2])) - 1 };
  }
  const side = rest[2]?.trim();
  const whole = { first: startBp, last: endBp - 1 };
  return side === '+' || side === '-' ? { ...whole, side } : whole;
}

/** Index of the first place at or after `startBp`. */
function firstFrom(places: Int32Array, startBp: number): number {
  let [low, high] = [0, places.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (places[middle]! < startBp) low = middle + 1;
    else high = middle;
  }
  return low;
}
