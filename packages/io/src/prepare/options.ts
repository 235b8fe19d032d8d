/** What `prepare` is asked to do, with the defaults of basenji_data.py. */
import type { ContactMapOptions } from '../contacts/contact-map.ts';
import type { FragmentOptions } from '../fragment-ends.ts';
import type { Division } from './contigs.ts';
import type { Precision, TrackTransform } from './targets.ts';

/** One column of the targets. */
export interface TrackSource extends TrackTransform {
  /** A bigWig file, fragments in BED or BEDPE (`.bed`, `.bedpe`, `.gz`), or a cooler or `.hic` file for contact maps. */
  readonly file: string;
  readonly identifier: string;
  readonly description: string;
  /** Of fragments: which ends count, and by how many bp they are moved. */
  readonly fragments?: FragmentOptions;
  /** What a model does with it: predict it (by default), or read it, as BPNet does controls. */
  readonly role?: 'control';
  /** The track that this one turns into on the other strand, by its place in the list. */
  readonly strandPair?: number;
}

/** Akita's: logarithms of observed over expected contacts. */
export interface ContactOptions {
  /** The first diagonal that is a target. */
  readonly diagonalOffset: number;
  /** Logarithms end here, on both sides of 0. */
  readonly clip: number;
  /** Standard deviation of the Gaussian that smooths, in bins; 0 for none. */
  readonly smoothing: number;
  /** What the contacts of `.hic` files are balanced with; `KR` where it is not given. */
  readonly normalization?: string;
}

export interface PrepareOptions {
  /** FASTA, plain or BGZF, or 2bit. */
  readonly genome: string;
  readonly tracks: readonly TrackSource[];
  /** The tracks are contact maps with bins of `poolWidthBp`, not bigWigs. */
  readonly contacts?: ContactOptions;
  /** Bases per sequence. */
  readonly sequenceLengthBp: number;
  /** Bases at each end of a sequence without targets. */
  readonly cropBp: number;
  /** Bases per bin. */
  readonly poolWidthBp: number;
  /** How contigs are divided; or the path of a `sequences.bed`, whose places and splits are used as they are. */
  readonly split: Division | { readonly kind: 'sequences'; readonly path: string };
  /**
   * A BED or narrowPeak file: one sequence for each row, centred on its summit (column 10) or its middle, instead of
   * sequences along contigs, none whose targets touch the blacklist. Splits are then by chromosome.
   */
  readonly peaks?: string;
  /** Of `peaks`: not at them, but so many places for each that touch none and match its content of G and C. */
  readonly background?: number;
  /** Only these chromosomes of the genome. */
  readonly chromosomes?: readonly string[];
  /** BED files. */
  readonly gaps?: string;
  readonly limit?: string;
  readonly blacklist?: string;
  readonly unmappable?: string;
  /** Sequences with this share of unmappable bins, or more, are dropped. */
  readonly unmappableLimit: number;
  /** Targets in unmappable bins are held to this quantile of the sequence, per track; 1 leaves them. */
  readonly unmappableClip: number;
  /** Stores each sequence's unmappable bins as the feature `umap` of its record. */
  readonly storeUnmappable?: boolean;
  /** Between the starts of training sequences, in bp. */
  readonly strideTrainBp: number;
  /** Of the other splits. */
  readonly strideTestBp: number;
  readonly snapBp: number;
  /** Contigs are halved until none is longer, before they are divided. */
  readonly breakAboveBp: number;
  /** Fills missing values from their neighbours. */
  readonly interpolate: boolean;
  /** A track without a chromosome: an error, or zeros. */
  readonly absent: 'error' | 'zero';
  /** A chromosome's length in a track may differ from the genome's by this, in bp. */
  readonly lengthToleranceBp: number;
  readonly precision: Precision;
  /** The transforms of Borzoi's paper. */
  readonly published: boolean;
  /**
   * Every track is held to ± this quantile of all its targets, as baskerville does with 0.9999999. Tracks are then read
   * twice.
   */
  readonly extremeQuantile?: number;
  /** One byte per base, or four. */
  readonly sequence: 'codes' | 'one-hot';
  /** Shuffles the sequences of each split. */
  readonly shuffle: boolean;
  readonly seed: number;
  /** Keeps this share of the sequences of each split. */
  readonly sample: number;
  readonly recordsPerShard: number;
  /** Targets held in memory at once, in bytes. */
  readonly memoryBytes: number;
}

/** Every option that has a default. */
export const PREPARE_DEFAULTS: Omit<
  PrepareOptions,
  'genome' | 'tracks' | 'split' | 'strideTrainBp' | 'strideTestBp'
> = {
  sequenceLengthBp: 131_072,
  cropBp: 0,
  poolWidthBp: 128,
  unmappableLimit: 0.5,
  unmappableClip: 1,
  snapBp: 1,
  breakAboveBp: 786_432,
  interpolate: false,
  absent: 'error',
  lengthToleranceBp: 0,
  precision: 'f64',
  published: false,
  sequence: 'codes',
  shuffle: true,
  seed: 44,
  sample: 1,
  recordsPerShard: 256,
  memoryBytes: 256 * 2 ** 20,
};

/**
 * Bases of a sequence beyond its place, at each end: places are where the targets are. A place of contact maps is the
 * whole sequence, as in Akita's `sequences.bed`.
 */
export function beyondBp({ contacts, cropBp }: PrepareOptions): number {
  return contacts ? 0 : cropBp;
}

/** How a track of contact maps is opened. */
export function mapOptions(binBp: number, { normalization }: ContactOptions): ContactMapOptions {
  return { binBp, ...(normalization === undefined ? {} : { normalization }) };
}

