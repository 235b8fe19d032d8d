/** Data sets of TFRecord shards, as basenji, baskerville, Akita and Enformer publish them. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isDescribed, openDescribed } from './prepare/described.ts';
import type { RecordShape } from './record.ts';
import { copied, type Dataset, grouped, type ShardSet, type Split } from './shard-set.ts';
import { SplitReader } from './shards.ts';
import { readStatistics } from './statistics.ts';
import { readTargets } from './targets-table.ts';

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

const DEFAULT_CACHE_BYTES = 512 * 2 ** 20;

/**
 * The data set in folder `dir`: `statistics.json`, `targets.txt` (optional) and `tfrecords/{split}-{i}.tfr`, or `direct.json`,
 * which says what genome and tracks its records are read from.
 *
 * @throws when `statistics.json` or the records are missing, or they or `targets.txt` make no sense; as `openDescribed`
 */
export async function openDataset(dir: string, options: OpenOptions = {}): Promise<Dataset> {
  if (await isDescribed(dir))
    return await openDescribed(dir, { cacheBytes: DEFAULT_CACHE_BYTES, ...options });
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
