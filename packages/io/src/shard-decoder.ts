/** Decodes records of open shards into slots: what a thread of the pipeline does. */
import { Scratch } from './chunk-queue.ts';
import { decodeRecord, type RecordShape } from './record.ts';
import { partsOf } from './record-slots.ts';
import { INDEX } from './shard-index.ts';
import { type FramedRecord, readRecords } from './tfrecord.ts';

export interface DecodeOptions {
  readonly shape: RecordShape;
  readonly allowNonFinite: boolean;
  readonly slots: readonly SharedArrayBuffer[];
}

/** A record of a shard, and the slot it goes to. Requests for one file ask for ever later records. */
export interface DecodeRequest {
  readonly file: string;
  /** Its index in the file; those before it that were not asked for are passed over. */
  readonly record: number;
  readonly slot: number;
  /** No later record of this file is wanted. */
  readonly last: boolean;
  /** The file ends with it. */
  readonly ends: boolean;
}

/** What the bytes of a slot do not say. */
export interface DecodedRecord {
  readonly dtype: 'f16' | 'f32';
  readonly genome?: number;
}

/** Where records are decoded: in this thread or in others. Close it. */
export interface RecordDecoder {
  /** @throws TfRecordError at a bad record; Error when the file ends before it, or does not end with it but should */
  decode(request: DecodeRequest): Promise<DecodedRecord>;
  /** Frames in a file. @throws TfRecordError at a bad frame */
  count(file: string): Promise<number>;
  close(): Promise<void>;
}

/** Works through requests one after another, in this thread. */
export class ShardDecoder implements RecordDecoder {
  readonly #options: DecodeOptions;
  readonly #open = new Map<string, AsyncGenerator<FramedRecord, void, undefined>>();
  /** For whichever record is being read. */
  readonly #scratch = new Scratch();
  #before: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: DecodeOptions) {
    this.#options = options;
  }

  decode(request: DecodeRequest): Promise<DecodedRecord> {
    return this.#afterOthers(() => this.#decode(request));
  }

  count(file: string): Promise<number> {
    return this.#afterOthers(async () => {
      let count = 0;
      for await (const _ of readRecords(file, { scratch: this.#scratch })) count++;
      return count;
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#before;
    for (const records of this.#open.values()) await records.return();
    this.#open.clear();
  }

  #afterOthers<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#before.then(() => {
      if (this.#closed) throw new Error('the stream of records was closed');
      return work();
    });
    this.#before = done.catch(() => {}); // whoever asked for it is told
    return done;
  }

  async #decode({ file, record, slot, last, ends }: DecodeRequest): Promise<DecodedRecord> {
    const { shape, allowNonFinite, slots } = this.#options;
    const { data, offset } = await this.#frame(file, record);
    const place = { file, recordIndex: record, offset };
    const into = partsOf(slots[slot]!, shape);
    const { targets, genome } = decodeRecord(data, shape, place, { allowNonFinite, into });
    if (ends && !(await this.#open.get(file)!.next()).done) throw changed(file, 'more');
    if (last) await this.#end(file);
    return { dtype: targets.dtype, ...(genome === undefined ? {} : { genome }) };
  }

  async #frame(file: string, record: number): Promise<FramedRecord> {
    const records = this.#open.get(file) ?? readRecords(file, { scratch: this.#scratch });
    this.#open.set(file, records);
    for (;;) {
      const { value, done } = await records.next();
      if (done) throw changed(file, 'fewer');
      if (value.index === record) return value;
    }
  }

  async #end(file: string): Promise<void> {
    await this.#open.get(file)?.return();
    this.#open.delete(file);
  }
}

function changed(file: string, count: 'more' | 'fewer'): Error {
  return new Error(
    `${file}: has ${count} records than when they were counted; if it is meant to, delete ${INDEX} in the data set's folder, it is made again`,
  );
}
