import type { Prediction } from './predict.ts';

/** A predicted step as a trace for `chrome://tracing` and ui.perfetto.dev: JSON, times in µs, a row for each rank. */
export function traceEvents({ plan, timeline }: Prediction): string {
  const events = timeline.flatMap((spans, rank) => [
    { ph: 'M', name: 'thread_name', pid: 0, tid: rank, args: { name: `rank ${rank}` } },
    ...spans.map(({ name, start, end }) => ({
      ph: 'X',
      name,
      cat: /^\d+([FBIW])/.exec(name)?.[1] ?? 'step',
      pid: 0,
      tid: rank,
      ts: 1000 * start,
      dur: 1000 * (end - start),
    })),
  ]);
  return JSON.stringify({ displayTimeUnit: 'ms', otherData: { plan: plan.name }, traceEvents: events });
}
