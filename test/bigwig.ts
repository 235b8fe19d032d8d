/** A bigWig file for tests: one R-tree leaf, one zoom level if asked for. The layout is that of Kent et al. 2010, supplement. */
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
  { zoom = false }: { zoom?: boolean } = {},
): void {
  const ids = new Map(Object.keys(chromosomes).map((name, id) => [name, id]));
  const sections = [...ids].flatMap(([name, id]) =>
    sectionsOf(
      id,
      values.filter(({ chrom }) => chrom === name),
    ),
  );
  const tree = chromosomeTree(chromosomes);
  const totalsAt = 64 + (zoom ? 24 : 0);
  const treeAt = totalsAt + 40;
  const dataAt = treeAt + tree.length;
  const data = placed(sections, dataAt + 4);
  const indexAt = data.end;
  const index = indexOf(data, ids.size);
  const zoomAt = indexAt + index.length;
  const zoomed = placed(zoom ? summaries(ids, values) : [], zoomAt + 4);
  const head = Buffer.alloc(64);
  head.writeUInt32LE(0x888ffc26, 0);
  head.writeUInt16LE(4, 4);
  head.writeUInt16LE(zoom ? 1 : 0, 6);
  for (const [i, offset] of [treeAt, dataAt, indexAt].entries())
    head.writeBigUInt64LE(BigInt(offset), 8 + 8 * i);
  head.writeBigUInt64LE(BigInt(totalsAt), 44);
  head.writeUInt32LE(32_768, 52);
  const level = words([ZOOM_BP, 0], [BigInt(zoomAt), BigInt(zoomed.end)]);
  writeFileSync(
    path,
    Buffer.concat([
      ...[head, ...(zoom ? [level] : []), totals(values), tree],
      ...[words([sections.length]), data.bytes, index],
      ...(zoom ? [words([zoomed.leaves.length]), zoomed.bytes, indexOf(zoomed, ids.size)] : []),
    ]),
  );
}

const ZOOM_BP = 1000;

interface Section {
  readonly id: number;
  readonly start: number;
  readonly end: number;
  readonly bytes: Buffer;
}

interface PlacedSections {
  readonly bytes: Buffer;
  readonly leaves: readonly Buffer[];
  readonly end: number;
}

/** One after the other, from a place in the file on. */
function placed(sections: readonly Section[], from: number): PlacedSections {
  let end = from;
  const leaves = sections.map(({ id, start, end: last, bytes }) => {
    const leaf = words([id, start, id, last], [BigInt(end), BigInt(bytes.length)]);
    end += bytes.length;
    return leaf;
  });
  return { bytes: Buffer.concat(sections.map(({ bytes }) => bytes)), leaves, end };
}

function indexOf({ leaves, end }: PlacedSections, chromosomes: number): Buffer {
  return Buffer.concat([
    words([0x2468ace0, Math.max(1, leaves.length)], [BigInt(leaves.length)]),
    words([0, 0, chromosomes, 2 ** 31], [BigInt(end)]),
    words([SECTION_ITEMS, 0]),
    nodeHead(true, leaves.length),
    ...leaves,
  ]);
}

/** bp with values, least, greatest, sum and sum of squares. */
function totals(values: readonly WigValue[]): Buffer {
  const bytes = Buffer.alloc(40);
  if (values.length === 0) return bytes;
  const [covered, sum, squares] = [0, 1, 2].map((power) =>
    values.reduce((total, { start, end, value }) => total + (end - start) * value ** power, 0),
  );
  const least = values.reduce((low, { value }) => Math.min(low, value), Number.POSITIVE_INFINITY);
  const most = values.reduce((high, { value }) => Math.max(high, value), Number.NEGATIVE_INFINITY);
  bytes.writeBigUInt64LE(BigInt(covered!));
  for (const [i, value] of [least, most, sum!, squares!].entries()) bytes.writeDoubleLE(value, 8 + 8 * i);
  return bytes;
}

/** A block for each chromosome with values: one summary of all of them. */
function summaries(ids: ReadonlyMap<string, number>, values: readonly WigValue[]): Section[] {
  return [...ids].flatMap(([name, id]) => {
    const own = values.filter(({ chrom }) => chrom === name);
    if (own.length === 0) return [];
    const [start, end] = [own[0]!.start, own.at(-1)!.end];
    const block = words([id, start, end, own.reduce((sum, value) => sum + value.end - value.start, 0)]);
    const numbers = Buffer.alloc(16);
    for (const [i, value] of [0, 9, 1, 1].entries()) numbers.writeFloatLE(value, 4 * i);
    return [{ id, start, end, bytes: deflateSync(Buffer.concat([block, numbers])) }];
  });
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
function sectionsOf(id: number, values: readonly WigValue[]): Section[] {
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
