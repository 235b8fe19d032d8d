/** bigWig files, with an index of one or two levels. The layout is that of Kent et al. 2010, supplement. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { deflateSync } from 'node:zlib';

export interface WigValue {
  readonly chrom: string;
  readonly start: number;
  readonly end: number;
  readonly value: number;
}

/** A compressed block of values and the range that it covers. */
export interface WigSection {
  /** The chromosome's place. */
  readonly id: number;
  readonly start: number;
  readonly end: number;
  readonly bytes: Buffer;
}

export interface SectionsOptions {
  readonly itemsPerSection: number;
  /** Of all values, 40 bytes; zeros by default. */
  readonly totals?: Buffer;
  /** Summaries of one zoom level. */
  readonly zoomed?: readonly WigSection[];
}

const KEY_BYTES = 16;
const SECTION_ITEMS = 64;
const LEAF_SECTIONS = 256;
const INDEX_HEAD_BYTES = 48;
const ZOOM_BP = 1000;

/** Writes values, ordered by chromosome and start. Chromosomes are numbered as they come. */
export function writeBigWig(
  path: string,
  chromosomes: Readonly<Record<string, number>>,
  values: readonly WigValue[],
  { zoom = false }: { zoom?: boolean } = {},
): void {
  const names = Object.keys(chromosomes);
  const sections = names.flatMap((name, id) =>
    sectionsOf(
      id,
      values.filter(({ chrom }) => chrom === name),
    ),
  );
  writeSections(path, Object.entries(chromosomes), sections, {
    itemsPerSection: SECTION_ITEMS,
    totals: totals(values),
    ...(zoom && { zoomed: summaries(names, values) }),
  });
}

/** Writes sections, ordered by chromosome and start, one after another: a file may be larger than memory. */
export function writeSections(
  path: string,
  chromosomes: readonly (readonly [name: string, lengthBp: number])[],
  sections: Iterable<WigSection>,
  { itemsPerSection, totals = Buffer.alloc(40), zoomed }: SectionsOptions,
): void {
  const tree = chromosomeTree(chromosomes);
  const totalsAt = 64 + (zoomed ? 24 : 0);
  const treeAt = totalsAt + totals.length;
  const dataAt = treeAt + tree.length;
  const file = openSync(path, 'w');
  const shape = { chromosomes: chromosomes.length, itemsPerSection };
  const data = writeLevel(file, dataAt, sections, shape);
  const zoom = zoomed && writeLevel(file, data.end, zoomed, shape);
  const head = Buffer.alloc(64);
  head.writeUInt32LE(0x888ffc26, 0);
  head.writeUInt16LE(4, 4);
  head.writeUInt16LE(zoom ? 1 : 0, 6);
  for (const [i, offset] of [treeAt, dataAt, data.indexAt].entries())
    head.writeBigUInt64LE(BigInt(offset), 8 + 8 * i);
  head.writeBigUInt64LE(BigInt(totalsAt), 44);
  head.writeUInt32LE(32_768, 52);
  const level = zoom ? [words([ZOOM_BP, 0], [BigInt(data.end), BigInt(zoom.indexAt)])] : [];
  writeSync(file, Buffer.concat([head, ...level, totals, tree]), 0, undefined, 0);
  closeSync(file);
}

/** The first 24 bytes of a block; `type` 1 is bedGraph, 3 fixed steps. */
export function sectionHead(
  { id, start, end }: Omit<WigSection, 'bytes'>,
  { step, span, type, count }: Readonly<Record<'step' | 'span' | 'type' | 'count', number>>,
): Buffer {
  const head = Buffer.alloc(24);
  for (const [i, word] of [id, start, end, step, span].entries()) head.writeUInt32LE(word, 4 * i);
  head[20] = type;
  head.writeUInt16LE(count, 22);
  return head;
}

interface IndexShape {
  readonly chromosomes: number;
  readonly itemsPerSection: number;
}

