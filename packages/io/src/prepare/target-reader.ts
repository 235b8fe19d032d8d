/** The targets of one track, sequence by sequence, whether it is a bigWig or a contact map. */
import { type ContactMap, openContacts } from '../contacts/contact-map.ts';
import {
  type ContactTransform,
  type ContactWindow,
  countedContactTargets,
} from '../contacts/contact-target.ts';
import { f16ToF32, f32ToF16 } from '../float16.ts';
import { isFragments } from '../fragment-ends.ts';
import { openFragments } from '../fragments.ts';
import { type Interval, type Span, within } from '../intervals.ts';
import { openBigWig, type Track } from '../track.ts';
import { type ContactOptions, mapOptions, type PrepareOptions, type TrackSource } from './options.ts';
import type { PreparePlan } from './plan.ts';
import type { TargetJob } from './target-source.ts';
import { type BinnedTargets, binTargets } from './targets.ts';

/** Where targets are, and which of their bins cannot be mapped to. */
type Place = Interval & { readonly unmappable?: Uint8Array };

/** What targets depend on besides the files: plain data, which a thread can be given. */
export interface TargetInputs extends Pick<PreparePlan, 'options' | 'trackNames' | 'blacklist'> {
  /** Of the genome, with their lengths in bp. */
  readonly chromosomes: ReadonlyMap<string, number>;
}

/** One track in one sequence. */
export interface TrackTargets extends Omit<BinnedTargets, 'values'> {
  /** f16, one a bin, or the upper triangle of a contact map. */
  readonly bits: Uint16Array;
}

/** Close it. */
export interface TargetReader {
  /** @throws when the track is damaged there, a target is no number, or a contact map has no valid contact there */
  read(place: Place): Promise<TrackTargets>;
  close(): Promise<void>;
}

/** Opens a track by its place in the list, unless it is `held` open by the plan. */
export async function openTargets(inputs: TargetInputs, column: number, held?: Track): Promise<TargetReader> {
  const { options, trackNames, chromosomes } = inputs;
  const source = options.tracks[column]!;
  const names = trackNames[column]!;
  if (options.contacts) {
    const { contacts } = options;
    const map = await openContacts(source.file, mapOptions(options.poolWidthBp, contacts));
    return { read: (place) => readContacts(map, names, place, inputs, contacts), close: () => map.close() };
  }
  const track = held ?? (await openSignal(source, chromosomes));
  const close = async (): Promise<void> => {
    if (held === undefined) await track.close();
  };
  return { read: (place) => readBins(track, names, place, source, inputs), close };
}

/** Reads jobs one after the other; the track of the last one stays open. Close it. */
export class LocalTargets {
  readonly #inputs: TargetInputs;
  readonly #held: ReadonlyMap<number, Track>;
  #open: { readonly column: number; readonly reader: TargetReader } | undefined;

  constructor(inputs: TargetInputs, held: ReadonlyMap<number, Track> = new Map()) {
    this.#inputs = inputs;
    this.#held = held;
  }

  /** Of each place. @throws as `TargetReader.read` */
  async read({ column, places }: TargetJob): Promise<TrackTargets[]> {
    if (this.#open?.column !== column) {
      await this.close();
      this.#open = { column, reader: await openTargets(this.#inputs, column, this.#held.get(column)) };
    }
    const { reader } = this.#open;
    const found: TrackTargets[] = [];
    for (const place of places) found.push(await reader.read(place));
    return found;
  }

  async close(): Promise<void> {
    await this.#open?.reader.close();
    this.#open = undefined;
  }
}

/** A bigWig, or fragments told by the name of their file, of whose ends `endsBytes` are held in memory. */
export async function openSignal(
  source: TrackSource,
  genome: ReadonlyMap<string, number>,
  endsBytes?: number,
): Promise<Track> {
  const { file, fragments } = source;
  if (isFragments(file))
    return await openFragments(file, genome, { ...fragments, ...(endsBytes !== undefined && { endsBytes }) });
  if (fragments)
    throw new Error(`${file}: strands and shifts are of fragments, files named .bed, .bedpe or .tsv (.gz)`);
  return await openBigWig(file);
}

async function readContacts(
  map: ContactMap,
  names: ReadonlyMap<string, string>,
  place: Place,
  { options, blacklist }: TargetInputs,
  { diagonalOffset, clip, smoothing }: ContactOptions,
): Promise<TrackTargets> {
  const { chrom, startBp, endBp } = place;
  const window = await map.read(names.get(chrom) ?? chrom, startBp, endBp);
  const { bins, balanced } = window;
  const blocked = new Uint8Array(bins);
  for (const [start, end] of within(blacklist, place))
    blocked.fill(1, Math.floor((start - startBp) / map.binBp), Math.ceil((end - startBp) / map.binBp));
  for (let i = 0; i < balanced.length; i++)
    if (blocked[Math.floor(i / bins)] || blocked[i % bins]) balanced[i] = Number.NaN;
  const cropBins = options.cropBp / map.binBp;
  const where = `${map.path}: ${chrom}:${startBp}-${endBp}`;
  const { values, clipped } = targetsOf(window, { diagonalOffset, clip, smoothing, cropBins }, where);
  const missing = balanced.reduce((sum, value) => sum + (Number.isNaN(value) ? 1 : 0), 0) / balanced.length;
  return { bits: f32ToF16(values), clipped, overflowed: 0, missingBp: missing * (endBp - startBp) };
}

function targetsOf(
  window: ContactWindow,
  transform: ContactTransform,
  where: string,
): ReturnType<typeof countedContactTargets> {
  try {
    return countedContactTargets(window, transform);
  } catch (cause) {
    throw new Error(`${where}: ${(cause as Error).message}`, { cause });
  }
}

/** A chromosome that the track lacks has no values. */
async function readBins(
  track: Track,
  names: ReadonlyMap<string, string>,
  sequence: Place,
  source: TrackSource,
  { options, blacklist }: TargetInputs,
): Promise<TrackTargets> {
  const { chrom, startBp, endBp } = sequence;
  const name = names.get(chrom);
  const coverage =
    name === undefined
      ? new Float32Array(endBp - startBp).fill(Number.NaN)
      : await track.read(name, startBp, endBp);
  const blocked = within(blacklist, sequence).map(([start, end]): Span => [start - startBp, end - startBp]);
  const binned = binTargets(coverage, source, { ...options, blacklist: blocked });
  checkNumbers(binned.values, sequence, source, options);
  const { values, ...counts } = binned;
  const bits = f32ToF16(values);
  return { ...counts, bits };
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

/** Holds unmappable bins, where asked, to the quantile of the whole sequence. hound_data_write.py */
export function clipUnmappable(
  bits: Uint16Array,
  { unmappable }: Place,
  { unmappableClip }: PrepareOptions,
): void {
  if (unmappable === undefined || unmappableClip >= 1) return;
  const values = f16ToF32(bits);
  const ordered = values.toSorted();
  const at = unmappableClip * (ordered.length - 1);
  const low = ordered[Math.floor(at)]!;
  const limit = low + (ordered[Math.ceil(at)]! - low) * (at - Math.floor(at));
  bits.set(f32ToF16(values.map((value, bin) => (unmappable[bin] ? Math.min(value, limit) : value))));
}
