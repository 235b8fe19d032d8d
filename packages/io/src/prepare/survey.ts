/** A first look at the tracks: what their summaries say, and some sequences of each, before any is written. */
import { someNames } from '../bases.ts';
import type { Track } from '../track.ts';
import type { Findings } from './names.ts';
import type { TrackSource } from './options.ts';
import type { PlannedSequences } from './select.ts';
import { openSignal, openTargets, type TargetInputs } from './target-reader.ts';
import { TrackCount, trackWarnings } from './track-summary.ts';

/** Sequences of each track that are read, spread over all. */
const SAMPLED = 8;

/** So many tracks, of so many. */
export type LookedAt = (tracks: number, of: number) => void;

interface Surveyed {
  readonly sequences: PlannedSequences;
  /** Chromosomes with sequences. */
  readonly used: ReadonlyMap<string, number>;
  readonly fragments: ReadonlyMap<number, Track>;
}

/**
 * Errors: tracks without a value on the chromosomes used, infinite values, and whatever reading and binning a sample finds.
 * Warnings and notes, with numbers: chromosomes without values, NaN, samples without values or all alike, and values that
 * are clipped, negative, or beyond f16.
 */
export async function surveyTracks(
  inputs: TargetInputs,
  surveyed: Surveyed,
  findings: Findings,
  looked: LookedAt,
): Promise<void> {
  const { options } = inputs;
  for (const [column, source] of options.tracks.entries()) {
    const held = surveyed.fragments.get(column);
    try {
      if (!options.contacts) await surveySummary(inputs, column, surveyed.used, findings, held);
      await surveySample(inputs, column, surveyed.sequences, findings, held);
    } catch (error) {
      findings.errors.push(namedOnce(source, error as Error));
    }
    looked(column + 1, options.tracks.length);
  }
}

function namedOnce({ file }: TrackSource, { message }: Error): string {
  return message.includes(file) ? message : `${file}: ${message}`;
}

/** By the totals and the coarsest zoom level of a bigWig. */
async function surveySummary(
  { options, trackNames, chromosomes }: TargetInputs,
  column: number,
  used: ReadonlyMap<string, number>,
  { errors, warnings }: Findings,
  held: Track | undefined,
): Promise<void> {
  const source = options.tracks[column]!;
  const track = held ?? (await openSignal(source, chromosomes));
  try {
    const { file } = source;
    const names = [...used.keys()].flatMap((chrom) => trackNames[column]!.get(chrom) ?? []);
    const found = await track.summary?.(names);
    if (found === undefined) return;
    if (found.hasNan)
      warnings.push(`${file}: some of its values are NaN; they count as missing, as 0 without --interpolate`);
    if (found.min === Number.NEGATIVE_INFINITY || found.max === Number.POSITIVE_INFINITY)
      warnings.push(
        `${file}: some of its values are infinite (${found.min} to ${found.max}); their bins end at its clip, or at 65504`,
      );
    const empty = found.withValues === undefined ? [] : names.filter((name) => !found.withValues!.has(name));
    if (found.blocks === 0 || (names.length > 0 && empty.length === names.length)) {
      const text = `${file}: has no value on any of the ${names.length} chromosomes used`;
      if (options.absent === 'zero') warnings.push(`${text}; it counts as 0`);
      else errors.push(`${text}; leave it out, or let it count as zeros with --absent-as-zero`);
    } else if (empty.length > 0)
      warnings.push(
        `${file}: has no value on ${empty.length} of ${names.length} chromosomes used: ${someNames(empty)}; they count as 0`,
      );
    else if (found.min === 0 && found.max === 0)
      warnings.push(`${file}: is 0 everywhere (${found.coveredBp} bp)`);
  } finally {
    if (track !== held) await track.close();
  }
}

async function surveySample(
  inputs: TargetInputs,
  column: number,
  sequences: PlannedSequences,
  { warnings, notes }: Findings,
  held: Track | undefined,
): Promise<void> {
  const { options } = inputs;
  const source = options.tracks[column]!;
  const reader = await openTargets(inputs, column, held);
  const count = new TrackCount();
  const looked = Math.min(SAMPLED, sequences.length);
  try {
    for (let i = 0; i < looked; i++) {
      const place = sequences.at(Math.floor(((i + 0.5) * sequences.length) / looked));
      count.add(await reader.read(place), place);
    }
  } finally {
    if (held === undefined) await reader.close();
  }
  const summary = count.summary(source);
  const where = `in the ${looked} sequences looked at`;
  if (summary.missingFraction === 1) warnings.push(`${source.file}: has no value ${where}`);
  else if (summary.min === summary.max)
    warnings.push(`${source.file}: every target is ${summary.min} ${where}`);
  else
    notes.push(
      ...trackWarnings([summary], options.contacts !== undefined).map((text) => `${text}, ${where}`),
    );
}
