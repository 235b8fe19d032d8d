/** Which sequences have no valid contact in a map, found from what balances it before any contact is read. */
import { openContacts } from '../contacts/contact-map.ts';
import { type Interval, within } from '../intervals.ts';
import { percent } from '../page-parts.ts';
import type { Findings } from './names.ts';
import { mapOptions } from './options.ts';
import type { TargetInputs } from './target-reader.ts';

export interface Filtered {
  /** Whether a map has no valid contact at the first diagonal of a place: there is nothing to scale by. */
  has(place: Interval): boolean;
  readonly why: string;
}

/** 1 for each bin of a chromosome that balancing or the blacklist takes out. */
type FilteredBins = ReadonlyMap<string, Uint8Array>;

/** A chromosome with a larger share of filtered bins is worth a word. */
const MANY_FILTERED = 0.5;

/** Nothing is filtered where there are no contact maps. One byte is held for each bin that any map filters. */
export async function findFiltered(
  inputs: TargetInputs,
  used: ReadonlyMap<string, number>,
  findings: Findings,
): Promise<Filtered> {
  const { options, trackNames } = inputs;
  const { contacts, poolWidthBp } = options;
  if (contacts === undefined) return { has: () => false, why: '' };
  const maps: FilteredBins[] = [];
  for (const [column, { file }] of options.tracks.entries()) {
    const map = await openContacts(file, mapOptions(poolWidthBp, contacts));
    try {
      const bins = new Map<string, Uint8Array>();
      for (const chrom of used.keys()) {
        const found = await map.filtered(trackNames[column]!.get(chrom)!);
        sayShare(file, chrom, found, findings);
        bins.set(chrom, withBlacklist(found, chrom, inputs));
      }
      maps.push(bins);
    } catch (error) {
      findings.errors.push((error as Error).message);
    } finally {
      await map.close();
    }
  }
  findings.stop();
  const { diagonalOffset } = contacts;
  return {
    has: (place) =>
      maps.some((bins) => isFiltered(bins.get(place.chrom)!, place, poolWidthBp, diagonalOffset)),
    why: `at ${diagonalOffset} bins' distance, where balancing or the blacklist takes all out`,
  };
}

function sayShare(file: string, chrom: string, bins: Uint8Array, { warnings }: Findings): void {
  const filtered = bins.reduce((sum, bin) => sum + bin, 0);
  if (filtered > MANY_FILTERED * bins.length)
    warnings.push(
      `${file}: balancing filters ${filtered} of ${bins.length} bins of ${chrom} (${percent(filtered / bins.length)})`,
    );
}

function withBlacklist(bins: Uint8Array, chrom: string, { options, blacklist }: TargetInputs): Uint8Array {
  const binBp = options.poolWidthBp;
  for (const [start, end] of within(blacklist, { chrom, startBp: 0, endBp: bins.length * binBp }))
    bins.fill(1, Math.floor(start / binBp), Math.ceil(end / binBp));
  return bins;
}

function isFiltered(
  bins: Uint8Array,
  { startBp, endBp }: Interval,
  binBp: number,
  diagonalOffset: number,
): boolean {
  for (let bin = startBp / binBp; bin + diagonalOffset < endBp / binBp; bin++)
    if (!bins[bin] && !bins[bin + diagonalOffset]) return false;
  return true;
}
