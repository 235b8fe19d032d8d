/** Where sequences may be: along contigs, as a published data set has them, or around peaks. */
import { someNames } from '../bases.ts';
import type { Genome } from '../genome.ts';
import { type Interval, type IntervalSet, within } from '../intervals.ts';
import { matchedBackground } from './background.ts';
import { assign, type SplitContig } from './contigs.ts';
import { type Core, type Cores, CutCores, filterCores, ListedCores, splitOverlaps } from './cores.ts';
import { type Findings, sayRenamed } from './names.ts';
import { beyondBp, type PrepareOptions } from './options.ts';
import { centreOnPeaks, importSequences } from './sequences.ts';

/** Places along contigs, or those of a `sequences.bed`. */
export async function coresOf(
  contigs: readonly SplitContig[],
  coreBp: number,
  options: PrepareOptions,
  genome: Genome,
  findings: Findings,
): Promise<Cores> {
  const { split, strideTrainBp, strideTestBp, snapBp } = options;
  if (split.kind !== 'sequences') {
    const strideBp = (name: string): number =>
      name === 'valid' || name === 'test' ? strideTestBp : strideTrainBp;
    return new CutCores(contigs, { coreBp, strideBp, snapBp });
  }
  const { cores, names } = await importSequences(split.path, coreBp, genome.chromosomes);
  sayRenamed(split.path, names, findings);
  checkImported(cores, split.path, genome, findings);
  return cores;
}

function checkImported(cores: Cores, path: string, genome: Genome, findings: Findings): void {
  const strange = new Set<string>();
  let [unknown, outside] = [0, 0];
  let firstOutside: Core | undefined;
  for (const core of cores) {
    const length = genome.chromosomes.get(core.chrom);
    if (length === undefined) {
      unknown++;
      strange.add(core.chrom);
    }
    if (core.startBp >= 0 && core.endBp <= (length ?? Number.POSITIVE_INFINITY)) continue;
    outside++;
    firstOutside ??= core;
  }
  if (unknown > 0)
    findings.errors.push(
      `${path}: ${unknown} sequences are on chromosomes the genome has not: ${someNames([...strange])}; it has ${someNames([...genome.chromosomes.keys()])}`,
    );
  if (firstOutside)
    findings.errors.push(
      `${path}: ${outside} sequences have targets outside their chromosome, first ${place(firstOutside)}`,
    );
  const { pairs, first } = splitOverlaps(cores);
  if (first)
    findings.errors.push(
      `${path}: ${pairs} pairs of sequences of different splits overlap, first ${place(first[0])} (${first[0].split}) and ${place(first[1])} (${first[1].split}); targets would leak`,
    );
}

function place({ chrom, startBp, endBp }: Interval): string {
  return `${chrom}:${startBp}-${endBp}`;
}

export interface PeakPlaces {
  readonly coreBp: number;
  readonly used: ReadonlyMap<string, number>;
  readonly blacklist: IntervalSet;
  readonly genome: Genome;
}

/** Places around peaks, or of background in their stead; none that touches the blacklist. */
export async function peakCores(
  path: string,
  { coreBp, used, blacklist, genome }: PeakPlaces,
  options: PrepareOptions,
  findings: Findings,
): Promise<Cores> {
  const { warnings } = findings;
  const { split, background, seed } = options;
  if (split.kind !== 'chromosomes') return new ListedCores(coreBp);
  const splitOf = (chrom: string): string =>
    assign([{ chrom, startBp: 0, endBp: coreBp }], split, () => 0)[0]!.split;
  const { cores: all, covered, names, ...left } = await centreOnPeaks(path, coreBp, used, splitOf);
  const { unknown, outside } = left;
  sayRenamed(path, names, findings);
  const total = all.length + unknown + outside;
  if (unknown > 0)
    warnings.push(
      `${path}: ${unknown} of ${total} peaks are on chromosomes that are not used; they are passed over`,
    );
  if (outside > 0)
    warnings.push(
      `${path}: ${outside} of ${total} peaks are nearer than ${coreBp / 2} bp to an end of their chromosome; they are left out`,
    );
  const cores = filterCores(all, (core) => within(blacklist, core).length === 0);
  if (cores.length < all.length)
    warnings.push(
      `${path}: the targets of ${all.length - cores.length} of ${total} peaks touch the blacklist; they are left out`,
    );
  if (background === undefined) return cores;
  for (const [chrom, spans] of blacklist)
    for (let i = 0; i < spans.length; i += 2)
      covered.add({ chrom, startBp: spans[i]!, endBp: spans[i + 1]! });
  const found = await matchedBackground(cores, splitOf, genome, used, {
    ...{ coreBp, beyondBp: beyondBp(options), ratio: background, avoid: covered.finish(), seed },
  });
  const wanted = Math.floor(background * cores.length);
  if (found.length < wanted)
    warnings.push(`background: ${found.length} places that touch no peak were found, of ${wanted}`);
  return found;
}
