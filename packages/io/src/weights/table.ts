/**
 * LevelDB's sorted tables, in which TensorFlow keeps the index of a checkpoint: blocks of prefix-compressed keys, each
 * with its type and CRC, a block of their places, and a footer.
 * https://github.com/google/leveldb/blob/main/doc/table_format.md
 */
import { maskedCrc } from '../crc.ts';
import { readVarint, unsnap } from './snappy.ts';
import type { Source } from './source.ts';

const FOOTER_BYTES = 48;
const MAGIC = 0xdb4775248b80fb57n;
const TRAILER_BYTES = 5; // type and masked CRC-32C
const SNAPPY = 1;
const RESTART_INTERVAL = 16;
const BLOCK_BYTES = 4096;

/** Whether a file ends as such a table does. */
export async function isTable({ size, read }: Source): Promise<boolean> {
  if (size < FOOTER_BYTES) return false;
  return viewOf(await read(size - 8, 8, 'the footer of the table')).getBigUint64(0, true) === MAGIC;
}

/** Keys (as text) and values in the order of the table. @throws when a block is damaged. */
export async function readTable(source: Source): Promise<(readonly [key: string, value: Uint8Array])[]> {
  try {
    return await readEntries(source);
  } catch (cause) {
    const { message } = cause as Error;
    throw message.startsWith(source.path) ? cause : new Error(`${source.path}: ${message}`, { cause });
  }
}

async function readEntries(source: Source): Promise<(readonly [key: string, value: Uint8Array])[]> {
  const footer = await source.read(source.size - FOOTER_BYTES, FOOTER_BYTES, 'the footer of the table');
  const meta = readHandle(footer, 0);
  const index = readHandle(footer, meta.next);
  const entries: (readonly [string, Uint8Array])[] = [];
  for (const [, handle] of blockEntries(await readBlock(source, index), source.path)) {
    const block = await readBlock(source, readHandle(handle, 0));
    for (const [key, value] of blockEntries(block, source.path))
      entries.push([new TextDecoder().decode(key), value]);
  }
  return entries;
}

interface Handle {
  readonly offset: number;
  readonly size: number;
  readonly next: number;
}

function readHandle(bytes: Uint8Array, at: number): Handle {
  const offset = readVarint(bytes, at);
  const size = readVarint(bytes, offset.next);
  return { offset: offset.value, size: size.value, next: size.next };
}

async function readBlock(source: Source, { offset, size }: Handle): Promise<Uint8Array> {
  const where = `${source.path}: the table block at byte ${offset}`;
  const stored = await source.read(offset, size + TRAILER_BYTES, `the table block at byte ${offset}`);
  const expected = viewOf(stored).getUint32(size + 1, true);
  const found = maskedCrc(stored.subarray(0, size + 1));
  if (found !== expected)
    throw new Error(
      `${where}: expected masked CRC-32C ${expected}, found ${found}; the file is damaged, download or write it again`,
    );
  const type = stored[size]!;
  const block = stored.subarray(0, size);
  if (type === 0) return block;
  if (type === SNAPPY) return unsnap(block);
  throw new Error(`${where}: expected a block that is stored (0) or of Snappy (1), found type ${type}`);
}

function blockEntries(block: Uint8Array, path: string): (readonly [key: Uint8Array, value: Uint8Array])[] {
  const damaged = (): Error => new Error(`${path}: an entry runs past its table block; the file is damaged`);
  if (block.length < 4) throw damaged();
  const restarts = viewOf(block).getUint32(block.length - 4, true);
  const end = block.length - 4 - 4 * restarts;
  const entries: (readonly [Uint8Array, Uint8Array])[] = [];
  let key = new Uint8Array(0);
  for (let at = 0; at < end; ) {
    const shared = readVarint(block, at);
    const own = readVarint(block, shared.next);
    const length = readVarint(block, own.next);
    const valueAt = length.next + own.value;
    at = valueAt + length.value;
    if (shared.value > key.length || at > end) throw damaged();
    key = joined(key.subarray(0, shared.value), block.subarray(length.next, valueAt));
    entries.push([key, block.subarray(valueAt, at)]);
  }
  if (end < 0) throw damaged();
  return entries;
}

/** The bytes of a table of these entries, which are in the order of their keys' bytes; blocks are stored as they are. */
export function tableBytes(entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[]): Uint8Array {
  const pieces: Uint8Array[] = [];
  const places: (readonly [Uint8Array, Uint8Array])[] = [];
  let at = 0;
  const append = (block: Uint8Array): Uint8Array => {
    const stored = withTrailer(block);
    const handle = Uint8Array.from([...varint(at), ...varint(block.length)]);
    pieces.push(stored);
    at += stored.length;
    return handle;
  };
  for (const block of inBlocks(entries))
    places.push([block.at(-1)![0], append(encodeBlock(block, RESTART_INTERVAL))]);
  const meta = append(encodeBlock([], 1));
  const index = append(encodeBlock(places, 1));
  const footer = new Uint8Array(FOOTER_BYTES);
  footer.set(joined(meta, index));
  viewOf(footer).setBigUint64(FOOTER_BYTES - 8, MAGIC, true);
  return Buffer.concat([...pieces, footer]);
}

type Entries = readonly (readonly [key: Uint8Array, value: Uint8Array])[];

function inBlocks(entries: Entries): Entries[] {
  const blocks: (readonly [Uint8Array, Uint8Array])[][] = [];
  let bytes = BLOCK_BYTES;
  for (const entry of entries) {
    if (bytes >= BLOCK_BYTES) {
      blocks.push([]);
      bytes = 0;
    }
    blocks.at(-1)!.push(entry);
    bytes += entry[0].length + entry[1].length;
  }
  return blocks;
}

function encodeBlock(entries: Entries, restartInterval: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  const restarts: number[] = [];
  let at = 0;
  let last = new Uint8Array(0);
  for (const [i, [key, value]] of entries.entries()) {
    const restart = i % restartInterval === 0;
    if (restart) restarts.push(at);
    const shared = restart ? 0 : sharedLength(last, key);
    const head = Uint8Array.from([
      ...varint(shared),
      ...varint(key.length - shared),
      ...varint(value.length),
    ]);
    const entry = joined(head, key.subarray(shared), value);
    pieces.push(entry);
    at += entry.length;
    last = Uint8Array.from(key);
  }
  if (restarts.length === 0) restarts.push(0);
  return joined(...pieces, new Uint8Array(Uint32Array.of(...restarts, restarts.length).buffer));
}

function withTrailer(block: Uint8Array): Uint8Array {
  const stored = new Uint8Array(block.length + TRAILER_BYTES);
  stored.set(block);
  viewOf(stored).setUint32(block.length + 1, maskedCrc(stored.subarray(0, block.length + 1)), true);
  return stored;
}

function sharedLength(a: Uint8Array, b: Uint8Array): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return [...bytes, rest];
}

const joined = (...pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(Buffer.concat(pieces));
const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
