/** Places on a genome, half-open, in bp from 0; sets of them, and BED files. */
import { open } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';
import { explain } from '@cohesin/core';
import { NumberList } from './number-list.ts';

export interface Interval {
  readonly chrom: string;
  readonly startBp: number;
  /** Exclusive. */
  readonly endBp: number;
}

/** A row of a BED file. */
export interface BedRow extends Interval {
  /** Columns from the fourth on. */
  readonly rest: readonly string[];
  readonly line: number;
}

/** `[startBp, endBp)` */
export type Span = readonly [startBp: number, endBp: number];

/** For each chromosome spans in order, none touching the next: start, end, start, end, in bp. */
export type IntervalSet = ReadonlyMap<string, Uint32Array>;

/**
 * The rows of a BED file, plain or gzipped, tabs or spaces. Blank lines, comments and `track` or `browser` lines are passed over.
 *
 * @throws when the file cannot be read, and at a row without a chromosome or with a start and end that are no place, with its line
 */
export async function* readBed(path: string): AsyncGenerator<BedRow, void, undefined> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    const bytes = handle.createReadStream({ start: 0, autoClose: false });
    const input = buffer.readUInt16BE(0) === 0x1f8b ? bytes.pipe(createGunzip()) : bytes;
    input.setEncoding('utf8');
    // A pipe does not pass on the errors of what is piped: a damaged gzip ends its own stream with one.
    bytes.once('error', (error) => input.destroy(error));
    let [line, rest] = [0, ''];
    for await (const chunk of input) {
      const lines = `${rest}${chunk}`.split('\n');
      rest = lines.pop()!;
      for (const text of lines) {
        line++;
        if (isRow(text)) yield { ...parseBedRow(text, `${path}: line ${line}`), line };
      }
    }
    if (isRow(rest)) yield { ...parseBedRow(rest, `${path}: line ${line + 1}`), line: line + 1 };
  } catch (cause) {
    const damaged = cause instanceof Error && 'code' in cause && String(cause.code).startsWith('Z_');
    throw damaged ? new Error(`${path}: ${cause.message}`, { cause }) : explain(path, cause);
  } finally {
    await handle.close();
  }
}

function isRow(text: string): boolean {
  return !/^(\s*$|#|track\b|browser\b)/.test(text);
}

/** Of a place: no format of genomes has longer chromosomes, and sets of places hold 4 bytes for each end. */
const MOST_BP = 2 ** 32 - 1;

/** The columns of a row. @throws with `where` before the reason */
export function parseBedRow(written: string, where: string): Omit<BedRow, 'line'> {
  const text = written.endsWith('\r') ? written.slice(0, -1) : written;
  const [chrom, start, end, ...rest] = text.includes('\t') ? text.split('\t') : text.trim().split(/\s+/);
  const [startBp, endBp] = [Number(start), Number(end)];
  const sound = /^\d+$/.test(start ?? '') && /^\d+$/.test(end?.trim() ?? '') && endBp <= MOST_BP;
  if (chrom && sound && startBp <= endBp) return { chrom, startBp, endBp, rest };
  const why =
    sound && startBp > endBp ? `start ${start} is after end ${end}` : 'expected chromosome, start and end';
  throw new Error(`${where}: ${why}, found ${JSON.stringify(text)}`);
}

/** The union of intervals, each first widened by `padBp` at both ends. Empty ones are passed over. */
export function unite(intervals: Iterable<Interval>, padBp = 0): IntervalSet {
  const union = new Union(padBp);
  for (const interval of intervals) union.add(interval);
  return union.finish();
}

/** Intervals that come one by one, in 8 bytes each. */
export class Union {
  readonly #padBp: number;
  readonly #byChromosome = new Map<string, NumberList<Uint32Array>>();

  constructor(padBp = 0) {
    this.#padBp = padBp;
  }

  add({ chrom, startBp, endBp }: Interval): void {
    if (startBp === endBp) return;
    const spans = this.#byChromosome.get(chrom) ?? new NumberList(Uint32Array);
    this.#byChromosome.set(chrom, spans);
    spans.push(Math.max(0, startBp - this.#padBp));
    spans.push(Math.min(endBp + this.#padBp, MOST_BP));
  }

  finish(): IntervalSet {
    return new Map([...this.#byChromosome].map(([chrom, spans]) => [chrom, joined(inOrder(spans.values()))]));
  }
}

/** Starts and ends by their starts. Most files are in order as they are. */
function inOrder(spans: Uint32Array): Uint32Array {
  const isOrdered = spans.every((at, i) => i % 2 === 1 || i === 0 || at >= spans[i - 2]!);
  if (isOrdered) return spans;
  const order = Uint32Array.from({ length: spans.length / 2 }, (_, i) => i);
  order.sort((a, b) => spans[2 * a]! - spans[2 * b]!);
  return spans.map((_, i) => spans[2 * order[i >> 1]! + (i & 1)]!);
}

/** Spans in order, where they touch as one. */
function joined(spans: Uint32Array): Uint32Array {
  let end = 0;
  for (let i = 0; i < spans.length; i += 2) {
    if (end > 0 && spans[i]! <= spans[end - 1]!) spans[end - 1] = Math.max(spans[end - 1]!, spans[i + 1]!);
    else {
      spans.copyWithin(end, i, i + 2);
      end += 2;
    }
  }
  return spans.slice(0, end);
}

/** The parts of `[startBp, endBp)` of a chromosome that a set covers, in order. */
export function within(set: IntervalSet, { chrom, startBp, endBp }: Interval): Span[] {
  if (startBp >= endBp) return [];
  const spans = set.get(chrom);
  if (spans === undefined) return [];
  let low = 0;
  for (let high = spans.length / 2; low < high; ) {
    const middle = (low + high) >>> 1;
    if (spans[2 * middle + 1]! <= startBp) low = middle + 1;
    else high = middle;
  }
  const found: Span[] = [];
  for (; 2 * low < spans.length && spans[2 * low]! < endBp; low++)
    found.push([Math.max(spans[2 * low]!, startBp), Math.min(spans[2 * low + 1]!, endBp)]);
  return found;
}

/** The parts of an interval that a set does not cover, in order. */
export function without(set: IntervalSet, interval: Interval): Span[] {
  const left: Span[] = [];
  let from = interval.startBp;
  for (const [start, end] of within(set, interval)) {
    if (start > from) left.push([from, start]);
    from = end;
  }
  if (from < interval.endBp) left.push([from, interval.endBp]);
  return left;
}
