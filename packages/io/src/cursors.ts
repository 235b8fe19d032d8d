/** Open shards of a split, each read from its start and one record ahead, here or in threads. */
import { Worker } from 'node:worker_threads';
import type { DecodeReply, DecodeRequest, DecodeWorkerData } from './decode-worker.ts';
import { TfRecordError } from './errors.ts';
import { decodeRecord, type SequenceRecord } from './record.ts';
import { readRecords } from './tfrecord.ts';

/** Where records come from, shard by shard. Close it. */
export interface RecordSource {
  /** The next record of a shard, or undefined at its end. @throws TfRecordError at a bad record */
  next(file: string): Promise<SequenceRecord | undefined>;
  /** Frames in a shard. @throws TfRecordError at a bad frame */
  count(file: string): Promise<number>;
  /** Ends the use of a shard. */
  end(file: string): Promise<void>;
  close(): Promise<void>;
}

/** Records read and decoded by this thread (inflated by Node's own), or by `workers` threads of their own. */
export function openSource(workers: number, options: DecodeWorkerData): RecordSource {
  return workers === 0 ? new LocalSource(options) : new ThreadSource(workers, options);
}

class LocalSource implements RecordSource {
  readonly #options: DecodeWorkerData;
  readonly #open = new Map<string, ReturnType<typeof readRecords>>();

  constructor(options: DecodeWorkerData) {
    this.#options = options;
  }

  async next(file: string): Promise<SequenceRecord | undefined> {
    const cursor = this.#open.get(file) ?? readRecords(file);
    this.#open.set(file, cursor);
    const { value, done } = await cursor.next();
    if (done) return undefined;
    const { index, offset, data } = value;
    return decodeRecord(data, this.#options.shape, { file, recordIndex: index, offset }, this.#options);
  }

  async count(file: string): Promise<number> {
    let count = 0;
    for await (const _ of readRecords(file)) count++;
    return count;
  }

  async end(file: string): Promise<void> {
    await this.#open.get(file)?.return();
    this.#open.delete(file);
  }

  async close(): Promise<void> {
    for (const file of [...this.#open.keys()]) await this.end(file);
  }
}

// Workers always run the built file. `../dist` is the same place seen from `src/` (tests) and from `dist/` (users).
const workerUrl = new URL('../dist/decode-worker.js', import.meta.url);

interface Waiting {
  readonly resolve: (value: SequenceRecord | number | undefined) => void;
  readonly reject: (error: Error) => void;
}

/** A shard belongs to one thread, the next in turn when it is opened. */
class ThreadSource implements RecordSource {
  readonly #workers: readonly Worker[];
  readonly #owner = new Map<string, Worker>();
  readonly #waiting = new Map<number, Waiting>();
  #requests = 0;
  #opened = 0;
  #closed = false;

  constructor(workers: number, options: DecodeWorkerData) {
    this.#workers = Array.from({ length: workers }, (_, i) => this.#start(i, options));
  }

  next(file: string): Promise<SequenceRecord | undefined> {
    return this.#ask('next', file) as Promise<SequenceRecord | undefined>;
  }

  count(file: string): Promise<number> {
    return this.#ask('count', file) as Promise<number>;
  }

  async end(file: string): Promise<void> {
    await this.#ask('close', file);
    this.#owner.delete(file);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #start(index: number, options: DecodeWorkerData): Worker {
    const worker = new Worker(workerUrl, { name: `decode-${index}`, workerData: options, execArgv: [] });
    worker.on('message', (reply: DecodeReply) => this.#settle(reply));
    worker.on('error', (error) =>
      this.#fail(new Error(`decoding thread ${index} failed: ${error.message}`, { cause: error })),
    );
    worker.on('exit', (code) => {
      if (!this.#closed) this.#fail(new Error(`decoding thread ${index} ended with code ${code}`));
    });
    return worker;
  }

  #ask(kind: DecodeRequest['kind'], file: string): Promise<SequenceRecord | number | undefined> {
    const worker = this.#owner.get(file) ?? this.#workers[this.#opened++ % this.#workers.length]!;
    this.#owner.set(file, worker);
    const id = this.#requests++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, kind, file } satisfies DecodeRequest);
    });
  }

  #settle(reply: DecodeReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if ('message' in reply)
      waiting?.reject(reply.fault ? new TfRecordError(reply.fault) : new Error(reply.message));
    else waiting?.resolve(reply.value);
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
