/** Tracks against the genome, before any work: names, lengths, and chromosomes that one of them lacks. */
import { someNames } from '../bases.ts';
import { openContacts } from '../contacts/contact-map.ts';
import type { Track } from '../track.ts';
import type { Core, Cores } from './cores.ts';
import { endsBytesPerTrack } from './memory.ts';
import { type Findings, matchLengths } from './names.ts';
import { mapOptions, type PrepareOptions } from './options.ts';
import { openSignal } from './target-reader.ts';

/**
 * For each track its own names of the chromosomes it has, after its lengths were compared. Fragments without an index are
 * read whole, and stay open.
 */
export async function matchTracks(
  options: PrepareOptions,
  used: ReadonlyMap<string, number>,
  genome: ReadonlyMap<string, number>,
  cores: Cores,
  findings: Findings,
): Promise<{ trackNames: Map<string, string>[]; fragments: Map<number, Track> }> {
  const { tracks, absent, contacts, poolWidthBp, lengthToleranceBp } = options;
  const endsBytes = endsBytesPerTrack(options);
  const trackNames: Map<string, string>[] = [];
  const fragments = new Map<number, Track>();
  for (const [column, source] of tracks.entries()) {
    const { file } = source;
    const opened = contacts
      ? openContacts(file, mapOptions(poolWidthBp, contacts))
      : openSignal(source, genome, endsBytes);
    const track = await opened.catch((error: Error) => {
      findings.errors.push(error.message);
    });
    const names = track
      ? matchLengths(used, file, track.chromosomes, lengthToleranceBp, findings)
      : new Map<string, string>();
    trackNames.push(names);
    if (track && 'keepOpen' in track && track.keepOpen) fragments.set(column, track);
    else await track?.close();
    if (track && 'warnings' in track && track.warnings) findings.warnings.push(...track.warnings);
    if (track && lengthToleranceBp > 0) checkEnds(file, track.chromosomes, names, cores, findings);
    const missing = [...used.keys()].filter((chrom) => !names.has(chrom));
    if (track === undefined || missing.length === 0 || names.size === 0) continue;
    const why = 'withheld' in track && track.withheld ? ` (${track.withheld})` : '';
    const text = `${file}: has no data on ${missing.length} of ${used.size} chromosomes: ${someNames(missing)}${why}`;
    if (absent === 'zero' && !contacts) findings.warnings.push(`${text}; they count as 0`);
    else
      findings.errors.push(
        `${text}; choose chromosomes that every track has (${someNames([...names.keys()], 30)}), or let them count as zeros`,
      );
  }
  return { trackNames, fragments };
}

/** Within the tolerance a chromosome of a track may still end before a sequence does. */
function checkEnds(
  file: string,
  lengths: ReadonlyMap<string, number>,
  names: ReadonlyMap<string, string>,
  cores: Cores,
  { errors }: Findings,
): void {
  let count = 0;
  let first: Core | undefined;
  for (const core of cores) {
    if (core.endBp <= lengthIn(lengths, names, core)) continue;
    count++;
    first ??= core;
  }
  if (first)
    errors.push(
      `${file}: ends before ${count} of the sequences, first ${first.chrom}:${first.startBp}-${first.endBp}; leave the ends out with --limit`,
    );
}

/** Of a sequence's chromosome in a track; without end where the track lacks it. */
function lengthIn(
  lengths: ReadonlyMap<string, number>,
  names: ReadonlyMap<string, string>,
  { chrom }: Core,
): number {
  return lengths.get(names.get(chrom) ?? '') ?? Number.POSITIVE_INFINITY;
}
