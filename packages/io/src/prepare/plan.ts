/** Looks at every input before any work: what will be made, and what is wrong. */
import { mix } from '@cohesin/core';
import { someNames } from '../bases.ts';
import { type Genome, openGenome } from '../genome.ts';
import { type Interval, type IntervalSet, unite, within } from '../intervals.ts';
import type { Track } from '../track.ts';
import { matchedBackground } from './background.ts';
import { assign, divide, findContigs, type SplitContig, splitRank } from './contigs.ts';
import { matchTracks } from './match-tracks.ts';
import { Findings, nameIn, readPlaces } from './names.ts';
import { beyondBp, type PrepareOptions, wrongOptions } from './options.ts';
import {
  type Core,
  centreOnPeaks,
  cutSequences,
  importSequences,
  splitOverlaps,
  unmappableBins,
} from './sequences.ts';

/** A sequence to be written. */
export interface PlannedSequence extends Core {
  /** 1 for each bin that cannot be mapped to. */
  readonly unmappable?: Uint8Array;
}

export interface PreparePlan {
  readonly options: PrepareOptions;
  /** Open; close it. */
  readonly genome: Genome;
  /** For each track its own names of the chromosomes it has. */
  readonly trackNames: readonly ReadonlyMap<string, string>[];
  /** The tracks, by their place in the list, that are fragments: they are held in memory, 4 bytes an end. */
  readonly fragments: ReadonlyMap<number, Track>;
  /** None where a `sequences.bed` is used. */
  readonly contigs: readonly SplitContig[];
  /** In the order they are written. */
  readonly sequences: readonly PlannedSequence[];
  /** Left out, by why. */
  readonly dropped: Readonly<Record<'unmappable' | 'sampled', number>>;
  readonly blacklist: IntervalSet;
  readonly warnings: readonly string[];
  readonly notes: readonly string[];
  /** Bins per sequence, or elements of the upper triangle. */
  readonly targetLength: number;
  /** Sequences whose targets are in memory together. */
  readonly groupSize: number;
}

/** ± around each blacklisted place, in bp. hound_data_read.py */
const BLACKLIST_MARGIN_BP = 20;

/**
 * What `prepare` would write, with every input opened and compared.
 *
 * @throws an error that lists everything wrong: options, names and lengths, places outside chromosomes, splits that
 *   overlap or are empty
 */
export async function planPrepare(options: PrepareOptions): Promise<PreparePlan> {
  const findings = new Findings();
  findings.errors.push(...wrongOptions(options));
  findings.stop();
  const genome = await openGenome(options.genome);
  try {
    const used = usedChromosomes(genome, options, findings);
    const places = async (path: string | undefined): Promise<Interval[]> =>
      path === undefined ? [] : await readPlaces(path, genome.chromosomes, findings);
    const gaps = unite(await places(options.gaps));
    const limit = options.limit === undefined ? undefined : unite(await places(options.limit));
    const blacklist = unite(await places(options.blacklist), BLACKLIST_MARGIN_BP);
    const unmappable = unite(await places(options.unmappable));
    findings.stop();
    const coreBp = options.sequenceLengthBp - 2 * beyondBp(options);
    const contigs =
      options.split.kind === 'sequences' || options.peaks !== undefined
        ? []
        : contigsOf(used, options, { gaps, ...(limit && { limit }) });
    const cores =
      options.peaks === undefined
        ? await coresOf(contigs, coreBp, options, genome, findings)
        : await peakCores(options.peaks, { coreBp, used, blacklist, genome }, options, findings);
    findings.stop();
    const { trackNames, fragments } = await matchTracks(
      options,
      chromosomesOf(cores, genome),
      genome.chromosomes,
      cores,
      findings,
    );
    const { sequences, dropped } = selected(cores, unmappable, options);
    checkSplits(sequences, dropped, options, findings);
    findings.stop();
    const targetLength = countTargets(options);
    const bytesPerSequence = 2 * targetLength * options.tracks.length;
    const groupSize = Math.max(1, Math.floor(options.memoryBytes / bytesPerSequence));
    const { warnings, notes } = findings;
    return {
      options,
      genome,
      trackNames,
      fragments,
      contigs,
      sequences,
      dropped,
      blacklist,
      warnings,
      notes,
      targetLength,
      groupSize,
    };
  } catch (error) {
    await genome.close();
    throw error;
  }
}

