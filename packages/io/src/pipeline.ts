/** Records decoded ahead into a fixed number of slots, and handed out in the order asked for. */
import { openDecoder } from './decode-threads.ts';
import { type EpochOrder, epochOrder, type Shuffle, shardStarts } from './order.ts';
import type { RecordShape, SequenceRecord } from './record.ts';
import { partsOf, RecordSlots } from './record-slots.ts';
import type { DecodedRecord, RecordDecoder } from './shard-decoder.ts';
import type { StreamedRecord, StreamPosition } from './shards.ts';

export interface PipelineOptions {
  readonly files: readonly string[];
  readonly recordsPerShard: readonly number[];
  readonly shape: RecordShape;
  readonly allowNonFinite: boolean;
  /** Threads that decode; the order does not depend on it. */
  readonly workers: number;
  readonly shuffle?: Shuffle | undefined;
  readonly repeat: boolean;
  readonly position: StreamPosition;
  /** Records the caller keeps: it gives one back each time it asks for another. */
  readonly lent: number;
}

interface Arrival {
  /** Names a record of an epoch. */
  readonly key: number;
  readonly file: string;
  /** Its index in the file. */
  readonly record: number;
  /** No later record of this file is wanted in this epoch. */
  readonly last: boolean;
  /** The file ends with it. */
  readonly ends: boolean;
}

interface Pending {
  readonly key: number;
  readonly slot: number;
  readonly decoded: Promise<DecodedRecord>;
}

/**
 * Slots are the back-pressure: a record is asked for when one is free, in order of arrival and into the next epoch. There
 * are as many as the shuffle buffer holds, the caller keeps, and are decoded meanwhile.
 */
export class Pipeline {
  readonly slots: RecordSlots;
  readonly decoder: RecordDecoder;
  readonly #options: PipelineOptions;
  readonly #count: number;
  readonly #orders = new Map<number, EpochOrder>();
  readonly #arrivals: Iterator<Arrival, void>;
  readonly #pending: Pending[] = [];
  readonly #held = new Map<number, { readonly slot: number; readonly decoded: DecodedRecord }>();

  constructor(options: PipelineOptions) {
    const { shape, allowNonFinite, workers, lent, shuffle } = options;
    this.#options = options;
    this.#count = shardStarts(options.recordsPerShard).at(-1)!;
    const ahead = Math.max(lent, 2 * workers);
    this.slots = new RecordSlots(Math.min(shuffle?.buffer ?? 0, this.#count) + lent + ahead, shape);
    this.decoder = openDecoder(workers, { shape, allowNonFinite, slots: this.slots.memory });
    this.#arrivals = this.#arrive();
  }

  /**
   * The records from the position on, each valid until `lent` more have been asked for.
   *
   * @throws TfRecordError at a bad record, Error when a thread ends
   */
  async *records(): AsyncGenerator<StreamedRecord, void, undefined> {
    const kept: number[] = [];
    try {
      for (const { key, id, position } of this.#emit()) {
        if (kept.length === this.#options.lent) this.slots.give(kept.shift()!);
        const { slot, decoded } = await this.#take(key);
        kept.push(slot);
        yield { id, record: this.#record(slot, decoded), position };
      }
    } finally {
      await this.decoder.close();
    }
  }

  async #take(key: number): Promise<{ readonly slot: number; readonly decoded: DecodedRecord }> {
    this.#request();
    for (;;) {
      const found = this.#held.get(key);
      this.#held.delete(key);
      if (found) return found;
      const { key: arrived, slot, decoded } = this.#pending.shift()!;
      this.#held.set(arrived, { slot, decoded: await decoded });
    }
  }

  /** Asks for as many records as there are free slots. */
  #request(): void {
    for (let slot = this.slots.take(); slot !== undefined; slot = this.slots.take()) {
      const { value: arrival, done } = this.#arrivals.next();
      if (done) {
        this.slots.give(slot);
        break;
      }
      const { key, ...wanted } = arrival;
      const decoded = this.decoder.decode({ ...wanted, slot });
      decoded.catch(() => {}); // thrown when that record is asked for
      this.#pending.push({ key, slot, decoded });
    }
  }

  #record(slot: number, { dtype, genome }: DecodedRecord): SequenceRecord {
    const { sequence, targets } = partsOf(this.slots.memory[slot]!, this.#options.shape);
    return {
      sequence,
      targets:
        dtype === 'f32'
          ? { dtype, data: targets }
          : { dtype, data: new Uint16Array(targets.buffer, 0, targets.length) },
      ...(genome === undefined ? {} : { genome }),
    };
  }

  /** Records in the order they are read, those before the position left out. */
  *#arrive(): Generator<Arrival, void> {
    const { files, recordsPerShard, repeat, position } = this.#options;
    const starts = shardStarts(recordsPerShard);
    const shardOf = shardOfRecord(recordsPerShard);
    let { epoch, consumed } = position;
    do {
      const { arrival, emission } = this.#order(epoch);
      const wanted = new Uint8Array(this.#count);
      const wantedInShard = new Uint32Array(files.length);
      for (const id of emission.subarray(consumed)) {
        wanted[id] = 1;
        wantedInShard[shardOf[id]!]!++;
      }
      for (const id of arrival) {
        if (!wanted[id]) continue;
        const shard = shardOf[id]!;
        const last = --wantedInShard[shard]! === 0;
        const ends = id + 1 === starts[shard + 1];
        yield { key: this.#key(epoch, id), file: files[shard]!, record: id - starts[shard]!, last, ends };
      }
      epoch++;
      consumed = 0;
    } while (repeat);
  }

  /** Records in the order they are handed out. */
  *#emit(): Generator<{ readonly key: number } & Pick<StreamedRecord, 'id' | 'position'>, void> {
    const { repeat, position } = this.#options;
    let { epoch, consumed } = position;
    do {
      for (const id of this.#order(epoch).emission.subarray(consumed))
        yield { key: this.#key(epoch, id), id, position: { epoch, consumed: ++consumed } };
      this.#orders.delete(epoch);
      epoch++;
      consumed = 0;
    } while (repeat);
  }

  #order(epoch: number): EpochOrder {
    const { recordsPerShard, shuffle } = this.#options;
    const order = this.#orders.get(epoch) ?? epochOrder(recordsPerShard, epoch, shuffle);
    this.#orders.set(epoch, order);
    return order;
  }

  #key(epoch: number, id: number): number {
    return epoch * this.#count + id;
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
