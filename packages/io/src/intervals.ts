/** Places on a genome, half-open, in bp from 0; sets of them, and BED files. */
import { open } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';
import { explain } from '@cohesin/core';

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

/** For each chromosome spans in order, none touching the next. */
export type IntervalSet = ReadonlyMap<string, readonly Span[]>;

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

/** The columns of a row. @throws with `where` before the reason */
export function parseBedRow(written: string, where: string): Omit<BedRow, 'line'> {
  const text = written.endsWith('\r') ? written.slice(0, -1) : written;
  const [chrom, start, end, ...rest] = text.includes('\t') ? text.split('\t') : text.trim().split(/\s+/);
  const [startBp, endBp] = [Number(start), Number(end)];
  const sound = /^\d+$/.test(start ?? '') && /^\d+$/.test(end?.trim() ?? '') && Number.isSafeInteger(endBp);
  if (chrom && sound && startBp <= endBp) return { chrom, startBp, endBp, rest };
  const why =
    sound && startBp > endBp ? `start ${start} is after end ${end}` : 'expected chromosome, start and end';
  throw new Error(`${where}: ${why}, found ${JSON.stringify(text)}`);
}

/** The union of intervals, each first widened by `padBp` at both ends. Empty ones are passed over. */
export function unite(intervals: Iterable<Interval>, padBp = 0): IntervalSet {
  const byChromosome = new Map<string, Span[]>();
  for (const { chrom, startBp, endBp } of intervals) {
    if (startBp === endBp) continue;
    const span: Span = [Math.max(0, startBp - padBp), endBp + padBp];
    const spans = byChromosome.get(chrom);
    if (spans) spans.push(span);
    else byChromosome.set(chrom, [span]);
  }
  return new Map([...byChromosome].map(([chrom, spans]) => [chrom, joined(spans)]));
}

function joined(spans: readonly Span[]): Span[] {
  const result: [number, number][] = [];
  for (const [start, end] of spans.toSorted((a, b) => a[0] - b[0])) {
    const last = result.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else result.push([start, end]);
  }
  return result;
}

/** The parts of `[startBp, endBp)` of a chromosome that a set covers, in order. */
export function within(set: IntervalSet, { chrom, startBp, endBp }: Interval): Span[] {
  if (startBp >= endBp) return [];
  const spans = set.get(chrom) ?? [];
  let low = 0;
  for (let high = spans.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if (spans[middle]![1] <= startBp) low = middle + 1;
    else high = middle;
  }
  const found: Span[] = [];
  for (; low < spans.length && spans[low]![0] < endBp; low++) {
    const [start, end] = spans[low]!;
    found.push([Math.max(start, startBp), Math.min(end, endBp)]);
  }
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
