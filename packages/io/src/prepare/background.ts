/** Background for peaks: places that no peak touches, with the same content of G and C, as ChromBPNet trains its bias model on. */
import { mix } from '@cohesin/core';
import { type Genome, readPadded } from '../genome.ts';
import { type Interval, type IntervalSet, within } from '../intervals.ts';
import type { Core } from './sequences.ts';

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

const CHUNK_BP = 2 ** 22;

/**
 * For each peak `ratio` places of its split, drawn from those not yet taken whose share of G and C, to a hundredth, is its own
 * or the nearest there is. Candidates lie every half core; less than a tenth of
 * their sequence is N. Fewer come back where candidates run out.
 */
export async function matchedBackground(
  peaks: readonly Core[],
  splitOf: (chrom: string) => string,
  genome: Genome,
  chromosomes: ReadonlyMap<string, number>,
  options: BackgroundOptions,
): Promise<readonly Core[]> {
  const { ratio, seed } = options;
  const bySplit = new Map<string, Core[][]>();
  for (const [chrom, lengthBp] of chromosomes) {
    const split = splitOf(chrom);
    const buckets = bySplit.get(split) ?? Array.from({ length: 101 }, () => []);
    bySplit.set(split, buckets);
    for await (const { place, percent } of candidates(genome, chrom, lengthBp, options))
      buckets[percent]!.push({ ...place, split });
  }
  const chosen: Core[] = [];
  const wanted = new Map<string, number>();
  for (const peak of peaks) {
    const percent = await contentOf(genome, peak, options.beyondBp);
    const due = (wanted.get(peak.split) ?? 0) + ratio;
    const whole = Math.floor(due + 1e-9);
    wanted.set(peak.split, due - whole);
    for (let i = 0; i < whole; i++) {
      const bucket = nearest(bySplit.get(peak.split) ?? [], percent);
      if (bucket === undefined) break;
      const [last, draw] = [bucket.length - 1, mix(seed, chosen.length) % bucket.length];
      [bucket[draw], bucket[last]] = [bucket[last]!, bucket[draw]!];
      chosen.push(bucket.pop()!);
    }
  }
  return chosen;
}

/** The bucket with places left whose share is nearest, the lower of two. */
function nearest(buckets: readonly Core[][], percent: number): Core[] | undefined {
  for (let distance = 0; distance <= 100; distance++)
    for (const at of [percent - distance, percent + distance])
      if ((buckets[at]?.length ?? 0) > 0) return buckets[at];
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

/** Cores along a chromosome that touch nothing to avoid, with their percentage of G and C. */
async function* candidates(
  genome: Genome,
  chrom: string,
  lengthBp: number,
  { coreBp, beyondBp, avoid }: BackgroundOptions,
): AsyncGenerator<{ place: Interval; percent: number }> {
  const stride = Math.max(1, Math.floor(coreBp / 2));
  const whole = coreBp + 2 * beyondBp;
  for (let from = beyondBp; from + coreBp + beyondBp <= lengthBp; ) {
    const until = Math.min(lengthBp, from - beyondBp + Math.max(CHUNK_BP, whole));
    const sums = runningSums(await readPadded(genome, chrom, from - beyondBp, until));
    const origin = from - beyondBp;
    for (; from + coreBp + beyondBp <= until; from += stride) {
      const place = { chrom, startBp: from, endBp: from + coreBp };
      const [first, last] = [from - beyondBp - origin, from + coreBp + beyondBp - origin];
      const unknown = sums.unknown[last]! - sums.unknown[first]!;
      if (10 * unknown >= whole || within(avoid, place).length > 0) continue;
      yield { place, percent: Math.round((100 * (sums.gc[last]! - sums.gc[first]!)) / whole) };
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
