/** Genomes, tracks, contact maps and fragments of any size, written piece by piece. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { deflateSync } from 'node:zlib';
import { numbers } from './input.ts';

/** `chr1`, `chr2`, … of equal length in bp. */
export type Chromosomes = ReadonlyMap<string, number>;

const LINE_BP = 100;

/** FASTA. */
export function writeGenome(path: string, chromosomes: Chromosomes): void {
  const draw = numbers(1);
  // Sixty-four kinds of lines: the letters do not matter, their number does.
  const lines = Array.from(
    { length: 64 },
    () => `${Array.from({ length: LINE_BP }, () => 'ACGT'[Math.floor(4 * draw())]).join('')}\n`,
  );
  const file = openSync(path, 'w');
  for (const [name, length] of chromosomes) {
    writeSync(file, `>${name}\n`);
    for (let at = 0; at < length; at += 1000 * LINE_BP) {
      const count = Math.min(1000, (length - at) / LINE_BP);
      writeSync(file, Array.from({ length: count }, () => lines[Math.floor(64 * draw())]!).join(''));
    }
  }
  closeSync(file);
}

const VALUE_BP = 50;
const SECTION_VALUES = 1024;
const LEAF_SECTIONS = 256;

/** bigWig: a value for each 50 bp, an index of two levels, no zoom levels. Layout: Kent et al. 2010, supplement. */
export function writeTrack(path: string, chromosomes: Chromosomes): void {
  const draw = numbers(2);
  const file = openSync(path, 'w');
  const names = [...chromosomes.keys()];
  const tree = Buffer.concat([
    words([0x78ca8c91, names.length, 16, 8], [BigInt(names.length), 0n]),
    nodeHead(true, names.length),
    ...names.map((name, id) =>
      Buffer.concat([Buffer.from(name.padEnd(16, '\0')), words([id, chromosomes.get(name)!])]),
    ),
  ]);
  const dataAt = 104 + tree.length;
  let at = dataAt + 8;
  const leaves: { id: number; start: number; end: number; bytes: Buffer }[] = [];
  for (const [id, name] of names.entries()) {
    const length = chromosomes.get(name)!;
    for (let start = 0; start < length; start += SECTION_VALUES * VALUE_BP) {
      const end = Math.min(length, start + SECTION_VALUES * VALUE_BP);
      const count = (end - start) / VALUE_BP;
      const block = Buffer.alloc(24 + 4 * count);
      for (const [i, word] of [id, start, end, VALUE_BP, VALUE_BP].entries())
        block.writeUInt32LE(word, 4 * i);
      block[20] = 3; // fixed steps
      block.writeUInt16LE(count, 22);
      for (let i = 0; i < count; i++) block.writeFloatLE(Math.floor(20 * draw() ** 4), 24 + 4 * i);
      const packed = deflateSync(block);
      writeSync(file, packed, 0, packed.length, at);
      leaves.push({
        id,
        start,
        end,
        bytes: words([id, start, id, end], [BigInt(at), BigInt(packed.length)]),
      });
      at += packed.length;
    }
  }
  writeSync(file, indexOf(leaves, names.length, at), 0, undefined, at);
  const head = Buffer.alloc(104);
  head.writeUInt32LE(0x888ffc26, 0);
  head.writeUInt16LE(4, 4);
  for (const [i, offset] of [104, dataAt, at].entries()) head.writeBigUInt64LE(BigInt(offset), 8 + 8 * i);
  head.writeBigUInt64LE(64n, 44);
  head.writeUInt32LE(32_768, 52);
  writeSync(file, Buffer.concat([head, tree, words([], [BigInt(leaves.length)])]), 0, undefined, 0);
  closeSync(file);
}

