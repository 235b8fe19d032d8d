/** `statistics.json`: the sizes of a published data set. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface Statistics {
  readonly sequenceLengthBp: number;
  readonly targetLength: number;
  readonly numTargets: number;
  readonly poolWidthBp: number;
  /** Bases at each end of a sequence without targets, in bp. */
  readonly cropBp: number;
  /** Contact maps only: the first stored diagonal of the upper triangle. */
  readonly diagonalOffset?: number;
  /** Stored as one code per base. */
  readonly sequenceCoded: boolean;
  /** Records per split, as stated; basenji counts before it filters. */
  readonly records: Readonly<Record<string, number>>;
}

const EXPECTED =
  'a data set folder holds statistics.json (num_targets, seq_length, target_length, pool_width, crop_bp), targets.txt and tfrecords/{split}-{i}.tfr';

/**
 * The statistics of the data set in `dir`.
 *
 * @throws when the file is missing, is no JSON, lacks a size, or its sizes contradict each other
 */
export async function readStatistics(dir: string): Promise<Statistics> {
  const path = join(dir, 'statistics.json');
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new Error(
      `${dir}: cannot read statistics.json: ${EXPECTED}; give the folder that holds it, or openShards for bare files`,
      { cause },
    );
  });
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new Error(
      `${path}: not JSON (${(cause as Error).message}); ${EXPECTED}; write or download it again`,
      { cause },
    );
  }
  if (typeof parsed !== 'object' || parsed === null)
    throw new Error(`${path}: expected an object; ${EXPECTED}`);
  return checkSizes(toStatistics(new Map(Object.entries(parsed)), path), path);
}

/** The text of `statistics.json`. */
export function formatStatistics(statistics: Statistics): string {
  const counts = Object.entries(statistics.records).map(([split, count]) => [`${split}_seqs`, count]);
  const entries = {
    num_targets: statistics.numTargets,
    seq_length: statistics.sequenceLengthBp,
    seq_1hot: statistics.sequenceCoded,
    pool_width: statistics.poolWidthBp,
    crop_bp: statistics.cropBp,
    ...(statistics.diagonalOffset === undefined ? {} : { diagonal_offset: statistics.diagonalOffset }),
    target_length: statistics.targetLength,
    ...Object.fromEntries(counts),
  };
  return `${JSON.stringify(entries, null, 4)}\n`;
}

function toStatistics(entries: ReadonlyMap<string, unknown>, path: string): Statistics {
  const size = (key: string, least: number): number => {
    const value = entries.get(key);
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least) return value;
    throw new Error(
      `${path}: ${key} should be an integer >= ${least}, found ${JSON.stringify(value) ?? 'nothing'}; ${EXPECTED}`,
    );
  };
  const records: Record<string, number> = {};
  for (const key of entries.keys()) if (key.endsWith('_seqs')) records[key.slice(0, -5)] = size(key, 0);
  return {
    sequenceLengthBp: size('seq_length', 1),
    targetLength: size('target_length', 1),
    numTargets: size('num_targets', 1),
    poolWidthBp: size('pool_width', 1),
    cropBp: entries.has('crop_bp') ? size('crop_bp', 0) : 0,
    ...(entries.has('diagonal_offset') ? { diagonalOffset: size('diagonal_offset', 0) } : {}),
    sequenceCoded: entries.get('seq_1hot') === true,
    records,
  };
}

/** `(seq_length − 2 crop_bp) / pool_width` bins, or the entries of their upper triangle. */
function checkSizes(statistics: Statistics, path: string): Statistics {
  const { sequenceLengthBp, targetLength, poolWidthBp, cropBp, diagonalOffset } = statistics;
  const bins = (sequenceLengthBp - 2 * cropBp) / poolWidthBp;
  const side = diagonalOffset === undefined ? 0 : bins - diagonalOffset;
  const expected = diagonalOffset === undefined ? bins : (side * (side + 1)) / 2;
  if (expected === targetLength) return statistics;
  throw new Error(
    `${path}: target_length is ${targetLength} but seq_length ${sequenceLengthBp}, crop_bp ${cropBp} and pool_width ${poolWidthBp} make ${expected}; correct the one that is wrong`,
  );
}
