/** Looks at every input before any work: what will be made, and what is wrong. */
import { someNames } from '../bases.ts';
import { type Genome, openGenome } from '../genome.ts';
import type { IntervalSet } from '../intervals.ts';
import type { Track } from '../track.ts';
import { divide, findContigs, type SplitContig } from './contigs.ts';
import type { Cores } from './cores.ts';
import { type Filtered, findFiltered } from './filtered.ts';
import { matchTracks } from './match-tracks.ts';
import { type MemoryPlan, planMemory } from './memory.ts';
import { Findings, nameIn, readPlaces } from './names.ts';
import { beyondBp, type PrepareOptions, wrongOptions } from './options.ts';
import { coresOf, peakCores } from './places.ts';
import { type Dropped, type PlannedSequences, randomNumbers, selectSequences } from './select.ts';
import { type LookedAt, surveyTracks } from './survey.ts';

/** Close it. */
export interface PreparePlan {
  readonly options: PrepareOptions;
  /** Open. */
  readonly genome: Genome;
  /** For each track its own names of the chromosomes it has. */
  readonly trackNames: readonly ReadonlyMap<string, string>[];
  /** The tracks, by their place in the list, that are fragments without an index. */
  readonly fragments: ReadonlyMap<number, Track>;
  /** None where a `sequences.bed` is used. */
  readonly contigs: readonly SplitContig[];
  readonly sequences: PlannedSequences;
  /** Left out, by why. */
  readonly dropped: Dropped;
  readonly blacklist: IntervalSet;
  readonly warnings: readonly string[];
  readonly notes: readonly string[];
  /** Bins per sequence, or elements of the upper triangle. */
  readonly targetLength: number;
  readonly memory: MemoryPlan;
  /** Closes the genome, and the fragments that are open. */
  close(): Promise<void>;
}

/** ± around each blacklisted place, in bp. hound_data_read.py */
const BLACKLIST_MARGIN_BP = 20;

/**
 * What `prepare` would write, with every input opened and compared, and some of each track read.
 *
 * @throws an error that lists everything wrong: options, names and lengths, places outside chromosomes, splits that
 *   overlap or are empty, tracks that are empty or damaged, lists of sequences that do not fit in memory
 */
