/** Sequenced fragments as a track: how many 5′ ends lie on each bp, as BPNet and ChromBPNet count them. */
import { checkPlace } from './bases.ts';
import { EndRuns, type Ends } from './end-runs.ts';
import { endOutside, endsOf, type FragmentOptions, noFragments, passedOver } from './fragment-ends.ts';
import { findIndex, openIndexedFragments } from './fragments-indexed.ts';
import { readBed } from './intervals.ts';
import { nameIn } from './prepare/names.ts';
import type { Track } from './track.ts';

const ENDS_BYTES = 64 * 2 ** 20;

/**
 * The ends of a BED file of fragments (three columns), of reads (six, with a strand: only its own end) or of a BEDPE of
 * pairs (ten: from the lesser start to the greater end), plain or gzipped. Chromosomes are named and as long as in `genome`;
 * those the genome lacks are passed over, and counted in `warnings`. A BED with an index of tabix beside it (`.tbi`, `.csi`)
 * is read by place; of other files 4 bytes are kept for each end, `endsBytes` of them in memory and the others in a
 * temporary file without a name.
 *
 * @throws when the file cannot be read, a row is no interval, an end lies outside its chromosome, or no chromosome is known
 */
export async function openFragments(
  path: string,
  genome: ReadonlyMap<string, number>,
  { endsBytes = ENDS_BYTES, ...options }: FragmentOptions & { readonly endsBytes?: number } = {},
): Promise<Track> {
  const index = await findIndex(path);
  if (index !== undefined) return await openIndexedFragments(path, index, genome, options);
  const { ends, warnings } = await readEnds(path, genome, options, endsBytes);
  const chromosomes = new Map([...genome].filter(([name]) => ends.chromosomes.has(name)));
  return {
    path,
    chromosomes,
    keepOpen: true,
    warnings,
    read: async (chrom, startBp, endBp) => {
      checkPlace(path, chromosomes, chrom, startBp, endBp);
      const counts = new Float32Array(endBp - startBp);
      await ends.forEach(chrom, startBp, endBp, (place) => {
        counts[place - startBp]!++;
      });
      return counts;
    },
    close: () => ends.close(),
  };
}

async function readEnds(
  path: string,
  genome: ReadonlyMap<string, number>,
  options: FragmentOptions,
  endsBytes: number,
): Promise<{ ends: Ends; warnings: readonly string[] }> {
  const runs = new EndRuns(endsBytes);
  try {
    const warnings = await fill(runs, path, genome, options);
    return { ends: await runs.finish(), warnings };
  } catch (error) {
    await runs.close();
    throw error;
  }
}

async function fill(
  runs: EndRuns,
  path: string,
  genome: ReadonlyMap<string, number>,
  options: FragmentOptions,
): Promise<readonly string[]> {
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
    const where = `${path}: line ${row.line}`;
    const ends = endsOf(row, where, options);
    const length = genome.get(chrom)!;
    const outside = ends.find((place) => place < 0 || place >= length);
    if (outside !== undefined) throw endOutside(where, outside, row.chrom, length);
    runs.push(chrom, ends);
    if (runs.isFull) await runs.spill();
  }
  const known = [...names.values()].some((chrom) => chrom !== undefined);
  if (!known) throw noFragments(path, [...names.keys()], genome);
  const unknown = [...names].filter(([, chrom]) => chrom === undefined).map(([name]) => name);
  return passedOver(path, unknown, over, rows);
}
