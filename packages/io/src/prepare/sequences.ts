/** Sequences read from a `sequences.bed` or centred on peaks; and which of their bins cannot be mapped to. */
import { type Interval, type IntervalSet, readBed, Union, within } from '../intervals.ts';
import { type Cores, ListedCores, uniqueCores } from './cores.ts';
import { nameIn } from './names.ts';

/**
 * The sequences of a `sequences.bed` (chromosome, start, end, split), in its order: cores of `coreBp`,
 * centred on the intervals whatever their length. Published files hold whole sequences or cores, and Enformer's are
 * shorter than its input. Chromosomes get the genome's names, where it has them; `names` says which.
 *
 * @throws when a row has no split or its length differs from `coreBp` by an odd number
 */
export async function importSequences(
  path: string,
  coreBp: number,
  genome: ReadonlyMap<string, number>,
): Promise<{ readonly cores: Cores; readonly names: ReadonlyMap<string, string> }> {
  const cores = new ListedCores(coreBp);
  const names = new Map<string, string>();
  for await (const { chrom, startBp, endBp, rest, line } of readBed(path)) {
    if (!names.has(chrom)) names.set(chrom, nameIn((name) => genome.has(name), chrom) ?? chrom);
    const split = rest[0]?.trim();
    if (!split || !/^[\w.-]+$/.test(split))
      throw new Error(`${path}: line ${line}: the fourth column should name a split, such as train`);
    const margin = (endBp - startBp - coreBp) / 2;
    if (!Number.isInteger(margin)) {
      throw new Error(
        `${path}: line ${line}: ${endBp - startBp} bp and the ${coreBp} bp with targets differ by an odd number; they cannot have one centre`,
      );
    }
    cores.add(names.get(chrom)!, startBp + margin, split);
  }
  return { cores, names };
}

const SUMMIT_COLUMN = 6; // of those after the third: narrowPeak's tenth, -1 where there is none

export interface PeakCores {
  /** Each once, in the order of the file. */
  readonly cores: Cores;
  /** What the rows cover. */
  readonly covered: Union;
  /** The genome's names by the file's. */
  readonly names: ReadonlyMap<string, string>;
  /** Rows on other chromosomes. */
  readonly unknown: number;
  /** Rows too near to an end of their chromosome. */
  readonly outside: number;
}

/** Cores of `coreBp` around the summits, or the middles, of a BED file's rows under the genome's names. */
export async function centreOnPeaks(
  path: string,
  coreBp: number,
  genome: ReadonlyMap<string, number>,
  splitOf: (chrom: string) => string,
): Promise<PeakCores> {
  const cores = new ListedCores(coreBp);
  const covered = new Union();
  const names = new Map<string, string>();
  let [unknown, outside] = [0, 0];
  for await (const { chrom: written, startBp, endBp, rest } of readBed(path)) {
    const chrom = names.get(written) ?? nameIn((name) => genome.has(name), written);
    if (chrom === undefined) {
      unknown++;
      continue;
    }
    names.set(written, chrom);
    covered.add({ chrom, startBp, endBp });
    const summit = Number(rest[SUMMIT_COLUMN] ?? -1);
    const centre = summit >= 0 ? startBp + summit : Math.floor((startBp + endBp) / 2);
    const start = centre - Math.floor(coreBp / 2);
    if (start < 0 || start + coreBp > genome.get(chrom)!) outside++;
    else cores.add(chrom, start, splitOf(chrom));
  }
  return { cores: uniqueCores(cores), covered, names, unknown, outside };
}

/** An edge of an unmappable stretch in less than this share of a bin does not count. basenji_data.py */
const LEAST_OVERLAP = 0.1;

/** 1 for each bin of a sequence that cannot be mapped to. `[core / poolWidthBp]` */
export function unmappableBins(core: Interval, unmappable: IntervalSet, poolWidthBp: number): Uint8Array {
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
