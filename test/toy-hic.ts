/** A small `.hic` file for tests, version 8: one resolution, blocks of both kinds. The layout is that of Juicer's HiCFormatV8.md. */
import { writeFileSync } from 'node:fs';
import { deflateSync } from 'node:zlib';
import type { ToyCooler } from './toy-cooler.ts';

const BLOCK_BINS = 16;

/** The contacts of a toy cooler; a bin's divisor is 1 over its weight. `without` has no vector of `normalization`. */
export function writeHic(
  path: string,
  { binBp, chromosomes, counts, weights }: ToyCooler,
  { normalization = 'KR', without = '' }: { normalization?: string | undefined; without?: string } = {},
): void {
  const names = ['All', ...Object.keys(chromosomes)];
  const lengths = [
    Math.ceil(Object.values(chromosomes).reduce((a, b) => a + b) / 1000),
    ...Object.values(chromosomes),
  ];
  const header = Buffer.concat([
    text('toy'),
    i32(0, names.length),
    ...names.flatMap((name, i) => [text(name), i32(lengths[i]!)]),
    i32(1, binBp, 0),
  ]);
  const body = new Pieces(16 + header.length);
  const index: { key: string; start: number; size: number }[] = [];
  const vectors: { chrom: number; start: number; size: number }[] = [];
  let first = 0;
  for (const [i, length] of lengths.entries()) {
    if (i === 0) continue;
    const bins = Math.ceil(length / binBp);
    const map = matrix(body, { chrom: i, binBp, bins, dense: i % 2 === 0 }, (row, column) =>
      counts.get(`${first + row} ${first + column}`),
    );
    index.push({ key: `${i}_${i}`, start: body.add(map), size: map.length });
    const divisors = Buffer.concat([
      i32(bins),
      f64(weights.slice(first, first + bins).map((weight) => 1 / weight)),
    ]);
    if (names[i] !== without) vectors.push({ chrom: i, start: body.add(divisors), size: divisors.length });
    first += bins;
  }
  const master = Buffer.concat([
    i32(index.length),
    ...index.flatMap(({ key, start, size }) => [text(key), i64(start), i32(size)]),
    i32(0), // expected values
  ]);
  const footer = Buffer.concat([
    i32(master.length),
    master,
    i32(0), // normalized expected values
    i32(normalization === '' ? 0 : vectors.length),
    ...(normalization === '' ? [] : vectors).flatMap(({ chrom, start, size }) => [
      text(normalization),
      i32(chrom),
      text('BP'),
      i32(binBp),
      i64(start),
      i32(size),
    ]),
  ]);
  const head = Buffer.concat([text('HIC'), i32(8), i64(body.at)]);
  writeFileSync(path, Buffer.concat([head, header, ...body.pieces, footer]));
}

/** Pieces of a file, one after the other. */
class Pieces {
  readonly pieces: Buffer[] = [];
  at: number;

  constructor(at: number) {
    this.at = at;
  }

  /** Gives the place of the piece. */
  add(piece: Buffer): number {
    const start = this.at;
    this.pieces.push(piece);
    this.at += piece.length;
    return start;
  }
}

/** The index of a chromosome's blocks, which are added to the body. */
function matrix(
  body: Pieces,
  { chrom, binBp, bins, dense }: { chrom: number; binBp: number; bins: number; dense: boolean },
  count: (row: number, column: number) => number | undefined,
): Buffer {
  const columns = Math.floor(bins / BLOCK_BINS) + 1;
  const blocks: Buffer[] = [];
  for (let low = 0; low < columns; low++) {
    for (let high = low; high < columns; high++) {
      const records: [number, number, number][] = [];
      for (let y = 0; y < BLOCK_BINS; y++) {
        for (let x = 0; x < BLOCK_BINS; x++) {
          const value = count(low * BLOCK_BINS + x, high * BLOCK_BINS + y);
          if (value !== undefined) records.push([x, y, value]);
        }
      }
      if (records.length === 0) continue;
      const bytes = deflateSync(block(low * BLOCK_BINS, high * BLOCK_BINS, records, dense));
      blocks.push(i32(high * columns + low), i64(body.add(bytes)), i32(bytes.length));
    }
  }
  return Buffer.concat([
    ...[i32(chrom, chrom, 1), text('BP'), i32(0), Buffer.alloc(16)],
    ...[i32(binBp, BLOCK_BINS, columns, blocks.length / 3), ...blocks],
  ]);
}

const ABSENT = -32_768;

/** Rows of shorts, or a square of floats or shorts. */
function block(x: number, y: number, records: readonly [number, number, number][], dense: boolean): Buffer {
  const head = i32(records.length, x, y);
  if (dense) {
    const square = new Array<number>(BLOCK_BINS ** 2).fill(ABSENT);
    for (const [dx, dy, value] of records) square[dy * BLOCK_BINS + dx] = value;
    return Buffer.concat([head, Buffer.from([0, 2]), i32(square.length), i16(BLOCK_BINS, ...square)]);
  }
  const rows = [...new Set(records.map(([, dy]) => dy))];
  const written = rows.map((dy) => {
    const own = records.filter((record) => record[1] === dy);
    const cells = own.map(([dx, , value]) => Buffer.concat([i16(dx), f32(value)]));
    return Buffer.concat([i16(dy, own.length), ...cells]);
  });
  return Buffer.concat([head, Buffer.from([1, 1]), i16(rows.length), ...written]);
}

const text = (written: string): Buffer => Buffer.from(`${written}\0`);
const i16 = (...values: number[]): Buffer => Buffer.from(Int16Array.from(values).buffer);
const i32 = (...values: number[]): Buffer => Buffer.from(Int32Array.from(values).buffer);
const i64 = (value: number): Buffer => Buffer.from(BigInt64Array.of(BigInt(value)).buffer);
const f32 = (value: number): Buffer => Buffer.from(Float32Array.of(value).buffer);
const f64 = (values: readonly number[]): Buffer => Buffer.from(Float64Array.from(values).buffer);
