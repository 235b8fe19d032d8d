/** Writes a data set in the published layout. */

import { createReadStream, createWriteStream } from 'node:fs';
import { appendFile, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { explain, replacePath } from '@cohesin/core';
import { f32ToF16, firstNonFiniteF16 } from './float16.ts';
import { encodeRecord, type Targets } from './record.ts';
import { RecordSink } from './record-writer.ts';
import { addToIndex } from './shard-index.ts';
import { formatStatistics } from './statistics.ts';
import { formatTargets, type TargetRow } from './targets-table.ts';

/** One sequence with its targets, and where it is from. */
export interface DatasetExample {
  readonly split: string;
  readonly chrom: string;
  /** What `sequences.bed` says of it, in bp from the start of the chromosome, end exclusive. */
  readonly startBp: number;
  readonly endBp: number;
  /** Codes 0..3 for A, C, G, T and 4 for N. `[sequenceLengthBp]` */
  readonly sequence: Uint8Array;
  /** Row-major `[targetLength, numTargets]`; f32 is rounded to f16. */
  readonly targets: Targets;
  /** Stored as the feature `umap`: 1 for each bin that reads cannot be mapped to. `[targetLength]` */
  readonly unmappable?: Uint8Array;
}

export interface WriteDatasetOptions {
  readonly sequenceLengthBp: number;
  readonly targetLength: number;
  readonly poolWidthBp: number;
  /** Bases at each end of a sequence without targets, in bp. */
  readonly cropBp: number;
  /** Contact maps only: the first stored diagonal of the upper triangle. */
  readonly diagonalOffset?: number;
  /** One per target, in order. */
  readonly targets: readonly TargetRow[];
  readonly examples: Iterable<DatasetExample> | AsyncIterable<DatasetExample>;
  readonly recordsPerShard?: number;
  /** One byte per base, or four. */
  readonly sequence?: 'codes' | 'one-hot';
  /** Writes more files into the folder, given the records per split, before it gets its name. */
  readonly alsoWrite?: (folder: string, records: Readonly<Record<string, number>>) => Promise<void>;
}

const RECORDS_PER_SHARD = 256; // basenji_data.py

/**
 * Writes `statistics.json`, `shards.json`, `targets.txt`, `sequences.bed` and zlib `tfrecords/{split}-{i}.tfr` (f16 targets) into a folder aside, then renames it to `dir`. Returns the records per split.
 *
 * @throws when `dir` exists and is not empty, an example has a wrong size, code or target, or the disk fails;
 *   nothing is then left behind
 */
export async function writeDataset(
  dir: string,
  options: WriteDatasetOptions,
): Promise<Readonly<Record<string, number>>> {
  await checkVacant(dir);
  return await replacePath(dir, async (aside) => {
    await mkdir(join(aside, 'tfrecords'), { recursive: true });
    const { examples, recordsPerShard = RECORDS_PER_SHARD } = options;
    const splits = new SplitWriters(join(aside, 'tfrecords'), recordsPerShard);
    try {
      for await (const example of examples) await splits.write(example, toRecord(example, options));
      await splits.close(join(aside, 'sequences.bed'));
    } catch (error) {
      await splits.abort();
      throw error;
    }
    const records = splits.counts();
    if (Object.keys(records).length === 0) throw new Error(`${dir}: there are no examples to write`);
    await writeTables(aside, options, records);
    await addToIndex(aside, splits.shards);
    await options.alsoWrite?.(aside, records);
    return records;
  });
}

/**
 * Found out before the work, not by the rename after it.
 *
 * @throws when something is there
 */
export async function checkVacant(dir: string): Promise<void> {
  const entries: readonly string[] = await readdir(dir).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw explain(dir, error);
  });
  if (entries.length > 0) {
    const whole = entries.includes('statistics.json') ? ' and holds a data set, which is whole' : '';
    throw new Error(
      `${dir}: the folder is not empty (${entries.length} entries)${whole}; delete it or choose another`,
    );
  }
}

/** What is being written of a split. */
interface SplitState {
  /** Of the shard that has room. */
  readonly path: string;
  readonly sink: RecordSink;
  readonly rows: RowFile;
  written: number;
}

/** The shards being written, one open per split. */
class SplitWriters {
  readonly #folder: string;
  readonly #recordsPerShard: number;
  readonly #splits = new Map<string, SplitState>();
  /** Records of each file. */
  readonly shards = new Map<string, number>();

  constructor(folder: string, recordsPerShard: number) {
    this.#folder = folder;
    this.#recordsPerShard = recordsPerShard;
  }

  async write(example: DatasetExample, record: Uint8Array): Promise<void> {
    const state = await this.#ready(example.split);
    await state.sink.write(record);
    await state.rows.add(bedRow(example));
    state.written++;
    this.shards.set(state.path, (this.shards.get(state.path) ?? 0) + 1);
  }

