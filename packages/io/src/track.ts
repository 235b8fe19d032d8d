/** Signal along a genome. */
import { BigWig } from '@gmod/bbi';
import { checkPlace } from './bases.ts';
import { checkedZlib, MAX_INFLATION } from './checked-file.ts';
import type { Interval, Span } from './intervals.ts';
import { OpenFile } from './open-file.ts';

/** Values by place. Close it. */
export interface Track {
  readonly path: string;
  /** Chromosomes with data, under the names of the file, with their lengths in bp. */
  readonly chromosomes: ReadonlyMap<string, number>;
  /** It takes as long to open as to read: keep it open. */
  readonly keepOpen?: boolean;
  /** What was passed over when it was opened, with numbers. */
  readonly warnings?: readonly string[];
  /**
   * A value for each bp; NaN where the file has none. `[endBp - startBp]`
   *
   * @throws for an unknown chromosome, a place outside it, or damage
   */
  read(chrom: string, startBp: number, endBp: number): Promise<Float32Array>;
  /** What the file says of its values without reading them; `withValues` is of these chromosomes. */
  summary?(chromosomes: readonly string[]): Promise<StoredSummary>;
  close(): Promise<void>;
}

export interface StoredSummary {
  /** Blocks of values. */
  readonly blocks: number;
  readonly coveredBp: number;
  readonly min: number;
  readonly max: number;
  readonly hasNan: boolean;
  /** Chromosomes with values; undefined where the file has no zoom levels. */
  readonly withValues: ReadonlySet<string> | undefined;
}

/**
 * The track of a bigWig file, at full resolution.
 *
 * @throws when the file is no bigWig, is cut before its index, or names no chromosomes
 */
export async function openBigWig(path: string): Promise<Track> {
  const file = await OpenFile.open(path);
  try {
    let sections: Span = [0, 0];
    const isSection = (position: number): boolean => position > sections[0] && position < sections[1];
    const reader = new BigWig({ filehandle: checkedZlib(file, isSection) });
    const header = await reader.getHeader().catch((cause: unknown) => {
      throw new Error(`${path}: no sound bigWig file: ${(cause as Error).message}`, { cause });
    });
    if (header.fileType !== 'bigwig')
      throw new Error(`${path}: this is a bigBed file, which holds intervals; give a bigWig`);
    if (header.uncompressBufSize > 0) sections = [header.unzoomedDataOffset, header.unzoomedIndexOffset];
    if (header.uncompressBufSize > MAX_INFLATION * file.bytes)
      throw new Error(
        `${path}: blocks of ${header.uncompressBufSize} bytes in a file of ${file.bytes}; it is damaged`,
      );
    const entries = Object.values(header.refsByNumber).flatMap((entry) => (entry ? [entry] : []));
    const chromosomes = new Map(entries.map(({ name, length }) => [name, length]));
    if (chromosomes.size === 0) throw new Error(`${path}: the bigWig names no chromosomes`);
    return {
      path,
      chromosomes,
      read: async (chrom, startBp, endBp) => {
        checkPlace(path, chromosomes, chrom, startBp, endBp);
        const values = new Float32Array(endBp - startBp).fill(Number.NaN);
        for (let from = startBp; from < endBp; from += PIECE_BP) {
          const to = Math.min(endBp, from + PIECE_BP);
          await readValues(
            reader,
            path,
            { chrom, startBp: from, endBp: to },
            values.subarray(from - startBp, to - startBp),
          );
        }
        return values;
      },
      summary: (chosen) =>
        readSummary(reader, file, new Map(chosen.map((name) => [name, chromosomes.get(name)!]))),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Values come as an object each: of so many bp at a time. */
const PIECE_BP = 2 ** 16;
/** No zoom level is this fine: only the data itself is. The reader's default may take a level of 2 bp. */
const FULL_RESOLUTION = { scale: Number.MAX_VALUE };
/** And this coarse is only the coarsest one. */
const COARSEST = { scale: Number.MIN_VALUE };

/** Into `values`, which are NaN. `[endBp - startBp]` */
async function readValues(
  reader: BigWig,
  path: string,
  { chrom, startBp, endBp }: Interval,
  values: Float32Array,
): Promise<void> {
  const where = `${path}: ${chrom}:${startBp}-${endBp}`;
  const features = await reader
    .getFeatures(chrom, startBp, endBp, FULL_RESOLUTION)
    .catch((cause: unknown) => {
      throw new Error(`${where}: damaged data: ${cause instanceof Error ? cause.message : cause}`, { cause });
    });
  for (const { start, end, score, summary } of features as readonly WigFeature[]) {
    if (summary || score === undefined || !(start < end))
      throw new Error(`${where}: damaged data: a value at ${start}-${end}`);
    values.fill(score, Math.max(0, start - startBp), Math.max(0, end - startBp));
  }
}

/** @throws when the summaries are damaged */
async function readSummary(
  reader: BigWig,
  file: OpenFile,
  chromosomes: ReadonlyMap<string, number>,
): Promise<StoredSummary> {
  const { totalSummary, zoomLevels, unzoomedIndexOffset } = await reader.getHeader();
  const { basesCovered, scoreMin, scoreMax, scoreSum } = totalSummary;
  const sums = [scoreMin, scoreMax, scoreSum];
  return {
    blocks: await countBlocks(file, unzoomedIndexOffset),
    coveredBp: basesCovered,
    min: scoreMin,
    max: scoreMax,
    hasNan: sums.some(Number.isNaN),
    withValues:
      zoomLevels.length === 0 ? undefined : await chromosomesWithValues(reader, file.path, chromosomes),
  };
}

const INDEX_HEAD_BYTES = 16;

/** The number of blocks that the index of the values names: Kent et al. 2010, supplement, table 14. */
async function countBlocks(file: OpenFile, indexAt: number): Promise<number> {
  if (indexAt === 0) return 0; // no values were ever added
  const head = await file.read(INDEX_HEAD_BYTES, indexAt);
  if (head.length < INDEX_HEAD_BYTES)
    throw new Error(`${file.path}: cut short within the index of its values`);
  return Number(new DataView(head.buffer, head.byteOffset).getBigUint64(8, true));
}

async function chromosomesWithValues(
  reader: BigWig,
  path: string,
  chromosomes: ReadonlyMap<string, number>,
): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  for (const [chrom, length] of chromosomes) {
    const features = await reader.getFeatures(chrom, 0, length, COARSEST).catch((cause: Error) => {
      throw new Error(`${path}: ${chrom}: damaged zoom level: ${cause.message}`, { cause });
    });
    if (features.length > 0) found.add(chrom);
  }
  return found;
}

interface WigFeature {
  readonly start: number;
  readonly end: number;
  readonly score?: number;
  readonly summary?: boolean;
}
