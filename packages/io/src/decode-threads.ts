/** Threads that decode shards side by side, each shard in one of them. */
import { Worker } from 'node:worker_threads';
import type { WorkerReply, WorkerRequest } from './decode-worker.ts';
import { TfRecordError } from './errors.ts';
import {
  type DecodedRecord,
  type DecodeOptions,
  type DecodeRequest,
  type RecordDecoder,
  ShardDecoder,
} from './shard-decoder.ts';

/** Decodes in this thread, or in `workers` others. */
export function openDecoder(workers: number, options: DecodeOptions): RecordDecoder {
  return workers === 0 ? new ShardDecoder(options) : new DecodeThreads(workers, options);
}

// Threads always run the built file. `../dist` is the same place seen from `src/` (tests) and from `dist/` (users).
const workerUrl = new URL('../dist/decode-worker.js', import.meta.url);

export class DecodeThreads implements RecordDecoder {
  readonly threads: readonly DecodeThread[];
  readonly #owners = new Map<string, DecodeThread>();

  constructor(workers: number, options: DecodeOptions) {
    this.threads = Array.from({ length: workers }, (_, i) => new DecodeThread(`decode-${i}`, options));
  }

  decode(request: DecodeRequest): Promise<DecodedRecord> {
    const { file, record, last } = request;
    const thread = this.#owners.get(file) ?? this.#open(file);
    if (last) this.#close(file, thread);
    return thread.ask({ kind: 'decode', request }, `record ${record} of ${file}`) as Promise<DecodedRecord>;
  }

  async count(file: string): Promise<number> {
    const thread = this.#open(file);
    try {
      return (await thread.ask({ kind: 'count', file }, `the records of ${file}`)) as number;
    } finally {
      this.#close(file, thread);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.threads.map((thread) => thread.close()));
  }

  /** The thread with the fewest open files takes the next. */
  #open(file: string): DecodeThread {
    const thread = this.threads.reduce((a, b) => (b.openFiles < a.openFiles ? b : a));
    thread.openFiles++;
    this.#owners.set(file, thread);
    return thread;
  }

  #close(file: string, thread: DecodeThread): void {
    thread.openFiles--;
    this.#owners.delete(file);
  }
}

interface Waiting {
  /** What was asked for, for the error when the thread ends before its answer. */
  readonly what: string;
  readonly resolve: (value: DecodedRecord | number) => void;
  readonly reject: (error: Error) => void;
}

type Question = WorkerRequest extends infer R ? (R extends unknown ? Omit<R, 'id'> : never) : never;

class DecodeThread {
  openFiles = 0;
  readonly worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #requests = 0;
  #ended: string | undefined;

  constructor(name: string, options: DecodeOptions) {
    this.worker = new Worker(workerUrl, { name, workerData: options, execArgv: [] });
    this.worker.on('message', (reply: WorkerReply) => this.#settle(reply));
    this.worker.on('error', (error) => this.#end(`thread ${name} failed: ${error.message}`));
    this.worker.on('exit', (code) => this.#end(`thread ${name} ended with code ${code}`));
  }

  /** @throws what the thread threw, and at once when it has ended */
  ask(question: Question, what: string): Promise<DecodedRecord | number> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(endedError(what, this.#ended));
      const id = this.#requests++;
      this.#waiting.set(id, { what, resolve, reject });
      this.worker.postMessage({ id, ...question } satisfies WorkerRequest);
    });
  }

  async close(): Promise<void> {
    await this.worker.terminate();
  }

  #settle(reply: WorkerReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if ('value' in reply) waiting?.resolve(reply.value);
    else waiting?.reject(reply.fault ? new TfRecordError(reply.fault) : new Error(reply.message));
  }

  #end(how: string): void {
    this.#ended ??= how;
    for (const { what, reject } of this.#waiting.values()) reject(endedError(what, this.#ended));
    this.#waiting.clear();
  }
}

function endedError(what: string, how: string): Error {
  return new Error(`${what}: not decoded, ${how}; go on from the last checkpoint`);
}
