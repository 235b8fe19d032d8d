/** Signal along a genome. */
import { BigWig } from '@gmod/bbi';
import { checkPlace } from './bases.ts';
import { checkedZlib, MAX_INFLATION } from './checked-file.ts';
import type { Span } from './intervals.ts';
import { OpenFile } from './open-file.ts';

/** Values by place. Close it. */
export interface Track {
  readonly path: string;
  /** Chromosomes with data, under the names of the file, with their lengths in bp. */
  readonly chromosomes: ReadonlyMap<string, number>;
  /** All of it is held in memory: keep it, rather than open it again. */
  readonly inMemory?: boolean;
  /** What was passed over when it was opened, with numbers. */
  readonly warnings?: readonly string[];
  /**
   * A value for each bp; NaN where the file has none. `[endBp - startBp]`
   *
   * @throws for an unknown chromosome, a place outside it, or damage
   */
  read(chrom: string, startBp: number, endBp: number): Promise<Float32Array>;
  close(): Promise<void>;
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
        return await readValues(reader, `${path}: ${chrom}:${startBp}-${endBp}`, chrom, startBp, endBp);
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** No zoom level is this fine: only the data itself is. The reader's default may take a level of 2 bp. */
const FULL_RESOLUTION = { scale: Number.MAX_VALUE };

async function readValues(
  reader: BigWig,
  where: string,
  chrom: string,
  startBp: number,
  endBp: number,
): Promise<Float32Array> {
  const values = new Float32Array(endBp - startBp).fill(Number.NaN);
  if (values.length === 0) return values;
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
  return values;
}

interface WigFeature {
  readonly start: number;
  readonly end: number;
  readonly score?: number;
  readonly summary?: boolean;
}