function usedChromosomes(
  genome: Genome,
  options: PrepareOptions,
  findings: Findings,
): ReadonlyMap<string, number> {
  const find = (name: string, what: string): string | undefined => {
    const found = nameIn((candidate) => genome.chromosomes.has(candidate), name);
    if (found === undefined)
      findings.errors.push(
        `${what} ${name} is no chromosome of ${genome.path}; it has ${someNames([...genome.chromosomes.keys()], 30)}`,
      );
    else if (found !== name)
      findings.errors.push(`${what} ${name} is called ${found} in ${genome.path}; write ${found}`);
    return found;
  };
  const only = options.chromosomes?.map((name) => find(name, 'chromosome'));
  if (options.split.kind === 'chromosomes') {
    for (const name of options.split.valid) find(name, 'valid chromosome');
    for (const name of options.split.test) find(name, 'test chromosome');
  }
  return new Map([...genome.chromosomes].filter(([name]) => only === undefined || only.includes(name)));
}

function contigsOf(
  used: ReadonlyMap<string, number>,
  options: PrepareOptions,
  sets: { gaps: IntervalSet; limit?: IntervalSet },
): SplitContig[] {
  if (options.split.kind === 'sequences') return [];
  const leastBp = options.sequenceLengthBp - 2 * beyondBp(options);
  const contigs = findContigs(used, { leastBp, breakAboveBp: options.breakAboveBp, ...sets });
  return divide(contigs, options.split, randomNumbers(options.seed, 0));
}

async function coresOf(
  contigs: readonly SplitContig[],
  coreBp: number,
  options: PrepareOptions,
  genome: Genome,
  findings: Findings,
): Promise<readonly Core[]> {
  if (options.split.kind !== 'sequences') {
    const strideBp = (split: string): number =>
      split === 'valid' || split === 'test' ? options.strideTestBp : options.strideTrainBp;
    return cutSequences(contigs, { coreBp, strideBp, snapBp: options.snapBp });
  }
  const cores = await importSequences(options.split.path, coreBp);
  const { path } = options.split;
  const unknown = cores.filter(({ chrom }) => !genome.chromosomes.has(chrom)).map(({ chrom }) => chrom);
  const outside = cores.filter(
    ({ chrom, startBp, endBp }) =>
      startBp < 0 || endBp > (genome.chromosomes.get(chrom) ?? Number.POSITIVE_INFINITY),
  );
  if (unknown.length > 0)
    findings.errors.push(
      `${path}: ${unknown.length} sequences are on chromosomes the genome has not: ${someNames([...new Set(unknown)])}; it has ${someNames([...genome.chromosomes.keys()])}`,
    );
  if (outside.length > 0)
    findings.errors.push(
      `${path}: ${outside.length} sequences have targets outside their chromosome, first ${place(outside[0]!)}`,
    );
  const { pairs, first } = splitOverlaps(cores);
  if (first)
    findings.errors.push(
      `${path}: ${pairs} pairs of sequences of different splits overlap, first ${place(first[0])} (${first[0].split}) and ${place(first[1])} (${first[1].split}); targets would leak`,
    );
  return cores;
}

interface PeakPlaces {
  readonly coreBp: number;
  readonly used: ReadonlyMap<string, number>;
  readonly blacklist: IntervalSet;
  readonly genome: Genome;
}

/** Places around peaks, or of background in their stead; none that touches the blacklist. */
async function peakCores(
  path: string,
  { coreBp, used, blacklist, genome }: PeakPlaces,
  options: PrepareOptions,
  { warnings }: Findings,
): Promise<readonly Core[]> {
  const { split, background } = options;
  if (split.kind !== 'chromosomes') return [];
  const { cores: all, rows, unknown, outside } = await centreOnPeaks(path, coreBp, used);
  const total = all.length + unknown + outside;
  if (unknown > 0)
    warnings.push(
      `${path}: ${unknown} of ${total} peaks are on chromosomes that are not used; they are passed over`,
    );
  if (outside > 0)
    warnings.push(
      `${path}: ${outside} of ${total} peaks are nearer than ${coreBp / 2} bp to an end of their chromosome; they are left out`,
    );
  const clear = all.filter((core) => within(blacklist, core).length === 0);
  if (clear.length < all.length)
    warnings.push(
      `${path}: the targets of ${all.length - clear.length} of ${total} peaks touch the blacklist; they are left out`,
    );
  const bySplit = (cores: readonly Core[]): readonly Core[] =>
    cores.toSorted((a, b) => splitRank(a.split) - splitRank(b.split));
  const cores = assign(clear, split, () => 0);
  if (background === undefined) return bySplit(cores);
  const splitOf = (chrom: string): string =>
    assign([{ chrom, startBp: 0, endBp: coreBp }], split, () => 0)[0]!.split;
  const avoid = unite([...rows, ...placesOf(blacklist)]);
  const { seed } = options;
  const found = await matchedBackground(cores, splitOf, genome, used, {
    ...{ coreBp, beyondBp: beyondBp(options), ratio: background, avoid, seed },
  });
  if (found.length < Math.floor(background * cores.length))
    warnings.push(
      `background: ${found.length} places that touch no peak were found, of ${Math.floor(background * cores.length)}`,
    );
  return bySplit(found);
}