  /** The split with a shard that has room. */
  async #ready(split: string): Promise<SplitState> {
    const state = this.#splits.get(split);
    const written = state?.written ?? 0;
    if (state && written % this.#recordsPerShard !== 0) return state;
    await state?.sink.close();
    const path = join(this.#folder, `${split}-${written / this.#recordsPerShard}.tfr`);
    const rows = state?.rows ?? new RowFile(join(this.#folder, `${split}.bed`));
    const next = { path, sink: new RecordSink(path, 'zlib'), rows, written };
    this.#splits.set(split, next);
    return next;
  }

  /** Writes the places in the order of the records, split by split. */
  async close(bed: string): Promise<void> {
    for (const { sink, rows } of this.#splits.values()) {
      await sink.close();
      await rows.moveTo(bed);
    }
  }

  async abort(): Promise<void> {
    for (const { sink } of this.#splits.values()) await sink.abort();
  }

  counts(): Record<string, number> {
    return Object.fromEntries([...this.#splits].map(([split, { written }]) => [split, written]));
  }
}

const PENDING_CHARACTERS = 2 ** 16;

/** Rows of text on their way to disk. */
class RowFile {
  readonly #path: string;
  #pending = '';

  constructor(path: string) {
    this.#path = path;
  }

  async add(row: string): Promise<void> {
    this.#pending += row;
    if (this.#pending.length >= PENDING_CHARACTERS) await this.#flush();
  }

  /** Appends all of them to a file. */
  async moveTo(path: string): Promise<void> {
    await this.#flush();
    await pipeline(createReadStream(this.#path), createWriteStream(path, { flags: 'a', flush: true }));
    await rm(this.#path);
  }

  async #flush(): Promise<void> {
    await appendFile(this.#path, this.#pending);
    this.#pending = '';
  }
}

/** A row of `sequences.bed`. */
export function bedRow({
  chrom,
  startBp,
  endBp,
  split,
}: Pick<DatasetExample, 'chrom' | 'startBp' | 'endBp' | 'split'>): string {
  return `${chrom}\t${startBp}\t${endBp}\t${split}\n`;
}

/** `statistics.json` and `targets.txt`. */
export async function writeTables(
  folder: string,
  options: Omit<WriteDatasetOptions, 'examples'>,
  records: Readonly<Record<string, number>>,
): Promise<void> {
  const { targets, sequenceLengthBp, targetLength, poolWidthBp, cropBp, diagonalOffset, sequence } = options;
  const statistics = {
    ...{ sequenceLengthBp, targetLength, poolWidthBp, cropBp },
    ...(diagonalOffset === undefined ? {} : { diagonalOffset }),
    numTargets: targets.length,
    sequenceCoded: sequence !== 'one-hot',
    records,
  };
  await writeFile(join(folder, 'targets.txt'), formatTargets(targets), { flush: true });
  await writeFile(join(folder, 'statistics.json'), formatStatistics(statistics), { flush: true });
}

function toRecord(example: DatasetExample, options: WriteDatasetOptions): Uint8Array {
  const { split, chrom, startBp, endBp, sequence, targets, unmappable } = example;
  const where = `example ${chrom}:${startBp}-${endBp} (${split})`;
  if (sequence.length !== options.sequenceLengthBp) {
    throw new Error(`${where}: ${sequence.length} bases but sequenceLengthBp is ${options.sequenceLengthBp}`);
  }
  const wrong = sequence.findIndex((code) => code > 4);
  if (wrong >= 0)
    throw new Error(`${where}: base ${wrong} has code ${sequence[wrong]}; codes are 0..3 (ACGT) and 4 (N)`);
  const record = { sequence, targets: { dtype: 'f16', data: toF16(targets, options, where) } } as const;
  return encodeRecord(record, { sequence: options.sequence ?? 'codes', ...(unmappable && { unmappable }) });
}

function toF16({ dtype, data }: Targets, options: WriteDatasetOptions, where: string): Uint16Array {
  const numTargets = options.targets.length;
  if (data.length !== options.targetLength * numTargets) {
    throw new Error(
      `${where}: ${data.length} target values but targetLength ${options.targetLength} × ${numTargets} targets make ${options.targetLength * numTargets}`,
    );
  }
  const bits = dtype === 'f16' ? data : f32ToF16(data);
  const at = firstNonFiniteF16(bits);
  if (at < 0) return bits;
  throw new Error(
    `${where}: bin ${Math.floor(at / numTargets)} of track ${at % numTargets} is no finite f16 (${dtype === 'f16' ? 'Infinity or NaN' : data[at]}; the largest is 65504); clip or scale the track`,
  );
}