/** From a place in the file on: the number of sections, the sections, and their index. */
function writeLevel(
  file: number,
  from: number,
  sections: Iterable<WigSection>,
  shape: IndexShape,
): { readonly indexAt: number; readonly end: number } {
  let at = from + 4;
  const leaves: Leaf[] = [];
  for (const { id, start, end, bytes } of sections) {
    writeSync(file, bytes, 0, undefined, at);
    leaves.push({ id, start, end, at, size: bytes.length });
    at += bytes.length;
  }
  writeSync(file, words([leaves.length]), 0, undefined, from);
  const index = indexOf(leaves, at, shape);
  writeSync(file, index, 0, undefined, at);
  return { indexAt: at, end: at + index.length };
}

/** Where a section is. */
interface Leaf {
  readonly id: number;
  readonly start: number;
  readonly end: number;
  readonly at: number;
  readonly size: number;
}

/** An R-tree: one node of leaves, or a root above as many as there must be. */
function indexOf(leaves: readonly Leaf[], at: number, { chromosomes, itemsPerSection }: IndexShape): Buffer {
  const nodes = Array.from({ length: Math.max(1, Math.ceil(leaves.length / LEAF_SECTIONS)) }, (_, i) =>
    leaves.slice(i * LEAF_SECTIONS, (i + 1) * LEAF_SECTIONS),
  );
  return Buffer.concat([
    words([0x2468ace0, Math.max(1, nodes.length, nodes[0]!.length)], [BigInt(leaves.length)]),
    words([0, 0, chromosomes, 2 ** 31], [BigInt(at)]),
    words([itemsPerSection, 0]),
    ...(nodes.length > 1 ? rootOf(nodes, at + INDEX_HEAD_BYTES) : []),
    ...nodes.flatMap((own) => [nodeHead(true, own.length), ...own.map(leafEntry)]),
  ]);
}

/** A node whose children come right behind it. */
function rootOf(nodes: readonly (readonly Leaf[])[], at: number): Buffer[] {
  let child = at + 4 + 24 * nodes.length;
  const entries = nodes.map((own) => {
    const [first, last] = [own[0]!, own.at(-1)!];
    const entry = words([first.id, first.start, last.id, last.end], [BigInt(child)]);
    child += 4 + 32 * own.length;
    return entry;
  });
  return [nodeHead(false, nodes.length), ...entries];
}

const leafEntry = ({ id, start, end, at, size }: Leaf): Buffer =>
  words([id, start, id, end], [BigInt(at), BigInt(size)]);

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
function summaries(names: readonly string[], values: readonly WigValue[]): WigSection[] {
  return names.flatMap((name, id) => {
    const own = values.filter(({ chrom }) => chrom === name);
    if (own.length === 0) return [];
    const [start, end] = [own[0]!.start, own.at(-1)!.end];
    const block = words([id, start, end, own.reduce((sum, value) => sum + value.end - value.start, 0)]);
    const numbers = Buffer.alloc(16);
    for (const [i, value] of [0, 9, 1, 1].entries()) numbers.writeFloatLE(value, 4 * i);
    return [{ id, start, end, bytes: deflateSync(Buffer.concat([block, numbers])) }];
  });
}

function chromosomeTree(chromosomes: readonly (readonly [name: string, lengthBp: number])[]): Buffer {
  const entries = chromosomes.map(([name, length], id) => {
    const key = Buffer.alloc(KEY_BYTES);
    key.write(name);
    return Buffer.concat([key, words([id, length])]);
  });
  const head = words([0x78ca8c91, entries.length, KEY_BYTES, 8], [BigInt(entries.length), 0n]);
  return Buffer.concat([head, nodeHead(true, entries.length), ...entries]);
}

/** Compressed blocks of bedGraph items. */
function sectionsOf(id: number, values: readonly WigValue[]): WigSection[] {
  return Array.from({ length: Math.ceil(values.length / SECTION_ITEMS) }, (_, i) => {
    const items = values.slice(i * SECTION_ITEMS, (i + 1) * SECTION_ITEMS);
    const place = { id, start: items[0]!.start, end: items.at(-1)!.end };
    const block = Buffer.alloc(12 * items.length);
    for (const [item, value] of items.entries()) {
      block.writeUInt32LE(value.start, 12 * item);
      block.writeUInt32LE(value.end, 12 * item + 4);
      block.writeFloatLE(value.value, 12 * item + 8);
    }
    const head = sectionHead(place, { step: 0, span: 0, type: 1, count: items.length });
    return { ...place, bytes: deflateSync(Buffer.concat([head, block])) };
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
