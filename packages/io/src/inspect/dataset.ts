import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { openDataset } from '../dataset.ts';
import { f16ToF32 } from '../float16.ts';
import { percent } from '../page-parts.ts';
import { splitRank } from '../prepare/contigs.ts';
import { decodeRecord, type SequenceRecord } from '../record.ts';
import type { Dataset } from '../shard-set.ts';
import { readRecords } from '../tfrecord.ts';
import { drawRecord, letters } from './draw-record.ts';
import type { InspectOptions } from './inspect.ts';
import { brief, type Notes } from './inspection.ts';

/** Tracks in the table; more make no one wiser. */
const SHOWN_TRACKS = 12;

/** A folder in the published layout: sizes, splits, every record, and what its tables say of them. */
export async function inspectDataset(
  dir: string,
  notes: Notes,
  { quick = false }: InspectOptions,
): Promise<void> {
  notes.what = 'folder';
  const set = await openDataset(dir, { cacheBytes: 0, allowNonFinite: true });
  const map = set.diagonalOffset !== undefined;
  const isDirect = Object.values(set.splits).every(({ files }) => files.length === 0);
  notes.what = `${isDirect ? 'data set, read from a genome and its tracks' : 'TFRecord data set'}: ${set.sequenceLengthBp.toLocaleString('en')} bp → ${map ? 'contact maps' : `${set.targetLength} bins of ${set.poolWidthBp} bp`}, ${set.numTargets} ${set.numTargets === 1 ? 'track' : 'tracks'}`;
  notes.fact('bases without targets at each end', `${set.cropBp} bp`);
  if (map)
    notes.fact(
      'target',
      `${set.targetLength} values of the upper triangle from diagonal ${set.diagonalOffset}`,
    );
  notes.fact('targets.txt', set.targets.length === 0 ? 'absent' : `${set.targets.length} rows`);
  const tally = new Tally(set);
  const rows: string[][] = [];
  const rowsInBed = await sequencesBed(dir);
  const splits = Object.entries(set.splits).toSorted(([a], [b]) => splitRank(a) - splitRank(b));
  for (const [split, { files, records: stated }] of splits) {
    const counts = isDirect
      ? [await readDirect(split, set, tally, { notes, quick })]
      : await readSplit(quick ? files.slice(0, 1) : files, set, tally, notes);
    const found = counts.reduce((sum, count) => sum + count, 0);
    const inBed = rowsInBed?.get(split)?.length;
    if (found > 0)
      notes.caption ||= `first record of ${split}: ${rowsInBed?.get(split)?.[0] ?? 'place unknown'}`;
    rows.push([split, String(files.length), String(found), String(stated ?? ''), String(inBed ?? '')]);
    if (quick) continue;
    const empty = files.flatMap((file, i) => (counts[i] === 0 ? [basename(file)] : []));
    if (empty.length > 0 && found > 0)
      notes.warnings.push(`no records in ${empty.join(', ')}; basenji leaves such files at the end`);
    if (stated !== undefined && stated !== found)
      notes.warnings.push(
        `${split}: statistics.json states ${stated} records, the files hold ${found}; basenji counts before it drops unmappable ones`,
      );
    if (inBed !== undefined && inBed !== found)
      notes.warnings.push(`${split}: sequences.bed has ${inBed} rows, the files hold ${found} records`);
  }
  notes.tables.push({
    header: ['split', 'files', quick ? 'records in the first file' : 'records', 'stated', 'in sequences.bed'],
    rows,
  });
  tally.report(notes);
}

/** Records per file; a damaged one is noted and the next one read. */
async function readSplit(
  files: readonly string[],
  set: Dataset,
  tally: Tally,
  notes: Notes,
): Promise<number[]> {
  const counts: number[] = [];
  for (const file of files) {
    let count = 0;
    try {
      for await (const { data, index, offset } of readRecords(file)) {
        const place = { file, recordIndex: index, offset };
        tally.add(decodeRecord(data, set, place, { allowNonFinite: true }), data.length);
        count++;
      }
    } catch (error) {
      notes.problem(error);
    }
    counts.push(count);
  }
  return counts;
}

/** Records of a split that has no files, as many as there are or the first. */
async function readDirect(
  split: string,
  set: Dataset,
  tally: Tally,
  { notes, quick }: { readonly notes: Notes; readonly quick: boolean },
): Promise<number> {
  let count = 0;
  try {
    for await (const { record } of set.stream(split)) {
      tally.add(record, record.sequence.byteLength + record.targets.data.byteLength);
      count++;
      if (quick) break;
    }
  } catch (error) {
    notes.problem(error);
  }
  return count;
}

