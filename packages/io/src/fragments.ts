/** Sequenced fragments as a track: how many 5′ ends lie on each bp, as BPNet and ChromBPNet count them. */
import { checkPlace } from './bases.ts';
import { endOutside, endsOf, type FragmentOptions, noFragments, passedOver } from './fragment-ends.ts';
import { findIndex, openIndexedFragments } from './fragments-indexed.ts';
import { readBed } from './intervals.ts';
import { nameIn } from './prepare/names.ts';
import type { Track } from './track.ts';

/** A file's ends by chromosome, in the order of their places. */
type Ends = ReadonlyMap<string, Int32Array>;

/**
 * The ends of a BED file of fragments (three columns), of reads (six, with a strand: only its own end) or of a BEDPE of
 * pairs (ten: from the lesser start to the greater end), plain or gzipped. Chromosomes are named and as long as in `genome`;
 * those the genome lacks are passed over, and counted in `warnings`. A BED with an index of tabix beside it (`.tbi`, `.csi`)
 * is read by place; of other files 4 bytes are held for each end.
 *
 * @throws when the file cannot be read, a row is no interval, an end lies outside its chromosome, or no chromosome is known
 */
export async function openFragments(
  path: string,
  genome: ReadonlyMap<string, number>,
  options: FragmentOptions = {},
): Promise<Track> {
  const index = await findIndex(path);
  if (index !== undefined) return await openIndexedFragments(path, index, genome, options);
  const { ends, warnings } = await readEnds(path, genome, options);
  const chromosomes = new Map([...genome].filter(([name]) => ends.has(name)));
  return {
    path,
    chromosomes,
    inMemory: true,
    warnings,
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
  options: FragmentOptions,
): Promise<{ ends: Ends; warnings: readonly string[] }> {
  const found = new Map<string, PlaceList>();
  const names = new Map<string, string | undefined>();
  let [rows, over] = [0, 0];
  for await (const row of readBed(path)) {
    if (!names.has(row.chrom))
      names.set(
        row.chrom,
        nameIn((name) => genome.has(name), row.chrom),
      );
    rows++;
    const chrom = names.get(row.chrom);
    if (chrom === undefined) {
      over++;
      continue;
    }
    const places = found.get(chrom) ?? new PlaceList();
    found.set(chrom, places);
    const where = `${path}: line ${row.line}`;
    for (const place of endsOf(row, where, options)) {
      if (place < 0 || place >= genome.get(chrom)!)
        throw endOutside(where, place, row.chrom, genome.get(chrom)!);
      places.push(place);
    }
  }
  if (found.size === 0) throw noFragments(path, [...names.keys()], genome);
  const unknown = [...names].filter(([, chrom]) => chrom === undefined).map(([name]) => name);
  return {
    ends: new Map([...found].map(([chrom, places]) => [chrom, places.sorted()])),
    warnings: passedOver(path, unknown, over, rows),
  };
}

/** Places that come one by one, in 4 bytes each. */
class PlaceList {
  #places = new Int32Array(1024);
  #count = 0;

  push(place: number): void {
    if (this.#count === this.#places.length) {
      const more = new Int32Array(2 * this.#count);
      more.set(this.#places);
      this.#places = more;
    }
    this.#places[this.#count++] = place;
  }

  sorted(): Int32Array {
    return this.#places.slice(0, this.#count).sort();
  }
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
