/** Who did what when, as a trace for ui.perfetto.dev and chrome://tracing: of a run, or simulated. */
import type { Mesh } from './mesh.ts';
import type { TraceSpan } from './timeline.ts';

/** What one rank, or the main thread, did. */
export interface TraceRow {
  readonly name: string;
  readonly spans: readonly TraceSpan[];
}

/** Every rank keeps the times of what it does from now on. */
export async function recordTimes({ ranks }: Mesh): Promise<void> {
  await Promise.all(ranks.map((rank) => rank.call((api) => api.record())));
}

/** What each rank did since `recordTimes`; times are no longer kept. */
export function recordedTimes({ ranks }: Mesh): Promise<TraceRow[]> {
  return Promise.all(
    ranks.map(async (rank) => ({
      name: `rank ${rank.index}`,
      spans: await rank.call<TraceSpan[]>((api) => api.recorded()),
    })),
  );
}

/** The JSON of a trace, in Chrome's format: a process for each row, times in µs from the first of all. */
export function traceFile(rows: readonly TraceRow[], otherData: Readonly<Record<string, unknown>>): string {
  let first = Number.POSITIVE_INFINITY;
  for (const { spans } of rows) for (const { start } of spans) first = Math.min(first, start);
  const traceEvents = rows.flatMap(({ name, spans }, index) => {
    const at = { pid: index + 1, tid: index + 1 }; // 0 is the idle process of Perfetto
    return [
      { ph: 'M', name: 'process_name', ...at, args: { name } },
      { ph: 'M', name: 'process_sort_index', ...at, args: { sort_index: index } },
      ...[...spans].sort(inOrder).map((span) => ({ ...eventOf(span, first), ...at })),
    ];
  });
  return JSON.stringify({ displayTimeUnit: 'ms', otherData, traceEvents });
}

/** What encloses comes before what is inside. */
const inOrder = (a: TraceSpan, b: TraceSpan): number => a.start - b.start || b.end - a.end;

function eventOf({ name, start, end, args }: TraceSpan, first: number): object {
  const ts = microseconds(start - first);
  const dur = microseconds(microseconds(end - first) - ts, 1);
  return { ph: 'X', name, cat: categoryOf(name), ts, dur, ...(args && { args }) };
}

/** Rounded to ns, so that ends of spans that touch are equal. */
const microseconds = (time: number, unit = 1000): number => Math.round(time * unit * 1000) / 1000;

/** Work of a stage by its letter, which gives equal work one colour; else the first word. */
function categoryOf(name: string): string {
  return /^\d+([FBIW])/.exec(name)?.[1] ?? name.split(' ')[0]!;
}
