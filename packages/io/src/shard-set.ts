/** What a data set offers, wherever its records are from. */
import type { RecordShape, SequenceRecord, Targets } from './record.ts';
import type { StreamedRecord, StreamOptions, StreamPosition } from './shards.ts';
import type { TargetTrack } from './targets-table.ts';

export interface BatchOptions extends StreamOptions {
  /** Records per batch. */
  readonly batch: number;
}

export interface RecordBatch {
  /** Each record's index in its split, in natural file order. */
  readonly ids: readonly number[];
  readonly records: readonly SequenceRecord[];
  /** Just after the batch: a stream given this goes on with the next one. */
  readonly position: StreamPosition;
}

export interface Split {
  /** Shards in natural order. */
  readonly files: readonly string[];
  /** Records as stated by the data set, where it does; `count` says how many there are. */
  readonly records?: number;
}

/** Files of records of one shape. Holds no file open between uses. */
export interface ShardSet extends RecordShape {
  readonly splits: Readonly<Record<string, Split>>;
  /** How many records a split holds. Its first use reads all of its files once, unless `shards.json` counts them. */
  count(split: string): Promise<number>;
  /** Records one by one, the caller's to keep; the order depends on the files and the options only. */
  stream(split: string, options?: StreamOptions): AsyncGenerator<StreamedRecord, void, undefined>;
  /**
   * Records in batches, which cross epochs when repeating; else the last one may be short. A batch is valid until the next is
   * asked for: its memory is used again. Memory for decoded records: twice the batch and the shuffle buffer.
   */
  batches(split: string, options: BatchOptions): AsyncGenerator<RecordBatch, void, undefined>;
}

/** A published data set. */
export interface Dataset extends ShardSet {
  /** The folder. */
  readonly dir: string;
  readonly poolWidthBp: number;
  /** Bases at each end of a sequence without targets, in bp. */
  readonly cropBp: number;
  /** Contact maps only: the first stored diagonal of the upper triangle. */
  readonly diagonalOffset?: number;
  /** One per target, or none when there is no targets.txt. */
  readonly targets: readonly TargetTrack[];
}

/** The same records, the caller's to keep. */
export async function* copied(
  stream: AsyncIterable<StreamedRecord>,
): AsyncGenerator<StreamedRecord, void, undefined> {
  for await (const { record, ...place } of stream) {
    const { sequence, targets } = record;
    const own = { ...targets, data: targets.data.slice() } as Targets;
    yield { ...place, record: { ...record, sequence: sequence.slice(), targets: own } };
  }
}

/** A stream in batches; the last one may be short. */
export async function* grouped(
  stream: AsyncIterable<StreamedRecord>,
  size: number,
): AsyncGenerator<RecordBatch, void, undefined> {
  if (!Number.isSafeInteger(size) || size < 1)
    throw new Error(`batch should be an integer >= 1, found ${size}`);
  let held: StreamedRecord[] = [];
  for await (const streamed of stream) {
    held.push(streamed);
    if (held.length < size) continue;
    yield toBatch(held);
    held = [];
  }
  if (held.length > 0) yield toBatch(held);
}

function toBatch(streamed: readonly StreamedRecord[]): RecordBatch {
  return {
    ids: streamed.map(({ id }) => id),
    records: streamed.map(({ record }) => record),
    position: streamed.at(-1)!.position,
  };
}
