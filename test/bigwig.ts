/** A bigWig file for tests: one R-tree leaf, no zoom levels. The layout is that of Kent et al. 2010, supplement. */
import { writeFileSync } from 'node:fs';
import { deflateSync } from 'node:zlib';

export interface WigValue {
  readonly chrom: string;
  readonly start: number;
  readonly end: number;
  readonly value: number;
}

const KEY_BYTES = 16;
const SECTION_ITEMS = 64;

/** Writes values, ordered by chromosome and start. Chromosomes are numbered as they come. */
export function writeBigWig(
  path: string,
  chromosomes: Readonly<Record<string, number>>,
  values: readonly WigValue[],
): void {
  const ids = new Map(Object.keys(chromosomes).map((name, id) => [name, id]));
  const sections = [...ids].flatMap(([name, id]) =>
    sectionsOf(
      id,
      values.filter(({ chrom }) => chrom === name),
    ),
  );
  const tree = chromosomeTree(chromosomes);
  const treeAt = 64 + 40;
  const dataAt = treeAt + tree.length;
  let at = dataAt + 4;
  const leaves = sections.map(({ id, start, end, bytes }) => {
    const leaf = words([id, start, id, end], [BigInt(at), BigInt(bytes.length)]);
    at += bytes.length;
    return leaf;
  });
  const index = Buffer.concat([
    words([0x2468ace0, Math.max(1, sections.length)], [BigInt(sections.length)]),
    words([0, 0, ids.size, 2 ** 31], [BigInt(at)]),
    words([SECTION_ITEMS, 0]),
    nodeHead(true, sections.length),
    ...leaves,
  ]);
  const head = Buffer.alloc(64);
  head.writeUInt32LE(0x888ffc26, 0);
  head.writeUInt16LE(4, 4);
  for (const [i, offset] of [treeAt, dataAt, at].entries()) head.writeBigUInt64LE(BigInt(offset), 8 + 8 * i);
  head.writeBigUInt64LE(64n, 44);
  head.writeUInt32LE(32_768, 52);
  const data = [words([sections.length]), ...sections.map(({ bytes }) => bytes)];
  writeFileSync(path, Buffer.concat([head, Buffer.alloc(40), tree, ...data, index]));
}

function chromosomeTree(chromosomes: Readonly<Record<string, number>>): Buffer {
  const entries = Object.entries(chromosomes).map(([name, length], id) => {
    const entry = Buffer.alloc(KEY_BYTES + 8);
    entry.write(name);
    entry.writeUInt32LE(id, KEY_BYTES);
    entry.writeUInt32LE(length, KEY_BYTES + 4);
    return entry;
  });
  const head = words([0x78ca8c91, entries.length, KEY_BYTES, 8], [BigInt(entries.length), 0n]);
  return Buffer.concat([head, nodeHead(true, entries.length), ...entries]);
}

/** Compressed blocks of bedGraph items. */
function sectionsOf(
  id: number,
  values: readonly WigValue[],
): { id: number; start: number; end: number; bytes: Buffer }[] {
  return Array.from({ length: Math.ceil(values.length / SECTION_ITEMS) }, (_, i) => {
    const items = values.slice(i * SECTION_ITEMS, (i + 1) * SECTION_ITEMS);
    const [start, end] = [items[0]!.start, items.at(-1)!.end];
    const block = Buffer.alloc(24 + 12 * items.length);
    for (const [at, word] of [id, start, end, 0, 0].entries()) block.writeUInt32LE(word, 4 * at);
    block[20] = 1; // bedGraph
    block.writeUInt16LE(items.length, 22);
    for (const [item, value] of items.entries()) {
      block.writeUInt32LE(value.start, 24 + 12 * item);
      block.writeUInt32LE(value.end, 28 + 12 * item);
      block.writeFloatLE(value.value, 32 + 12 * item);
    }
    return { id, start, end, bytes: deflateSync(block) };
  });
}

function nodeHead(leaf: boolean, count: number): Buffer {
  const head = Buffer.alloc(4);
  head[0] = leaf ? 1 : 0;
  head.writeUInt16LE(count, 2);
  return head;
}

/** 32-bit words, then 64-bit ones. */
function words(narrow: readonly number[], wide: readonly bigint[] = []): Buffer {
  const bytes = Buffer.alloc(4 * narrow.length + 8 * wide.length);
  for (const [i, word] of narrow.entries()) bytes.writeUInt32LE(word, 4 * i);
  for (const [i, word] of wide.entries()) bytes.writeBigUInt64LE(word, 4 * narrow.length + 8 * i);
  return bytes;
}