export async function planPrepare(
  options: PrepareOptions,
  looked: LookedAt = () => {},
): Promise<PreparePlan> {
  const findings = new Findings();
  findings.errors.push(...wrongOptions(options));
  findings.stop();
  const genome = await openGenome(options.genome);
  const held: Track[] = [];
  const close = async (): Promise<void> => {
    for (const track of held.splice(0)) await track.close();
    await genome.close();
  };
  try {
    return { ...(await planWith(genome, options, { findings, held, looked })), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function planWith(
  genome: Genome,
  options: PrepareOptions,
  { findings, held, looked }: { findings: Findings; held: Track[]; looked: LookedAt },
): Promise<Omit<PreparePlan, 'close'>> {
  const { cores, contigs, blacklist, unmappable } = await findPlaces(genome, options, findings);
  if (cores.length === 0) {
    const { sequences, dropped } = selectSequences(cores, unmappable, () => false, options);
    checkSplits(sequences, dropped, options, findings);
    findings.stop();
  }
  const used = usedBy(cores, genome);
  const { trackNames, fragments } = await matchTracks(options, used, genome.chromosomes, cores, findings);
  held.push(...fragments.values());
  findings.stop();
  const inputs = { options, trackNames, blacklist, chromosomes: genome.chromosomes };
  const filtered = await findFiltered(inputs, used, findings);
  const { sequences, dropped } = selectSequences(cores, unmappable, (core) => filtered.has(core), options);
  checkSplits(sequences, dropped, options, findings);
  sayFiltered(dropped, filtered, cores.length, findings);
  const targetLength = countTargets(options);
  const sets = [blacklist, unmappable].flatMap((set) => [...set.values()]);
  const memory = planMemory(
    options,
    {
      targetLength,
      listBytes: sequences.bytes + sets.reduce((sum, { byteLength }) => sum + byteLength, 0),
      fragments: fragments.size,
    },
    findings,
  );
  findings.stop();
  await surveyTracks(inputs, { sequences, used, fragments }, findings, looked);
  findings.stop();
  const { warnings, notes } = findings;
  return {
    ...{ options, genome, trackNames, fragments, contigs, sequences, dropped, blacklist },
    ...{ warnings, notes, targetLength, memory },
  };
}

interface Places {
  readonly cores: Cores;
  readonly contigs: readonly SplitContig[];
  readonly blacklist: IntervalSet;
  readonly unmappable: IntervalSet;
}

async function findPlaces(genome: Genome, options: PrepareOptions, findings: Findings): Promise<Places> {
  const used = usedChromosomes(genome, options, findings);
  const places = async (path: string | undefined, padBp = 0): Promise<IntervalSet> =>
    path === undefined ? new Map() : await readPlaces(path, genome.chromosomes, findings, padBp);
  const gaps = await places(options.gaps);
  const limit = options.limit === undefined ? undefined : await places(options.limit);
  const blacklist = await places(options.blacklist, BLACKLIST_MARGIN_BP);
  const unmappable = await places(options.unmappable);
  findings.stop();
  const coreBp = options.sequenceLengthBp - 2 * beyondBp(options);
  const { peaks } = options;
  const contigs = peaks === undefined ? contigsOf(used, options, { gaps, ...(limit && { limit }) }) : [];
  const cores =
    peaks === undefined
      ? await coresOf(contigs, coreBp, options, genome, findings)
      : await peakCores(peaks, { coreBp, used, blacklist, genome }, options, findings);
  findings.stop();
  return { cores, contigs, blacklist, unmappable };
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

/** The chromosomes that have sequences. */
function usedBy(cores: Cores, genome: Genome): ReadonlyMap<string, number> {
  const names = new Set<string>();
  for (const { chrom } of cores) names.add(chrom);
  return new Map([...genome.chromosomes].filter(([name]) => names.has(name)));
}

/** Bins, or elements of the upper triangle, of a sequence. */
function countTargets({ sequenceLengthBp, cropBp, poolWidthBp, contacts }: PrepareOptions): number {
  const bins = (sequenceLengthBp - 2 * cropBp) / poolWidthBp;
  if (!contacts) return bins;
  const side = bins - contacts.diagonalOffset;
  return (side * (side + 1)) / 2;
}

function sayFiltered({ filtered }: Dropped, by: Filtered, all: number, { warnings }: Findings): void {
  if (filtered > 0)
    warnings.push(`${filtered} of ${all} sequences have no valid contact ${by.why}; they are left out`);
}

function checkSplits(
  sequences: PlannedSequences,
  { unmappable, filtered }: Dropped,
  { split, ...options }: PrepareOptions,
  findings: Findings,
): void {
  const { splits } = sequences;
  const expected =
    split.kind === 'folds'
      ? Array.from({ length: split.folds }, (_, i) => `fold${i}`)
      : split.kind === 'sequences'
        ? splits.map(({ split: name }) => name)
        : ['train', ...(wants(split.valid) ? ['valid'] : []), ...(wants(split.test) ? ['test'] : [])];
  const empty = expected.filter((name) => !splits.some((found) => found.split === name));
  if (sequences.length > 0 && empty.length === 0) return;
  const found = splits.map(({ split: name, count }) => `${name} ${count}`).join(', ') || 'none at all';
  const why =
    filtered > 0
      ? `; ${filtered} have no valid contact in a map: choose chromosomes, folds or a longer sequence that leave each split some`
      : `: a contig must hold a sequence's targets, and the chromosomes chosen must hold contigs; lower breakAboveBp (${options.breakAboveBp}) where fractions or folds have too few contigs to choose from`;
  findings.errors.push(
    `no sequences in ${empty.join(', ') || 'any split'} (sequences: ${found}; ${unmappable} dropped as unmappable)${why}`,
  );
}

function wants(part: number | readonly string[]): boolean {
  return typeof part === 'number' ? part > 0 : part.length > 0;
}
