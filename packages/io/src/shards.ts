/** The records of one split, in the order asked for: from memory when they fit, else from their shards. */
import { Scratch } from './chunk-queue.ts';
import { openDecoder } from './decode-threads.ts';
import { epochOrder, type Shuffle, shardStarts } from './order.ts';
import { Pipeline } from './pipeline.ts';
import { decodeRecord, type RecordShape, type SequenceRecord } from './record.ts';
import { addToIndex, indexedCounts } from './shard-index.ts';
import { readRecords } from './tfrecord.ts';

/** A place in a stream, between two records; plain JSON. */
export interface StreamPosition {
  readonly epoch: number;
  /** Records of this epoch already handed out. */
  readonly consumed: number;
}

export interface StreamOptions {
  /** Without it, records come in file order. */
  readonly shuffle?: Shuffle;
  /** Goes on with the next epoch, for ever; otherwise one epoch. */
  readonly repeat?: boolean;
  /** Where to go on from; the other options must be those of the stream it was taken from. */
  readonly position?: StreamPosition;
}

export interface StreamedRecord {
  /** The record's index in its split, in natural file order. */
  readonly id: number;
  readonly record: SequenceRecord;
  /** Just after this record. */
  readonly position: StreamPosition;
}

/** Decoded bytes that may still be kept, shared by the splits of a data set. */
export interface CacheBudget {
  bytesLeft: number;
}

export interface ShardOptions {
  readonly shape: RecordShape;
  readonly allowNonFinite: boolean;
  readonly budget: CacheBudget;
  /** Threads that read and decode; with any, nothing is kept in memory. */
  readonly workers: number;
  /** The data set's folder, where its index is; bare files have none. */
  readonly dir?: string | undefined;
}

interface Contents {
  readonly recordsPerShard: readonly number[];
  /** Every record by id, when all of them fit the budget. */
  readonly records: readonly SequenceRecord[] | undefined;
}

/** The shards of one split. The first use reads them all once, to keep the records if they fit and to count them where no index does. */
export class SplitReader {
  readonly #name: string;
  readonly #files: readonly string[];
  readonly #options: ShardOptions;
  #contents: Promise<Contents> | undefined;

  constructor(name: string, files: readonly string[], options: ShardOptions) {
    this.#name = name;
    this.#files = files;
    this.#options = options;
  }

  /** How many records the shards hold. */
  async count(): Promise<number> {
    return shardStarts((await this.#load()).recordsPerShard).at(-1)!;
  }

  /**
   * The records from `position` on. Each may be overwritten when `lent` more have been asked for: copy what is to be kept.
   *
   * @throws TfRecordError at a bad record; Error when the split is empty or `position` lies outside of it
   */
  async *stream(
    { shuffle, repeat = false, position = { epoch: 0, consumed: 0 } }: StreamOptions,
    lent: number,
  ): AsyncGenerator<StreamedRecord, void, undefined> {
    const { recordsPerShard, records } = await this.#load();
    checkPosition(this.#name, await this.count(), position);
    if (records === undefined) {
      const order = { shuffle, repeat, position };
      const pipeline = new Pipeline({
        ...this.#options,
        ...order,
        files: this.#files,
        recordsPerShard,
        lent,
      });
      return yield* pipeline.records();
    }
    let { epoch, consumed } = position;
    do {
      const { emission } = epochOrder(recordsPerShard, epoch, shuffle);
      for (const id of emission.subarray(consumed))
        yield { id, record: records[id]!, position: { epoch, consumed: ++consumed } };
      epoch++;
      consumed = 0;
    } while (repeat);
  }

  #load(): Promise<Contents> {
    this.#contents ??= readContents(this.#files, this.#options);
    return this.#contents;
  }
}

/** @throws when a split is empty or a position lies outside of it */
export function checkPosition(split: string, count: number, { epoch, consumed }: StreamPosition): void {
  if (count === 0) throw new Error(`split ${split} holds no records; choose another split`);
  const inside =
    [epoch, consumed].every((value) => Number.isSafeInteger(value) && value >= 0) && consumed <= count;
  if (inside) return;
  throw new Error(
    `split ${split}: position ${JSON.stringify({ epoch, consumed })} is outside of its ${count} records; the data set is not the one the position was taken from`,
  );
}

async function readContents(files: readonly string[], options: ShardOptions): Promise<Contents> {
  const { dir, workers } = options;
  const indexed = dir === undefined ? undefined : await indexedCounts(dir, files);
  if (indexed && (workers > 0 || !mayFit(indexed, options)))
    return { recordsPerShard: indexed, records: undefined };
  const contents =
    workers > 0
      ? { recordsPerShard: await countAll(files, options), records: undefined }
      : await keepAll(files, options);
  if (dir !== undefined && contents.records === undefined)
    await addToIndex(dir, new Map(files.map((file, i) => [file, contents.recordsPerShard[i]!])));
  return contents;
}

/** With targets in f16, which the index does not say. */
function mayFit(recordsPerShard: readonly number[], { shape, budget }: ShardOptions): boolean {
  const bytesPerRecord = shape.sequenceLengthBp + 2 * shape.targetLength * shape.numTargets;
  return shardStarts(recordsPerShard).at(-1)! * bytesPerRecord <= budget.bytesLeft;
}

/** All shards at once; the first fault in their order is the one thrown. */
async function countAll(
  files: readonly string[],
  { workers, shape, allowNonFinite }: ShardOptions,
): Promise<number[]> {
  const decoder = openDecoder(workers, { shape, allowNonFinite, slots: [] });
  try {
    const counts = files.map((file) => decoder.count(file));
    for (const count of counts) count.catch(() => {}); // each is awaited in its turn
    const recordsPerShard: number[] = [];
    for (const count of counts) recordsPerShard.push(await count);
    return recordsPerShard;
  } finally {
    await decoder.close();
  }
}

async function keepAll(
  files: readonly string[],
  { shape, allowNonFinite, budget }: ShardOptions,
): Promise<Contents> {
  const recordsPerShard: number[] = [];
  const scratch = new Scratch();
  let records: SequenceRecord[] | undefined = [];
  let keptBytes = 0;
  for (const file of files) {
    let inShard = 0;
    for await (const { data, index, offset } of readRecords(file, { scratch })) {
      inShard++;
      if (!records) continue;
      const record = decodeRecord(data, shape, { file, recordIndex: index, offset }, { allowNonFinite });
      const bytes = record.sequence.byteLength + record.targets.data.byteLength;
      keptBytes += bytes;
      budget.bytesLeft -= bytes;
      if (budget.bytesLeft >= 0) records.push(record);
      else records = undefined;
    }
    recordsPerShard.push(inShard);
  }
  if (!records) budget.bytesLeft += keptBytes;
  return { recordsPerShard, records };
}
