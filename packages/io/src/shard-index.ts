/** `shards.json`: how many records each shard of a data set holds, so that none is inflated only to count them. */
import { readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { explain } from '@cohesin/core';
import { MAX_INFLATION } from './checked-file.ts';
import { keepIndex } from './keep-index.ts';

interface Shard {
  readonly records: number;
  /** Of the file, when they were counted: with another size it is counted again. */
  readonly bytes: number;
}

export const INDEX = 'shards.json';

const FRAME_BYTES = 16; // of a record without data

/**
 * The records of each of these files, by the index of the data set in `dir`; undefined unless it knows all of them as they are.
 *
 * @throws when the index or a file cannot be read
 */
export async function indexedCounts(
  dir: string,
  files: readonly string[],
): Promise<readonly number[] | undefined> {
  const index = await readIndex(dir);
  const counts: number[] = [];
  for (const file of files) {
    const shard = Object.hasOwn(index, basename(file)) ? index[basename(file)] : undefined;
    if (!isShard(shard) || shard.bytes !== (await sizeOf(file))) return undefined;
    counts.push(shard.records);
  }
  return counts;
}

/** Adds the records counted in files, by path, to the index of the data set in `dir`. */
export async function addToIndex(dir: string, counts: ReadonlyMap<string, number>): Promise<void> {
  const index: Record<string, unknown> = { ...(await readIndex(dir)) };
  for (const [file, records] of counts)
    index[basename(file)] = { records, bytes: await sizeOf(file) } satisfies Shard;
  const rows = Object.entries(index).map(
    ([name, shard]) => `  ${JSON.stringify(name)}: ${JSON.stringify(shard)}`,
  );
  await keepIndex(join(dir, INDEX), new TextEncoder().encode(`{\n${rows.join(',\n')}\n}\n`));
}

async function readIndex(dir: string): Promise<Readonly<Record<string, unknown>>> {
  const path = join(dir, INDEX);
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{}';
    throw explain(path, error);
  });
  try {
    const index: unknown = JSON.parse(text);
    if (typeof index === 'object' && index !== null) return index as Record<string, unknown>;
  } catch {} // told below
  throw new Error(`${path}: not an index of shards; delete it, it is made again`);
}

/** Whether it may be the entry of a file: no index makes more records of it than its bytes can hold. */
function isShard(entry: unknown): entry is Shard {
  if (typeof entry !== 'object' || entry === null) return false;
  const { records, bytes } = entry as Partial<Record<string, unknown>>;
  if (!Number.isSafeInteger(records) || !Number.isSafeInteger(bytes)) return false;
  return Number(records) >= 0 && Number(records) * FRAME_BYTES <= Number(bytes) * MAX_INFLATION;
}

async function sizeOf(file: string): Promise<number> {
  const { size } = await stat(file).catch((cause: unknown) => {
    throw explain(file, cause);
  });
  return size;
}
