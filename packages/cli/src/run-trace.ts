/** The times of a run's first steps, as a file for ui.perfetto.dev: what the main thread and each rank did. */
import { writeFile } from 'node:fs/promises';
import {
  clock,
  label,
  type Mesh,
  recordedTimes,
  recordTimes,
  type TraceRow,
  type TraceSpan,
  traceFile,
} from '@cohesin/distributed';

export interface TraceOptions {
  readonly path: string;
  /** As many steps are recorded, with what comes between them. */
  readonly steps: number;
}

/** Keeps the times of the main thread, and asks the ranks for theirs once all steps are done. */
export class RunTrace {
  private readonly mesh: Mesh;
  readonly options: TraceOptions;
  private readonly spans: TraceSpan[] = [];
  private steps = 0;
  private written = false;

  private constructor(mesh: Mesh, options: TraceOptions) {
    this.mesh = mesh;
    this.options = options;
  }

  static async open(mesh: Mesh, options: TraceOptions): Promise<RunTrace> {
    await recordTimes(mesh);
    return new RunTrace(mesh, options);
  }

  /** Does something, and keeps when. */
  async span<T>(name: string, body: () => Promise<T>): Promise<T> {
    const start = clock();
    try {
      return await body();
    } finally {
      if (!this.written) this.spans.push({ name, start, end: clock() });
    }
  }

  /** The same items, with the times of waiting for them. */
  async *reading<T>(items: AsyncGenerator<T>): AsyncGenerator<T> {
    try {
      for (;;) {
        const { value, done } = await this.span('reading a batch', () => items.next());
        if (done === true) return;
        yield value;
      }
    } finally {
      await items.return(undefined);
    }
  }

  /** Counts a step. @returns whether it was the last and the file is written */
  async stepped(): Promise<boolean> {
    if (this.written || ++this.steps < this.options.steps) return false;
    await this.write();
    return true;
  }

  /** Writes the file, unless that is done. */
  async write(): Promise<void> {
    if (this.written) return;
    this.written = true;
    const { ranks, devices, info } = this.mesh;
    const rows: TraceRow[] = (await recordedTimes(this.mesh)).map((row, rank) => {
      const device = devices[rank];
      return { ...row, name: device === undefined ? row.name : `${row.name}: ${label(device)}` };
    });
    const main = { name: 'main thread', spans: this.spans };
    const about = { steps: this.steps, devices: ranks.length, device: info.description };
    await writeFile(this.options.path, traceFile([main, ...rows], about));
  }
}