/** Everything that is wrong with the numbers alone, each with what to change. */
export function wrongOptions(options: PrepareOptions): string[] {
  const { sequenceLengthBp, cropBp, poolWidthBp, snapBp, split } = options;
  const wrong: string[] = [];
  const coreBp = sequenceLengthBp - 2 * cropBp;
  const whole = (name: keyof PrepareOptions, least: number): void => {
    const value = options[name];
    if (!Number.isSafeInteger(value) || (value as number) < least)
      wrong.push(`${name} is ${value}; it must be a whole number of at least ${least}`);
  };
  const share = (name: string, value: number): void => {
    if (!(value >= 0 && value <= 1)) wrong.push(`${name} is ${value}; it must be between 0 and 1`);
  };
  const positive = [
    'sequenceLengthBp',
    'poolWidthBp',
    'strideTrainBp',
    'strideTestBp',
    'snapBp',
    'breakAboveBp',
    'recordsPerShard',
  ] as const;
  for (const name of positive) whole(name, 1);
  whole('cropBp', 0);
  whole('lengthToleranceBp', 0);
  whole('seed', 0);
  share('unmappableLimit', options.unmappableLimit);
  share('unmappableClip', options.unmappableClip);
  share('sample', options.sample);
  if (options.extremeQuantile !== undefined) share('extremeQuantile', options.extremeQuantile);
  if (coreBp < poolWidthBp || coreBp % poolWidthBp !== 0) {
    wrong.push(
      `sequenceLengthBp ${sequenceLengthBp} - 2 × cropBp ${cropBp} leaves ${coreBp} bp, which are not whole bins of poolWidthBp ${poolWidthBp}`,
    );
  }
  if (options.contacts) wrong.push(...wrongContacts(options, options.contacts));
  for (const name of ['strideTrainBp', 'strideTestBp'] as const) {
    if (options[name] % snapBp !== 0)
      wrong.push(`${name} ${options[name]} is no multiple of snapBp ${snapBp}`);
  }
  if (split.kind === 'folds' && !(Number.isSafeInteger(split.folds) && split.folds >= 2))
    wrong.push(`folds is ${split.folds}; it must be 2 or more`);
  if (split.kind === 'fractions' && !(split.valid >= 0 && split.test >= 0 && split.valid + split.test < 1))
    wrong.push(`valid ${split.valid} and test ${split.test} should be shares that leave some for train`);
  if (split.kind === 'chromosomes') {
    const both = split.valid.filter((name) => split.test.includes(name));
    if (both.length > 0) wrong.push(`${both.join(', ')} is in both valid and test`);
  }
  if (options.peaks !== undefined) wrong.push(...wrongPeaks(options));
  if (options.background !== undefined && (options.peaks === undefined || !(options.background > 0)))
    wrong.push(
      `background is ${options.background} places for each of peaks; give peaks, and a number above 0`,
    );
  if (options.unmappable === undefined && (options.storeUnmappable || options.unmappableClip < 1))
    wrong.push('unmappable bins are to be stored or clipped, but there is no BED of unmappable stretches');
  if (options.tracks.length === 0) wrong.push('there are no tracks; name at least one bigWig');
  for (const { identifier, statistic, scale, clip = 1, clipSoft = 1, strandPair } of options.tracks) {
    if (!Number.isFinite(scale) || !(clip > 0) || !(clipSoft > 0))
      wrong.push(
        `track ${identifier}: scale ${scale}, clip ${clip} and clipSoft ${clipSoft} should be numbers, the clips above 0`,
      );
    if (statistic === 'max' && scale < 0)
      wrong.push(
        `track ${identifier}: the max of a track with scale ${scale} is its least value; give a positive scale`,
      );
    if (strandPair !== undefined && !(strandPair in options.tracks))
      wrong.push(
        `track ${identifier}: strandPair ${strandPair} names no track; they count from 0 to ${options.tracks.length - 1}`,
      );
  }
  return wrong;
}

function wrongContacts(
  options: PrepareOptions,
  { diagonalOffset, clip, smoothing, normalization }: ContactOptions,
): string[] {
  const { sequenceLengthBp, cropBp, poolWidthBp, snapBp } = options;
  const wrong: string[] = [];
  const side = (sequenceLengthBp - 2 * cropBp) / poolWidthBp - diagonalOffset;
  if (snapBp % poolWidthBp !== 0 || cropBp % poolWidthBp !== 0 || sequenceLengthBp % poolWidthBp !== 0)
    wrong.push(
      `contact maps have whole bins: snapBp ${snapBp}, cropBp ${cropBp} and sequenceLengthBp ${sequenceLengthBp} must be multiples of poolWidthBp ${poolWidthBp}`,
    );
  if (!(Number.isSafeInteger(diagonalOffset) && diagonalOffset >= 1 && side >= 1))
    wrong.push(
      `diagonalOffset is ${diagonalOffset}; it must be a whole number from 1 that leaves some of the map`,
    );
  if (!(clip > 0) || !(smoothing >= 0))
    wrong.push(`clip ${clip} must be above 0 and smoothing ${smoothing} not below`);
  if (normalization === 'NONE')
    wrong.push('observed over expected is of balanced contacts; choose a normalization other than NONE');
  return wrong;
}

function wrongPeaks({ split, gaps, limit, contacts }: PrepareOptions): string[] {
  const wrong: string[] = [];
  if (split.kind !== 'chromosomes')
    wrong.push('peaks are divided by chromosome; name those of valid and test');
  if (gaps !== undefined || limit !== undefined)
    wrong.push('gaps and limit shape contigs, and peaks need none; leave them out');
  if (contacts) wrong.push('peaks are for tracks; contact maps begin at bins');
  return wrong;
}
