/** Where a command's words go: lines for people on stderr and stdout, or one JSON object a line for machines. */
export interface Output {
  readonly json: boolean;
  /** A line for people; nothing in JSON mode. */
  say(line: string): void;
  /** An event for machines; nothing for people. */
  event(event: Readonly<Record<string, unknown>>): void;
  /** Replaces the progress line on a terminal; elsewhere at most one line every few seconds. */
  progress(line: string): void;
  /** Ends the progress line, so that the next line stands alone. */
  endProgress(): void;
}

const LINE_EVERY_MS = 5000;

export function openOutput(json: boolean): Output {
  let last = 0;
  let open = false;
  const terminal = process.stdout.isTTY === true;
  const endProgress = (): void => {
    if (open) process.stdout.write('\n');
    open = false;
  };
  return {
    json,
    say: (line) => {
      endProgress();
      if (!json) console.log(line);
    },
    event: (event) => {
      if (json) console.log(JSON.stringify(event));
    },
    progress: (line) => {
      if (json) return;
      if (terminal) {
        process.stdout.write(`\r\u001b[K${line}`);
        open = true;
        return;
      }
      if (performance.now() - last < LINE_EVERY_MS) return;
      last = performance.now();
      console.log(line);
    },
    endProgress,
  };
}

/** `1h 02m`, `3m 20s` or `12s`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–';
  const whole = Math.round(seconds);
  const two = (n: number): string => String(n).padStart(2, '0');
  if (whole >= 3600) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  if (whole >= 60) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  return `${whole}s`;
}

/** Steps per second over the last 20, not counting pauses. */
export class Pace {
  private readonly times: number[] = [performance.now()];
  private paused = 0;

  /** Counts a step; gives steps per second. */
  step(): number {
    this.times.push(performance.now() - this.paused);
    if (this.times.length > 21) this.times.shift();
    return ((this.times.length - 1) * 1000) / (this.times.at(-1)! - this.times[0]!);
  }

  /** Does something that is no step. */
  async pause<T>(body: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await body();
    } finally {
      this.paused += performance.now() - start;
    }
  }
}
