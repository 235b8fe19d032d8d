/** Genomes, tracks, contact maps and fragments of any size, written piece by piece. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { deflateSync } from 'node:zlib';
import { numbers, sectionHead, type WigSection, writeSections, writeTables } from '@cohesin/io/testing';

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

/** bigWig: a value for each 50 bp, no zoom levels. */
export function writeTrack(path: string, chromosomes: Chromosomes): void {
  writeSections(path, [...chromosomes], sectionsOf(chromosomes), { itemsPerSection: SECTION_VALUES });
}

function* sectionsOf(chromosomes: Chromosomes): Generator<WigSection> {
  const draw = numbers(2);
  for (const [id, length] of [...chromosomes.values()].entries()) {
    for (let start = 0; start < length; start += SECTION_VALUES * VALUE_BP) {
      const end = Math.min(length, start + SECTION_VALUES * VALUE_BP);
      const count = (end - start) / VALUE_BP;
      const values = Buffer.alloc(4 * count);
      for (let i = 0; i < count; i++) values.writeFloatLE(Math.floor(20 * draw() ** 4), 4 * i);
      const head = sectionHead({ id, start, end }, { step: VALUE_BP, span: VALUE_BP, type: 3, count });
      yield { id, start, end, bytes: deflateSync(Buffer.concat([head, values])) };
    }
  }
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
  writeTables(file, {
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
  });
  file.flush();
  file.close();
}
