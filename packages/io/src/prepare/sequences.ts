/** Sequences cut from contigs, or read from a `sequences.bed`; and which of their bins cannot be mapped to. */
import { type Interval, type IntervalSet, readBed, within } from '../intervals.ts';
import { type SplitContig, splitRank } from './contigs.ts';
import { nameIn } from './names.ts';

/** The place of a sequence's targets: the sequence itself extends `cropBp` beyond at both ends. */
export interface Core extends Interval {
  readonly split: string;
}

export interface StrideOptions {
  readonly coreBp: number;
  /** Between the starts of sequences, in bp, by split. */
  readonly strideBp: (split: string) => number;
  /** Starts are multiples of it, in bp. */
  readonly snapBp: number;
}

/** Sequences along each contig, as many as fit. */
export function cutSequences(contigs: readonly SplitContig[], options: StrideOptions): Core[] {
  const { coreBp, strideBp, snapBp } = options;
  return contigs.flatMap(({ chrom, startBp, endBp, split }) => {
    const cores: Core[] = [];
    const stride = strideBp(split);
    for (let start = Math.ceil(startBp / snapBp) * snapBp; start + coreBp <= endBp; start += stride) {
      cores.push({ chrom, startBp: start, endBp: start + coreBp, split });
    }
    return cores;
  });
}

/**
 * The sequences of a `sequences.bed` (chromosome, start, end, split), in its order within each split: cores of `coreBp`,
 * centred on the intervals whatever their length. Published files hold whole sequences or cores, and Enformer's are
 * shorter than its input.
 *
 * @throws when a row has no split or its length differs from `coreBp` by an odd number
 */
export async function importSequences(path: string, coreBp: number): Promise<Core[]> {
  const cores: Core[] = [];
  for await (const { chrom, startBp, endBp, rest, line } of readBed(path)) {
    const split = rest[0]?.trim();
    if (!split || !/^[\w.-]+$/.test(split))
      throw new Error(`${path}: line ${line}: the fourth column should name a split, such as train`);
    const margin = (endBp - startBp - coreBp) / 2;
    if (!Number.isInteger(margin)) {
      throw new Error(
        `${path}: line ${line}: ${endBp - startBp} bp and the ${coreBp} bp with targets differ by an odd number; they cannot have one centre`,
      );
    }
    cores.push({ chrom, startBp: startBp + margin, endBp: endBp - margin, split });
  }
  return cores.toSorted((a, b) => splitRank(a.split) - splitRank(b.split));
}

const SUMMIT_COLUMN = 6; // of those after the third: narrowPeak's tenth, -1 where there is none

/**
 * Cores of `coreBp` around the summits, or the middles, of a BED file's rows under the genome's names, each once; and the rows
 * themselves.
 */
export async function centreOnPeaks(
  path: string,
  coreBp: number,
  genome: ReadonlyMap<string, number>,
): Promise<{
  readonly cores: readonly Interval[];
  readonly rows: readonly Interval[];
  readonly unknown: number;
  readonly outside: number;
}> {
  const cores = new Map<string, Interval>();
  const rows: Interval[] = [];
  let [unknown, outside] = [0, 0];
  for await (const { chrom: written, startBp, endBp, rest } of readBed(path)) {
    const chrom = nameIn((name) => genome.has(name), written);
    if (chrom === undefined) {
      unknown++;
      continue;
    }
    rows.push({ chrom, startBp, endBp });
    const summit = Number(rest[SUMMIT_COLUMN] ?? -1);
    const centre = summit >= 0 ? startBp + summit : Math.floor((startBp + endBp) / 2);
    const start = centre - Math.floor(coreBp / 2);
    if (start < 0 || start + coreBp > genome.get(chrom)!) outside++;
    else cores.set(`${chrom} ${start}`, { chrom, startBp: start, endBp: start + coreBp });
  }
  return { cores: [...cores.values()], rows, unknown, outside };
}

/** An edge of an unmappable stretch in less than this share of a bin does not count. basenji_data.py */
const LEAST_OVERLAP = 0.1;

/** 1 for each bin of a sequence that cannot be mapped to. `[core / poolWidthBp]` */
export function unmappableBins(core: Core, unmappable: IntervalSet, poolWidthBp: number): Uint8Array {
  const bins = new Uint8Array((core.endBp - core.startBp) / poolWidthBp);
  for (const [start, end] of within(unmappable, core)) {
    let first = Math.floor((start - core.startBp) / poolWidthBp);
    let last = Math.ceil((end - core.startBp) / poolWidthBp);
    const inFirst = core.startBp + (first + 1) * poolWidthBp - start;
    const inLast = end - core.startBp - (last - 1) * poolWidthBp;
    if (inFirst < LEAST_OVERLAP * poolWidthBp) first++;
    if (inLast < LEAST_OVERLAP * poolWidthBp) last--;
    if (first < last) bins.fill(1, first, last);
  }
  return bins;
}

/** How many pairs of sequences of different splits overlap, and the first pair. */
export function splitOverlaps(cores: readonly Core[]): { pairs: number; first?: readonly [Core, Core] } {
  const ordered = cores.toSorted((a, b) =>
    a.chrom < b.chrom ? -1 : a.chrom > b.chrom ? 1 : a.startBp - b.startBp,
  );
  let pairs = 0;
  let first: readonly [Core, Core] | undefined;
  let open: Core[] = [];
  for (const core of ordered) {
    open = open.filter(({ chrom, endBp }) => chrom === core.chrom && endBp > core.startBp);
    for (const other of open) {
      if (other.split === core.split) continue;
      pairs++;
      first ??= [other, core];
    }
    open.push(core);
  }
  return first ? { pairs, first } : { pairs };
}
