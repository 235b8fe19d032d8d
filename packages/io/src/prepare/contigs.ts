/** Stretches of genome to cut sequences from, and their division into splits: steps 1 to 7 of basenji_data.py. */
import { type Interval, type IntervalSet, within, without } from '../intervals.ts';

/** A stretch that belongs to one split. */
export interface SplitContig extends Interval {
  readonly split: string;
}

export interface ContigOptions {
  /** Shorter ones are dropped, in bp. */
  readonly leastBp: number;
  /** Longer ones are halved until none is, in bp. */
  readonly breakAboveBp: number;
  readonly gaps?: IntervalSet;
  /** Only what these cover. */
  readonly limit?: IntervalSet;
}

/** The chromosomes without gaps, in pieces. */
export function findContigs(
  chromosomes: ReadonlyMap<string, number>,
  { leastBp, breakAboveBp, gaps = new Map(), limit }: ContigOptions,
): Interval[] {
  return [...chromosomes]
    .flatMap(([chrom, endBp]) => pieces(chrom, without(gaps, { chrom, startBp: 0, endBp })))
    .flatMap((contig) => (limit ? pieces(contig.chrom, within(limit, contig)) : [contig]))
    .filter(({ startBp, endBp }) => endBp - startBp >= leastBp)
    .flatMap((contig) => halved(contig, Math.max(breakAboveBp, leastBp)));
}

function pieces(chrom: string, spans: readonly (readonly [number, number])[]): Interval[] {
  return spans.map(([startBp, endBp]) => ({ chrom, startBp, endBp }));
}

function halved(contig: Interval, mostBp: number): Interval[] {
  const { startBp, endBp } = contig;
  if (endBp - startBp <= mostBp) return [contig];
  const middle = startBp + Math.floor((endBp - startBp) / 2);
  return [...halved({ ...contig, endBp: middle }, mostBp), ...halved({ ...contig, startBp: middle }, mostBp)];
}

/** How contigs become train, valid and test. */
export type Division =
  | { readonly kind: 'chromosomes'; readonly valid: readonly string[]; readonly test: readonly string[] }
  /** Shares of the genome, drawn contig by contig. */
  | { readonly kind: 'fractions'; readonly valid: number; readonly test: number }
  /** `fold0` to `fold{folds - 1}`, of about equal size. */
  | { readonly kind: 'folds'; readonly folds: number };

/** A contig larger than this share of what a split still lacks is not given to it. basenji_data.py */
const ABSTAIN = 0.2;

/**
 * Contigs with their splits; neighbours in one split are joined again. `draw` gives numbers in [0, 1).
 *
 * Fractions and folds go from the longest contig to the shortest, each to a split drawn by what the splits still lack.
 */
export function divide(contigs: readonly Interval[], division: Division, draw: () => number): SplitContig[] {
  return rejoined(assign(contigs, division, draw));
}

/** Each contig's split. */
export function assign(contigs: readonly Interval[], division: Division, draw: () => number): SplitContig[] {
  if (division.kind === 'chromosomes') {
    const splitOf = ({ chrom }: Interval): string =>
      division.test.includes(chrom) ? 'test' : division.valid.includes(chrom) ? 'valid' : 'train';
    return contigs.map((contig) => ({ ...contig, split: splitOf(contig) }));
  }
  const names =
    division.kind === 'folds'
      ? Array.from({ length: division.folds }, (_, fold) => `fold${fold}`)
      : ['train', 'valid', 'test'];
  const total = contigs.reduce((sum, contig) => sum + lengthBp(contig), 0);
  const aims =
    division.kind === 'folds'
      ? names.map(() => Math.ceil(total / names.length))
      : [1 - division.valid - division.test, division.valid, division.test].map((share) => share * total);
  const lacking = [...aims];
  const longestFirst = contigs.toSorted((a, b) => lengthBp(b) - lengthBp(a));
  return longestFirst.map((contig) => {
    const weights = lacking.map((gap, i) => {
      if (division.kind === 'folds') return Math.max(0, gap);
      if (i === 0) return Math.max(1, gap);
      return lengthBp(contig) > ABSTAIN * Math.max(0, gap) ? 0 : gap;
    });
    const chosen = drawIndex(weights, draw());
    lacking[chosen]! -= lengthBp(contig);
    return { ...contig, split: names[chosen]! };
  });
}

function lengthBp({ startBp, endBp }: Interval): number {
  return endBp - startBp;
}

function drawIndex(weights: readonly number[], at: number): number {
  let left = at * weights.reduce((sum, weight) => sum + weight, 0);
  const chosen = weights.findIndex((weight) => {
    left -= weight;
    return left < 0;
  });
  return chosen < 0 ? weights.findLastIndex((weight) => weight > 0) : chosen;
}

/** In the order of the splits, then of the chromosomes as they came. */
function rejoined(contigs: readonly SplitContig[]): SplitContig[] {
  const groups = new Map<string, SplitContig[]>();
  for (const contig of contigs) {
    const key = `${contig.split}\t${contig.chrom}`;
    groups.set(key, [...(groups.get(key) ?? []), contig]);
  }
  const joined = [...groups.values()].flatMap((group) => {
    const result: SplitContig[] = [];
    for (const contig of group.toSorted((a, b) => a.startBp - b.startBp)) {
      const last = result.at(-1);
      if (last?.endBp === contig.startBp) result[result.length - 1] = { ...last, endBp: contig.endBp };
      else result.push(contig);
    }
    return result;
  });
  return joined.toSorted((a, b) => splitRank(a.split) - splitRank(b.split));
}

/** train, valid, test; folds by number. */
export function splitRank(split: string): number {
  const known = ['train', 'valid', 'test'].indexOf(split);
  return known >= 0 ? known : 3 + Number(/\d+$/.exec(split)?.[0] ?? 0);
}