/** Places by split. */
async function sequencesBed(dir: string): Promise<Map<string, string[]> | undefined> {
  const text = await readFile(join(dir, 'sequences.bed'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const rows = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [chrom, start, end, split] = line.split('\t');
    if (split === undefined) continue;
    const own = rows.get(split.trim()) ?? [];
    own.push(`${chrom}:${start}-${end}`);
    rows.set(split.trim(), own);
  }
  return rows;
}

/** Adds up records: bases, and each track. */
class Tally {
  readonly #set: Dataset;
  readonly #bases = new Float64Array(5);
  readonly #sums: Float64Array;
  readonly #greatest: Float64Array;
  readonly #zeros: Float64Array;
  readonly #wrong: Float64Array;
  readonly #dtypes = new Set<string>();
  readonly #storage = new Set<string>();
  #records = 0;
  #first: { readonly sequence: Uint8Array; readonly values: Float32Array } | undefined;

  constructor(set: Dataset) {
    this.#set = set;
    [this.#sums, this.#zeros, this.#wrong] = [0, 1, 2].map(() => new Float64Array(set.numTargets)) as [
      Float64Array,
      Float64Array,
      Float64Array,
    ];
    this.#greatest = new Float64Array(set.numTargets).fill(Number.NEGATIVE_INFINITY);
  }

  add({ sequence, targets: { dtype, data } }: SequenceRecord, recordBytes: number): void {
    const { numTargets, sequenceLengthBp, targetLength } = this.#set;
    for (const code of sequence) this.#bases[code]!++;
    const values = dtype === 'f16' ? f16ToF32(data) : data;
    for (let i = 0; i < values.length; i++) {
      const [track, value] = [i % numTargets, values[i]!];
      if (!Number.isFinite(value)) this.#wrong[track]!++;
      else this.#sums[track]! += value;
      if (value > this.#greatest[track]!) this.#greatest[track] = value;
      if (value === 0) this.#zeros[track]!++;
    }
    this.#dtypes.add(dtype);
    const targetBytes = targetLength * numTargets * (dtype === 'f16' ? 2 : 4);
    this.#storage.add(
      recordBytes - targetBytes > 3 * sequenceLengthBp ? 'one-hot, 4 bytes a base' : 'codes, 1 byte a base',
    );
    this.#records++;
    this.#first ??= { sequence: sequence.slice(), values: Float32Array.from(values) };
  }

  report(notes: Notes): void {
    const { numTargets, targetLength, targets } = this.#set;
    if (this.#records === 0) return;
    const total = this.#bases.reduce((sum, count) => sum + count, 0);
    const known = total - this.#bases[4]! || 1;
    notes.fact('sequence stored as', [...this.#storage].join(' and '));
    notes.fact('targets stored as', [...this.#dtypes].join(' and '));
    notes.fact(
      'bases',
      `${percent((this.#bases[1]! + this.#bases[2]!) / known)} GC, ${percent(this.#bases[4]! / total)} N; the first record begins ${letters(this.#first!.sequence.subarray(0, 60))}`,
    );
    const values = this.#records * targetLength;
    const name = (track: number): string => targets[track]?.identifier ?? `track ${track}`;
    const shown = Math.min(SHOWN_TRACKS, numTargets);
    notes.tables.push({
      header: ['track', 'mean', 'max', 'zero', 'NaN or infinite'],
      rows: Array.from({ length: shown }, (_, track) => [
        name(track),
        brief(this.#sums[track]! / values),
        brief(this.#greatest[track]!),
        percent(this.#zeros[track]! / values),
        String(this.#wrong[track]),
      ]),
    });
    if (shown < numTargets) notes.fact('tracks not shown', numTargets - shown);
    const bad = this.#wrong.reduce((sum, count) => sum + count, 0);
    if (bad > 0)
      notes.problems.push(
        `${bad} targets in ${this.#wrong.filter((count) => count > 0).length} tracks are NaN or infinite; training would stop there`,
      );
    const flat = [...this.#zeros.keys()].filter((track) => this.#zeros[track] === values);
    if (flat.length > 0)
      notes.warnings.push(
        `${flat.length} tracks are zero in every record: ${flat.slice(0, 6).map(name).join(', ')}`,
      );
    drawRecord(this.#set, this.#first!, notes);
  }
}