function indexOf(
  leaves: readonly { id: number; start: number; end: number; bytes: Buffer }[],
  chromosomes: number,
  at: number,
): Buffer {
  const nodes = Array.from({ length: Math.ceil(leaves.length / LEAF_SECTIONS) }, (_, i) =>
    leaves.slice(i * LEAF_SECTIONS, (i + 1) * LEAF_SECTIONS),
  );
  let child = at + 48 + 4 + 24 * nodes.length;
  const children = nodes.map((own) => {
    const [first, last] = [own[0]!, own.at(-1)!];
    const entry = words([first.id, first.start, last.id, last.end], [BigInt(child)]);
    child += 4 + 32 * own.length;
    return entry;
  });
  return Buffer.concat([
    words([0x2468ace0, Math.max(LEAF_SECTIONS, nodes.length)], [BigInt(leaves.length)]),
    words([0, 0, chromosomes, 2 ** 31], [BigInt(at)]),
    words([1, 0]),
    nodeHead(false, nodes.length),
    ...children,
    ...nodes.flatMap((own) => [nodeHead(true, own.length), ...own.map(({ bytes }) => bytes)]),
  ]);
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

/** BED of fragments in no order, `count` of them. */
export function writeFragments(path: string, chromosomes: Chromosomes, count: number): void {
  const draw = numbers(3);
  const places = [...chromosomes];
  const file = openSync(path, 'w');
  for (let done = 0; done < count; done += 10_000) {
    const rows = Array.from({ length: Math.min(10_000, count - done) }, () => {
      const [name, length] = places[Math.floor(places.length * draw())]!;
      const start = 10 + Math.floor((length - 300) * draw());
      return `${name}\t${start}\t${start + 30 + Math.floor(200 * draw())}\n`;
    });
    writeSync(file, rows.join(''));
  }
  closeSync(file);
}

/** BED of peaks of one bp, evenly spaced. */
export function writePeaks(path: string, chromosomes: Chromosomes, spacingBp: number): void {
  const file = openSync(path, 'w');
  for (const [name, length] of chromosomes)
    for (let at = 2000; at < length - 2000; at += spacingBp) writeSync(file, `${name}\t${at}\t${at + 1}\n`);
  closeSync(file);
}

const BAND_BINS = 24;
const CHUNK = 2 ** 14;

/** Cooler with bins of `binBp`: contacts near the diagonal, weights with every fiftieth bin filtered. */
export async function writeMap(path: string, chromosomes: Chromosomes, binBp: number): Promise<void> {
  const { File, ready } = await import('h5wasm/node');
  await ready;
  const draw = numbers(4);
  const lengths = [...chromosomes.values()];
  const first = [0];
  for (const length of lengths) first.push(first.at(-1)! + length / binBp);
  const bins = first.at(-1)!;
  const chromOf = Int32Array.from({ length: bins }, (_, bin) => first.findLastIndex((start) => start <= bin));
  const rowsOf = Array.from({ length: bins + 1 }, () => 0);
  const [rows, columns, counts] = [[], [], []] as [number[], number[], number[]];
  for (let row = 0; row < bins; row++) {
    rowsOf[row] = rows.length;
    for (let column = row; column < Math.min(first[chromOf[row]! + 1]!, row + BAND_BINS); column++) {
      rows.push(row);
      columns.push(column);
      counts.push(1 + Math.floor((60 * draw()) / (1 + column - row)));
    }
  }
  rowsOf[bins] = rows.length;
  const file = new File(path, 'w');
  const wide = (values: readonly number[]): BigInt64Array => BigInt64Array.from(values, BigInt);
  const start = (bin: number): number => (bin - first[chromOf[bin]!]!) * binBp;
  const tables: Record<string, Record<string, Int32Array | Float64Array | BigInt64Array | string[]>> = {
    chroms: { name: [...chromosomes.keys()], length: Int32Array.from(lengths) },
    bins: {
      start: Int32Array.from({ length: bins }, (_, bin) => start(bin)),
      end: Int32Array.from({ length: bins }, (_, bin) => start(bin) + binBp),
      weight: Float64Array.from({ length: bins }, (_, bin) =>
        bin % 50 === 49 ? Number.NaN : 0.05 + 0.1 * draw(),
      ),
    },
    pixels: { bin1_id: wide(rows), bin2_id: wide(columns), count: Int32Array.from(counts) },
    indexes: { chrom_offset: wide(first), bin1_offset: wide(rowsOf) },
  };
  const types: Readonly<Record<string, string>> = {
    Int32Array: '<i',
    Float64Array: '<d',
    BigInt64Array: '<q',
  };
  for (const [name, table] of Object.entries(tables)) {
    const group = file.create_group(name);
    for (const [column, data] of Object.entries(table)) {
      const dtype = Array.isArray(data) ? 'S16' : types[data.constructor.name]!;
      const common = { name: column, data, shape: [data.length], dtype };
      if (data.length <= CHUNK) group.create_dataset(common);
      else group.create_dataset({ ...common, chunks: [CHUNK], compression: 'gzip', compression_opts: 4 });
    }
  }
  file.flush();
  file.close();
}