function placesOf(set: IntervalSet): Interval[] {
  return [...set].flatMap(([chrom, spans]) => spans.map(([startBp, endBp]) => ({ chrom, startBp, endBp })));
}

function place({ chrom, startBp, endBp }: Interval): string {
  return `${chrom}:${startBp}-${endBp}`;
}

function chromosomesOf(cores: readonly Core[], genome: Genome): ReadonlyMap<string, number> {
  const names = new Set(cores.map(({ chrom }) => chrom));
  return new Map([...genome.chromosomes].filter(([name]) => names.has(name)));
}

/** Bins, or elements of the upper triangle, of a sequence. */
function countTargets({ sequenceLengthBp, cropBp, poolWidthBp, contacts }: PrepareOptions): number {
  const bins = (sequenceLengthBp - 2 * cropBp) / poolWidthBp;
  if (!contacts) return bins;
  const side = bins - contacts.diagonalOffset;
  return (side * (side + 1)) / 2;
}

function selected(
  cores: readonly Core[],
  unmappable: IntervalSet,
  options: PrepareOptions,
): { sequences: PlannedSequence[]; dropped: Record<'unmappable' | 'sampled', number> } {
  const marked = cores.map((core): PlannedSequence => {
    const bins =
      options.unmappable === undefined ? undefined : unmappableBins(core, unmappable, options.poolWidthBp);
    return bins ? { ...core, unmappable: bins } : core;
  });
  const mappable = marked.filter(
    ({ unmappable: bins }) => bins === undefined || mean(bins) < options.unmappableLimit,
  );
  const splits = [...new Set(mappable.map(({ split }) => split))].toSorted(
    (a, b) => splitRank(a) - splitRank(b),
  );
  const sequences = splits.flatMap((split, i) => {
    const own = mappable.filter((core) => core.split === split);
    if (options.shuffle) shuffleInPlace(own, randomNumbers(options.seed, i + 1));
    return own.slice(0, Math.ceil(options.sample * own.length));
  });
  return {
    sequences,
    dropped: { unmappable: cores.length - mappable.length, sampled: mappable.length - sequences.length },
  };
}

function mean(bins: Uint8Array): number {
  return bins.reduce((sum, bin) => sum + bin, 0) / bins.length;
}

function shuffleInPlace<T>(items: T[], draw: () => number): void {
  for (let last = items.length - 1; last > 0; last--) {
    const chosen = Math.floor(draw() * (last + 1));
    [items[last], items[chosen]] = [items[chosen]!, items[last]!];
  }
}

/** Numbers in [0, 1) that depend on the seed and the stream only. */
function randomNumbers(seed: number, stream: number): () => number {
  let counter = 0;
  return () => mix(mix(seed, stream), counter++) / 2 ** 32;
}

function checkSplits(
  sequences: readonly PlannedSequence[],
  dropped: Readonly<Record<string, number>>,
  { split, ...options }: PrepareOptions,
  findings: Findings,
): void {
  const counts = new Map<string, number>();
  for (const sequence of sequences) counts.set(sequence.split, (counts.get(sequence.split) ?? 0) + 1);
  const expected =
    split.kind === 'folds'
      ? Array.from({ length: split.folds }, (_, i) => `fold${i}`)
      : split.kind === 'sequences'
        ? [...counts.keys()]
        : ['train', ...(wants(split.valid) ? ['valid'] : []), ...(wants(split.test) ? ['test'] : [])];
  const empty = expected.filter((name) => !counts.has(name));
  if (sequences.length > 0 && empty.length === 0) return;
  const found = [...counts].map(([name, count]) => `${name} ${count}`).join(', ') || 'none at all';
  findings.errors.push(
    `no sequences in ${empty.join(', ') || 'any split'} (sequences: ${found}; ${dropped.unmappable} dropped as unmappable): a contig must hold a sequence's targets, and the chromosomes chosen must hold contigs; lower breakAboveBp (${options.breakAboveBp}) where fractions or folds have too few contigs to choose from`,
  );
}

function wants(part: number | readonly string[]): boolean {
  return typeof part === 'number' ? part > 0 : part.length > 0;
}
