/** What a rank does when: steps, what is done in them one after another, and waits for other ranks inside of that. */

/** A span of time; those of one rank lie one after another or inside each other. */
export interface TraceSpan {
  readonly name: string;
  /** In ms since the epoch, on a clock that all threads of the process share. */
  readonly start: number;
  readonly end: number;
  readonly args?: TraceArgs;
}

export type TraceArgs = Readonly<Record<string, number | string>>;

/** Time in ms since the epoch, alike in all threads: `performance.now` counts from the start of each. */
export const clock = (): number => performance.timeOrigin + performance.now();

interface Open {
  readonly name: string;
  readonly start: number;
  readonly args: TraceArgs;
}

/** Records what a rank does while it is asked to. */
export class Timeline {
  private readonly idle: () => Promise<void>;
  private spans: TraceSpan[] | undefined;
  private step: Open | undefined;
  private doing: Open | undefined;

  /** `idle` waits for the device: with times, work counts where it is done and not where it is waited for. */
  constructor(idle: () => Promise<void>) {
    this.idle = idle;
  }

  record(): void {
    this.spans = [];
  }

  /** What was recorded; recording ends. */
  take(): TraceSpan[] {
    const spans = this.spans ?? [];
    [this.spans, this.step, this.doing] = [undefined, undefined, undefined];
    return spans;
  }

  /** Waits until the device has done what it was given, where times are recorded. */
  async settled(): Promise<void> {
    if (this.spans !== undefined) await this.idle();
  }

  /** Begins a step, in which things are done; ends one that failed before. */
  begin(name: string): void {
    this.end();
    if (this.spans !== undefined) this.step = { name, start: clock(), args: {} };
  }

  end(): void {
    const end = clock();
    this.close(this.doing, end);
    this.close(this.step, end);
    [this.step, this.doing] = [undefined, undefined];
  }

  /** Ends what was being done, and begins this; nothing where it is the same. */
  enter(name: string, args: TraceArgs = {}): void {
    if (this.step === undefined || this.doing?.name === name) return;
    const start = clock();
    this.close(this.doing, start);
    this.doing = { name, start, args };
  }

  /** What was entered last turns out to begin with this. */
  begins(name: string, args: TraceArgs): void {
    if (this.doing !== undefined) this.doing = { ...this.doing, name, args };
  }

  /** Adds to what is being done. */
  note(args: TraceArgs): void {
    if (this.doing !== undefined) this.doing = { ...this.doing, args: { ...this.doing.args, ...args } };
  }

  /** Does something inside of what is being done. */
  within<T>(name: string, body: () => T, args: TraceArgs): T {
    if (this.doing === undefined) return body();
    const start = clock();
    try {
      return body();
    } finally {
      this.close({ name, start, args }, clock());
    }
  }

  private close(open: Open | undefined, end: number): void {
    if (open !== undefined) this.spans?.push({ ...open, end });
  }
}
