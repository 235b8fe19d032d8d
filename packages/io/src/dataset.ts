/** Data sets of TFRecord shards, as basenji, baskerville, Akita and Enformer publish them. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RecordShape, SequenceRecord, Targets } from './record.ts';
import { SplitReader, type StreamedRecord, type StreamOptions, type StreamPosition } from './shards.ts';
import { readStatistics } from './statistics.ts';
import { parseTargets, type TargetTrack } from './targets-table.ts';

export interface OpenOptions {
  /** Decoded bytes to keep in memory; splits beyond are read again each epoch. Default 512 MiB. */
  readonly cacheBytes?: number;
  /** Lets NaN and infinite targets through. */
  readonly allowNonFinite?: boolean;
  /**
   * Threads that read and decode, so that this one is free; none by default. Records are then read again each epoch. When
   * shuffling, four shards are open at a time, each in one thread. The order does not depend on the number.
   */
  readonly workers?: number;
}

export interface BatchOptions extends StreamOptions {
  /** Records per batch. */
  readonly batch: number;
}

export interface RecordBatch {
  /** Each record's index in its split, in natural file order. */
  readonly ids: readonly number[];
  readonly records: readonly SequenceRecord[];
  /** Just after the batch: a stream given this goes on with the next one. */
  readonly position: StreamPosition;
}

export interface Split {
  /** Shards in natural order. */
  readonly files: readonly string[];
  /** Records as stated by the data set, where it does; `count` says how many there are. */
  readonly records?: number;
}

/** Files of records of one shape. Holds no file open between uses. */
export interface ShardSet extends RecordShape {
  readonly splits: Readonly<Record<string, Split>>;
  /** How many records a split holds. Its first use reads all of its files once, unless `shards.json` counts them. */
  count(split: string): Promise<number>;
  /** Records one by one, the caller's to keep; the order depends on the files and the options only. */
  stream(split: string, options?: StreamOptions): AsyncGenerator<StreamedRecord, void, undefined>;
  /**
   * Records in batches, which cross epochs when repeating; else the last one may be short. A batch is valid until the next is
   * asked for: its memory is used again. Memory for decoded records: twice the batch and the shuffle buffer.
   */
  batches(split: string, options: BatchOptions): AsyncGenerator<RecordBatch, void, undefined>;
}

/** A published data set. */
export interface Dataset extends ShardSet {
  /** The folder. */
  readonly dir: string;
  readonly poolWidthBp: number;
  /** Bases at each end of a sequence without targets, in bp. */
  readonly cropBp: number;
  /** Contact maps only: the first stored diagonal of the upper triangle. */
  readonly diagonalOffset?: number;
  /** One per target, or none when there is no targets.txt. */
  readonly targets: readonly TargetTrack[];
}

const DEFAULT_CACHE_BYTES = 512 * 2 ** 20;

/**
 * The data set in folder `dir`: `statistics.json`, `targets.txt` (optional) and `tfrecords/{split}-{i}.tfr`.
 *
 * @throws when `statistics.json` or the records are missing, or they or `targets.txt` make no sense
 */
export async function openDataset(dir: string, options: OpenOptions = {}): Promise<Dataset> {
  const { records, ...sizes } = await readStatistics(dir);
  const splits: Record<string, Split> = {};
  for (const [split, files] of await findShards(dir)) {
    const stated = records[split];
    splits[split] = stated === undefined ? { files } : { files, records: stated };
  }
  const targets = await readTargets(dir, sizes.numTargets);
  return { dir, ...sizes, targets, ...openSplits(splits, sizes, { ...options, dir }) };
}

/** TFRecord files without `statistics.json`, as the one split `train`. */
export function openShards(
  files: readonly string[],
  shape: RecordShape,
  options: OpenOptions = {},
): ShardSet {
  return { ...shape, ...openSplits({ train: { files } }, shape, options) };
}

async function findShards(dir: string): Promise<ReadonlyMap<string, readonly string[]>> {
  const folder = join(dir, 'tfrecords');
  const names = await readdir(folder).catch((cause: unknown) => {
    throw new Error(`${folder}: cannot list the records; expected files named {split}-{i}.tfr there`, {
      cause,
    });
  });
  const shards = names.flatMap((name) => {
    const [, split, number] = /^(.+)-(\d+)\.tfr$/.exec(name) ?? [];
    return split === undefined ? [] : [{ split, number: Number(number), path: join(folder, name) }];
  });
  if (shards.length === 0) {
    throw new Error(`${folder}: expected files named {split}-{i}.tfr, found ${names.length} other files`);
  }
  const splits = new Map<string, string[]>();
  for (const { split, path } of shards.toSorted((a, b) => a.number - b.number)) {
    splits.set(split, [...(splits.get(split) ?? []), path]);
  }
  return splits;
}

async function readTargets(dir: string, numTargets: number): Promise<readonly TargetTrack[]> {
  const path = join(dir, 'targets.txt');
  try {
    return parseTargets(await readFile(path, 'utf8'), path, numTargets);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}

type Reading = Pick<ShardSet, 'splits' | 'count' | 'stream' | 'batches'>;

function openSplits(
  splits: Readonly<Record<string, Split>>,
  shape: RecordShape,
  {
    cacheBytes = DEFAULT_CACHE_BYTES,
    allowNonFinite = false,
    workers = 0,
    dir,
  }: OpenOptions & { readonly dir?: string },
): Reading {
  const shardOptions = { shape, allowNonFinite, budget: { bytesLeft: cacheBytes }, workers, dir };
  const readers = new Map(
    Object.entries(splits).map(([name, { files }]) => [name, new SplitReader(name, files, shardOptions)]),
  );
  const reader = (split: string): SplitReader => {
    const found = readers.get(split);
    if (found) return found;
    throw new Error(`no split ${split}; this data set has ${[...readers.keys()].join(', ')}`);
  };
  return {
    splits,
    count: async (split) => await reader(split).count(),
    stream: (split, options = {}) => copied(reader(split).stream(options, 1)),
    batches: (split, { batch, ...options }) => grouped(reader(split).stream(options, batch), batch),
  };
}

async function* copied(
  stream: AsyncIterable<StreamedRecord>,
): AsyncGenerator<StreamedRecord, void, undefined> {
  for await (const { record, ...place } of stream) {
    const { sequence, targets } = record;
    const own = { ...targets, data: targets.data.slice() } as Targets;
    yield { ...place, record: { ...record, sequence: sequence.slice(), targets: own } };
  }
}

/** A stream in batches; the last one may be short. */
export async function* grouped(
  stream: AsyncIterable<StreamedRecord>,
  size: number,
): AsyncGenerator<RecordBatch, void, undefined> {
  if (!Number.isSafeInteger(size) || size < 1)
    throw new Error(`batch should be an integer >= 1, found ${size}`);
  let held: StreamedRecord[] = [];
  for await (const streamed of stream) {
    held.push(streamed);
    if (held.length < size) continue;
    yield toBatch(held);
    held = [];
  }
  if (held.length > 0) yield toBatch(held);
}

function toBatch(streamed: readonly StreamedRecord[]): RecordBatch {
  return {
    ids: streamed.map(({ id }) => id),
    records: streamed.map(({ record }) => record),
    position: streamed.at(-1)!.position,
  };
}
