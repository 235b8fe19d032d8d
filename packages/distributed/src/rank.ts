import { Worker } from 'node:worker_threads';
import { type Remote, wrap } from 'comlink';
import { threadEndpoint } from './endpoint.ts';
import type { RankApi } from './rank-worker.ts';

// Workers always run the built file. `../dist` is the same place seen from `src/` (tests) and from `dist/` (users).
const workerUrl = new URL('../dist/rank-worker.js', import.meta.url);

/** A worker thread that owns one device. */
export class Rank {
  readonly index: number;
  private readonly worker: Worker;
  private readonly remote: Remote<RankApi>;
  private readonly dead: Promise<never>;

  constructor(index: number) {
    this.index = index;
    this.worker = new Worker(workerUrl, { name: `rank-${index}`, workerData: { rank: index }, execArgv: [] });
    this.dead = new Promise<never>((_, reject) => {
      this.worker.once('error', (error) =>
        reject(new Error(`rank ${index} failed: ${error.message}`, { cause: error })),
      );
      this.worker.once('exit', (code) =>
        reject(new Error(`rank ${index} ended with code ${code}; restart from the last checkpoint`)),
      );
    });
    this.dead.catch(() => undefined); // whoever calls sees it; nobody calling is no crash
    this.remote = wrap<RankApi>(threadEndpoint(this.worker));
  }

  /** Calls the rank. Rejects when its thread dies, which comlink alone would never notice. */
  async call<T>(body: (api: Remote<RankApi>) => Promise<T>): Promise<T> {
    return Promise.race([body(this.remote), this.dead]);
  }

  /** Frees the device, then ends the thread; ending it with GPU work in flight would abort the process. */
  async close(): Promise<void> {
    await this.call((api) => api.close());
    await this.worker.terminate();
  }
}
