/** The records of one split, in the order asked for: from memory when they fit, else from their shards. */
import { openSource, type RecordSource } from './cursors.ts';
import { type EpochOrder, epochOrder, type Shuffle, shardStarts } from './order.ts';
import type { RecordShape, SequenceRecord } from './record.ts';

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
}

interface Contents {
  readonly recordsPerShard: readonly number[];
  /** Every record by id, when all of them fit the budget. */
  readonly records: readonly SequenceRecord[] | undefined;
}

/** The shards of one split. The first use reads them all once, to count the records and to keep them if they fit. */
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
   * The records from `position` on.
   *
   * @throws TfRecordError at a bad record; Error when the split is empty or `position` lies outside of it
   */
  async *stream({
    shuffle,
    repeat = false,
    position = { epoch: 0, consumed: 0 },
  }: StreamOptions): AsyncGenerator<StreamedRecord, void, undefined> {
    const contents = await this.#load();
    const count = await this.count();
    checkPosition(this.#name, count, position);
    let { epoch, consumed } = position;
    do {
      const order = epochOrder(contents.recordsPerShard, epoch, shuffle);
      for await (const record of this.#play(contents, order, consumed)) {
        yield { id: order.emission[consumed]!, record, position: { epoch, consumed: ++consumed } };
      }
      epoch++;
      consumed = 0;
    } while (repeat);
  }

  #load(): Promise<Contents> {
    this.#contents ??= readContents(this.#files, this.#options);
    return this.#contents;
  }

  async *#play(
    { records, recordsPerShard }: Contents,
    order: EpochOrder,
    from: number,
  ): AsyncGenerator<SequenceRecord, void, undefined> {
    if (records) for (const id of order.emission.subarray(from)) yield records[id]!;
    else yield* playShards(this.#files, recordsPerShard, order, from, this.#options);
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
  const source = openSource(options.workers, options);
  try {
    return options.workers > 0
      ? { recordsPerShard: await countAll(files, source), records: undefined }
      : await keepAll(files, source, options.budget);
  } finally {
    await source.close();
  }
}

/** All shards at once; the first fault in their order is the one thrown. */
async function countAll(files: readonly string[], source: RecordSource): Promise<number[]> {
  const counts = files.map((file) => source.count(file));
  for (const count of counts) count.catch(() => {}); // each is awaited in its turn
  const recordsPerShard: number[] = [];
  for (const count of counts) recordsPerShard.push(await count);
  return recordsPerShard;
}

async function keepAll(
  files: readonly string[],
  source: RecordSource,
  budget: CacheBudget,
): Promise<Contents> {
  const recordsPerShard: number[] = [];
  let records: SequenceRecord[] | undefined = [];
  let keptBytes = 0;
  for (const file of files) {
    let inShard = 0;
    if (records) {
      for (let record = await source.next(file); record; record = await source.next(file)) {
        inShard++;
        const bytes = record.sequence.byteLength + record.targets.data.byteLength;
        keptBytes += bytes;
        budget.bytesLeft -= bytes;
        if (budget.bytesLeft >= 0) records?.push(record);
        else records = undefined;
      }
      await source.end(file);
    } else inShard = await source.count(file);
    recordsPerShard.push(inShard);
  }
  if (!records) budget.bytesLeft += keptBytes;
  return { recordsPerShard, records };
}

/** Reads shards in arrival order and holds what is not handed out yet; shards with nothing left to give stay closed. */
async function* playShards(
  files: readonly string[],
  recordsPerShard: readonly number[],
  { arrival, emission }: EpochOrder,
  from: number,
  options: ShardOptions,
): AsyncGenerator<SequenceRecord, void, undefined> {
  const shardOf = shardOfRecord(recordsPerShard);
  const wanted = new Uint8Array(arrival.length);
  const wantedInShard = new Uint32Array(files.length);
  for (const id of emission.subarray(from)) {
    wanted[id] = 1;
    wantedInShard[shardOf[id]!]!++;
  }
  const cursors = new Cursors(files, openSource(options.workers, options));
  const held = new Map<number, SequenceRecord>();
  let next = 0;
  try {
    for (const id of emission.subarray(from)) {
      while (!held.has(id)) {
        const arriving = arrival[next++]!;
        const shard = shardOf[arriving]!;
        if (wantedInShard[shard] === 0) continue;
        const record = await cursors.next(shard);
        if (!wanted[arriving]) continue;
        held.set(arriving, record);
        if (--wantedInShard[shard]! === 0) await cursors.close(shard);
      }
      yield held.get(id)!;
      held.delete(id);
    }
  } finally {
    await cursors.closeAll();
  }
}

/** Open shards, one record ahead of what is asked for, so that they inflate side by side. */
class Cursors {
  readonly #files: readonly string[];
  readonly #source: RecordSource;
  readonly #ahead = new Map<number, Promise<SequenceRecord | undefined>>();

  constructor(files: readonly string[], source: RecordSource) {
    this.#files = files;
    this.#source = source;
  }

  async next(shard: number): Promise<SequenceRecord> {
    const file = this.#files[shard]!;
    const record = await (this.#ahead.get(shard) ?? this.#source.next(file));
    if (!record) throw new Error(`${file}: has fewer records than before; it changed while it was in use`);
    const ahead = this.#source.next(file);
    ahead.catch(() => {}); // thrown when that record is asked for
    this.#ahead.set(shard, ahead);
    return record;
  }

  async close(shard: number): Promise<void> {
    this.#ahead.delete(shard);
    await this.#source.end(this.#files[shard]!);
  }

  async closeAll(): Promise<void> {
    await this.#source.close();
  }
}

function shardOfRecord(recordsPerShard: readonly number[]): Uint32Array {
  const starts = shardStarts(recordsPerShard);
  const shardOf = new Uint32Array(starts.at(-1)!);
  recordsPerShard.forEach((_, shard) => {
    shardOf.fill(shard, starts[shard], starts[shard + 1]);
  });
  return shardOf;
}
