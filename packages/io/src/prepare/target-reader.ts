/** The targets of one track, sequence by sequence, whether it is a bigWig or a contact map. */
import { contactTargets } from '../contacts/contact-target.ts';
import { type ContactMap, openCooler } from '../contacts/cooler.ts';
import { f16ToF32, f32ToF16 } from '../float16.ts';
import { openFragments } from '../fragments.ts';
import { type Interval, type Span, within } from '../intervals.ts';
import { openBigWig, type Track } from '../track.ts';
import type { ContactOptions, PrepareOptions, TrackSource } from './options.ts';
import type { PreparePlan } from './plan.ts';
import { binTargets } from './targets.ts';
import type { TrackCount } from './track-summary.ts';

/** Where targets are, and which of their bins cannot be mapped to. */
type Place = Interval & { readonly unmappable?: Uint8Array };

/** Close it. */
export interface TargetReader {
  /**
   * As f16 bits: one a bin, or the upper triangle of a contact map.
   *
   * @throws FilteredWindowError for a contact map without a valid contact there; Error when the track is damaged there or
   *   a target is no number
   */
  read(place: Place, count?: TrackCount): Promise<Uint16Array>;
  close(): Promise<void>;
}

/** Opens a track of a plan. */
export async function openTargets(plan: PreparePlan, column: number): Promise<TargetReader> {
  const source = plan.options.tracks[column]!;
  const names = plan.trackNames[column]!;
  const { contacts, poolWidthBp } = plan.options;
  if (contacts) {
    const map = await openCooler(source.file, { binBp: poolWidthBp });
    const read = (place: Place, count?: TrackCount) => readContacts(map, names, place, plan, contacts, count);
    return { read, close: async () => {} };
  }
  const track = plan.fragments.get(column) ?? (await openSignal(source, plan.genome.chromosomes));
  const read = (place: Place, count?: TrackCount) => readBins(track, names, place, source, plan, count);
  return { read, close: () => track.close() };
}

/** Whether a track is read as fragments. */
export function isFragments({ file }: TrackSource): boolean {
  return /\.(bed|bedpe)(\.gz)?$/i.test(file);
}

/** A bigWig, or fragments told by the name of their file. */
export async function openSignal(source: TrackSource, genome: ReadonlyMap<string, number>): Promise<Track> {
  const { file, fragments } = source;
  if (isFragments(source)) return await openFragments(file, genome, fragments);
  if (fragments)
    throw new Error(`${file}: strands and shifts are of fragments, files named .bed or .bedpe (.gz)`);
  return await openBigWig(file);
}

async function readContacts(
  map: ContactMap,
  names: ReadonlyMap<string, string>,
  place: Place,
  { options, blacklist }: PreparePlan,
  { diagonalOffset, clip, smoothing }: ContactOptions,
  count?: TrackCount,
): Promise<Uint16Array> {
  const { chrom, startBp, endBp } = place;
  const window = await map.read(names.get(chrom) ?? chrom, startBp, endBp);
  const { bins, balanced } = window;
  const blocked = new Uint8Array(bins);
  for (const [start, end] of within(blacklist, place))
    blocked.fill(1, Math.floor((start - startBp) / map.binBp), Math.ceil((end - startBp) / map.binBp));
  for (let i = 0; i < balanced.length; i++)
    if (blocked[Math.floor(i / bins)] || blocked[i % bins]) balanced[i] = Number.NaN;
  const cropBins = options.cropBp / map.binBp;
  const targets = contactTargets(window, { diagonalOffset, clip, smoothing, cropBins });
  const bits = f32ToF16(targets);
  const missing = balanced.reduce((sum, value) => sum + (Number.isNaN(value) ? 1 : 0), 0) / balanced.length;
  count?.add(bits, { clipped: 0, overflowed: 0, missingBp: missing * (endBp - startBp) }, endBp - startBp);
  return bits;
}

/** A chromosome that the track lacks has no values. */
async function readBins(
  track: Track,
  names: ReadonlyMap<string, string>,
  sequence: Place,
  source: TrackSource,
  { options, blacklist }: PreparePlan,
  count?: TrackCount,
): Promise<Uint16Array> {
  const { chrom, startBp, endBp, unmappable } = sequence;
  const name = names.get(chrom);
  const coverage =
    name === undefined
      ? new Float32Array(endBp - startBp).fill(Number.NaN)
      : await track.read(name, startBp, endBp);
  const blocked = within(blacklist, sequence).map(([start, end]): Span => [start - startBp, end - startBp]);
  const binned = binTargets(coverage, source, { ...options, blacklist: blocked });
  checkNumbers(binned.values, sequence, source, options);
  const bits = f32ToF16(binned.values);
  const held =
    unmappable && options.unmappableClip < 1
      ? clipUnmappable(bits, unmappable, options.unmappableClip)
      : bits;
  count?.add(held, binned, endBp - startBp);
  return held;
}

function checkNumbers(
  values: Float64Array,
  { chrom, startBp }: Place,
  { file, statistic }: TrackSource,
  { poolWidthBp }: PrepareOptions,
): void {
  const bin = values.findIndex(Number.isNaN);
  if (bin < 0) return;
  const from = startBp + bin * poolWidthBp;
  throw new Error(
    `${file}: ${chrom}:${from}-${from + poolWidthBp} has no ${statistic}: a root of a negative sum, or infinite values of both signs; choose sum or mean for tracks with negative values`,
  );
}

/** Unmappable bins, at most the quantile of the whole sequence. hound_data_write.py */
function clipUnmappable(bits: Uint16Array, unmappable: Uint8Array, quantile: number): Uint16Array {
  const values = f16ToF32(bits);
  const ordered = values.toSorted();
  const at = quantile * (ordered.length - 1);
  const low = ordered[Math.floor(at)]!;
  const limit = low + (ordered[Math.ceil(at)]! - low) * (at - Math.floor(at));
  return f32ToF16(values.map((value, bin) => (unmappable[bin] ? Math.min(value, limit) : value)));
}
