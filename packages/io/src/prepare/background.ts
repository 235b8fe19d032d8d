/** Background for peaks: places that no peak touches, with the same content of G and C, as ChromBPNet trains its bias model on. */
import { mix } from '@cohesin/core';
import { type Genome, readPadded } from '../genome.ts';
import { type Interval, type IntervalSet, within } from '../intervals.ts';
import { type Cores, ListedCores } from './cores.ts';

export interface BackgroundOptions {
  readonly coreBp: number;
  /** Of the sequence beyond its core, at each end: all of it counts for the content of G and C. */
  readonly beyondBp: number;
  /** Places for each peak. */
  readonly ratio: number;
  /** Peaks and whatever else no core may touch. */
  readonly avoid: IntervalSet;
  readonly seed: number;
}

const CHUNK_BP = 2 ** 20;

/** Shares of G and C, in hundredths. */
const PERCENTS = 101;

/**
 * For each peak `ratio` places of its split, drawn from those not yet taken whose share of G and C, to a hundredth, is its own
 * or the nearest there is. Candidates lie every half core; less than a tenth of their sequence is N. Fewer come back where
 * candidates run out.
 *
 * The genome is read twice: candidates are counted, and then those that are due are drawn, so that only these are held.
 */
export async function matchedBackground(
  peaks: Cores,
  splitOf: (chrom: string) => string,
  genome: Genome,
  chromosomes: ReadonlyMap<string, number>,
  options: BackgroundOptions,
): Promise<Cores> {
  const found = new Map<string, Uint32Array>();
  for await (const { split, percent } of candidates(genome, chromosomes, splitOf, options)) {
    const counts = found.get(split) ?? new Uint32Array(PERCENTS);
    found.set(split, counts);
    counts[percent]!++;
  }
  const due = await countDue(peaks, found, genome, options);
  const chosen = new ListedCores(options.coreBp);
  let seen = 0;
  for await (const { chrom, startBp, split, percent } of candidates(genome, chromosomes, splitOf, options)) {
    const [left, wanted] = [found.get(split)!, due.get(split)];
    // Each candidate is as likely as any other of its kind. Knuth, volume 2, algorithm S.
    const isDrawn = (mix(options.seed, seen++) / 2 ** 32) * left[percent]! < (wanted?.[percent] ?? 0);
    left[percent]!--;
    if (!isDrawn) continue;
    wanted![percent]!--;
    chosen.add(chrom, startBp, split);
  }
  return chosen;
}

/** How many candidates of each split and share of G and C are due to the peaks. */
async function countDue(
  peaks: Cores,
  found: ReadonlyMap<string, Uint32Array>,
  genome: Genome,
  { ratio, beyondBp }: BackgroundOptions,
): Promise<Map<string, Uint32Array>> {
  const left = new Map([...found].map(([split, counts]) => [split, counts.slice()]));
  const due = new Map([...found].map(([split]) => [split, new Uint32Array(PERCENTS)]));
  const owed = new Map<string, number>();
  for (const peak of peaks) {
    const percent = await contentOf(genome, peak, beyondBp);
    const all = (owed.get(peak.split) ?? 0) + ratio;
    const whole = Math.floor(all + 1e-9);
    owed.set(peak.split, all - whole);
    for (let i = 0; i < whole; i++) {
      const counts = left.get(peak.split);
      const at = counts && nearest(counts, percent);
      if (at === undefined) break;
      counts![at]!--;
      due.get(peak.split)![at]!++;
    }
  }
  return due;
}

/** The share with candidates left that is nearest, the lower of two. */
function nearest(counts: Uint32Array, percent: number): number | undefined {
  for (let distance = 0; distance < PERCENTS; distance++)
    for (const at of [percent - distance, percent + distance]) if ((counts[at] ?? 0) > 0) return at;
  return undefined;
}

async function contentOf(
  genome: Genome,
  { chrom, startBp, endBp }: Interval,
  beyondBp: number,
): Promise<number> {
  const codes = await readPadded(genome, chrom, startBp - beyondBp, endBp + beyondBp);
  return Math.round((100 * codes.reduce((sum, code) => sum + (isGc(code) ? 1 : 0), 0)) / codes.length);
}

const isGc = (code: number): boolean => code === 1 || code === 2;

interface Candidate {
  readonly chrom: string;
  readonly startBp: number;
  readonly split: string;
  /** Of G and C. */
  readonly percent: number;
}

async function* candidates(
  genome: Genome,
  chromosomes: ReadonlyMap<string, number>,
  splitOf: (chrom: string) => string,
  options: BackgroundOptions,
): AsyncGenerator<Candidate, void, undefined> {
  for (const [chrom, lengthBp] of chromosomes)
    yield* alongChromosome(genome, { chrom, lengthBp, split: splitOf(chrom) }, options);
}

/** Cores along a chromosome that touch nothing to avoid. */
async function* alongChromosome(
  genome: Genome,
  { chrom, lengthBp, split }: { chrom: string; lengthBp: number; split: string },
  { coreBp, beyondBp, avoid }: BackgroundOptions,
): AsyncGenerator<Candidate, void, undefined> {
  const stride = Math.max(1, Math.floor(coreBp / 2));
  const whole = coreBp + 2 * beyondBp;
  for (let from = beyondBp; from + coreBp + beyondBp <= lengthBp; ) {
    const until = Math.min(lengthBp, from - beyondBp + Math.max(CHUNK_BP, whole));
    const sums = runningSums(await readPadded(genome, chrom, from - beyondBp, until));
    const origin = from - beyondBp;
    for (; from + coreBp + beyondBp <= until; from += stride) {
      const [first, last] = [from - beyondBp - origin, from + coreBp + beyondBp - origin];
      const unknown = sums.unknown[last]! - sums.unknown[first]!;
      if (10 * unknown >= whole || within(avoid, { chrom, startBp: from, endBp: from + coreBp }).length > 0)
        continue;
      const percent = Math.round((100 * (sums.gc[last]! - sums.gc[first]!)) / whole);
      yield { chrom, startBp: from, split, percent };
    }
  }
}

/** How many G and C, and how many N, come before each base. */
function runningSums(codes: Uint8Array): Readonly<Record<'gc' | 'unknown', Uint32Array>> {
  const [gc, unknown] = [new Uint32Array(codes.length + 1), new Uint32Array(codes.length + 1)];
  for (const [i, code] of codes.entries()) {
    gc[i + 1] = gc[i]! + (isGc(code) ? 1 : 0);
    unknown[i + 1] = unknown[i]! + (code > 3 ? 1 : 0);
  }
  return { gc, unknown };
}
