/** Targets of many tracks and sequences, read by this thread or by several. */
import { Worker } from 'node:worker_threads';
import type { TargetReply, TargetRequest } from '../target-worker.ts';
import type { PreparePlan } from './plan.ts';
import type { PlannedSequence } from './select.ts';
import { LocalTargets, type TargetInputs, type TrackTargets } from './target-reader.ts';

/** One track in some sequences. */
export interface TargetJob {
  /** The track, by its place in the list. */
  readonly column: number;
  readonly places: readonly PlannedSequence[];
}

/** Close it. */
export interface TargetSource {
  /** Jobs that are worth having under way. */
  readonly width: number;
  /** Of each place. @throws as `TargetReader.read` */
  read(job: TargetJob): Promise<readonly TrackTargets[]>;
  close(): Promise<void>;
}

/** Fragments without an index, which the plan holds open, are read by this thread in any case. */
export function openTargetSource(plan: PreparePlan, threads: number): TargetSource {
  const { options, trackNames, blacklist, genome, fragments } = plan;
  const inputs = { options, trackNames, blacklist, chromosomes: genome.chromosomes };
  const local = new LocalTargets(inputs, fragments);
  if (threads === 0) return { width: 1, read: (job) => local.read(job), close: () => local.close() };
  const pool = new ThreadTargets(inputs, threads);
  return {
    width: 2 * threads,
    read: (job) => (fragments.has(job.column) ? local : pool).read(job),
    close: async () => {
      await pool.close();
      await local.close();
    },
  };
}

// Workers always run the built file. `../../dist` is the same place seen from `src/` (tests) and from `dist/` (users).
const workerUrl = new URL('../../dist/target-worker.js', import.meta.url);

/** Of a thread, for what it has just made: by default 48, which fills with garbage before it is cleared. */
const YOUNG_MIB = 8;

interface Waiting {
  readonly job: TargetJob;
  readonly resolve: (targets: readonly TrackTargets[]) => void;
  readonly reject: (error: Error) => void;
}

/** Each thread has one job at a time; the others wait in order. */
class ThreadTargets {
  readonly #workers: Worker[];
  readonly #idle: Worker[];
  readonly #queue: Waiting[] = [];
  readonly #underWay = new Map<number, Waiting & { readonly worker: Worker }>();
  #requests = 0;
  #closed = false;

  constructor(inputs: TargetInputs, threads: number) {
    this.#workers = Array.from({ length: threads }, (_, i) => this.#start(i, inputs));
    this.#idle = [...this.#workers];
  }

  read(job: TargetJob): Promise<readonly TrackTargets[]> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject });
      this.#next();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #start(index: number, inputs: TargetInputs): Worker {
    const worker = new Worker(workerUrl, {
      ...{ name: `targets-${index}`, workerData: inputs, execArgv: [] },
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    worker.on('message', (reply: TargetReply) => this.#settle(reply));
    worker.on('error', (error) =>
      this.#fail(new Error(`reading thread ${index} failed: ${error.message}`, { cause: error })),
    );
    worker.on('exit', (code) => {
      if (!this.#closed) this.#fail(new Error(`reading thread ${index} ended with code ${code}`));
    });
    return worker;
  }

  #next(): void {
    while (this.#idle.length > 0 && this.#queue.length > 0) {
      const [worker, waiting] = [this.#idle.pop()!, this.#queue.shift()!];
      const id = this.#requests++;
      this.#underWay.set(id, { ...waiting, worker });
      worker.postMessage({ id, ...waiting.job } satisfies TargetRequest);
    }
  }

  #settle(reply: TargetReply): void {
    const found = this.#underWay.get(reply.id)!;
    this.#underWay.delete(reply.id);
    this.#idle.push(found.worker);
    if ('message' in reply) found.reject(new Error(reply.message));
    else found.resolve(reply.targets);
    this.#next();
  }

  #fail(error: Error): void {
    for (const { reject } of [...this.#underWay.values(), ...this.#queue]) reject(error);
    this.#underWay.clear();
    this.#queue.length = 0;
  }
}
