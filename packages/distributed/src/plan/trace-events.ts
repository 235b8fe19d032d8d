import { traceFile } from '../trace-file.ts';
import type { Prediction } from './predict.ts';

/** A predicted step as a trace, as `train --trace` writes one of steps that were run. */
export function traceEvents({ plan, timeline }: Prediction): string {
  const rows = timeline.map((spans, rank) => ({ name: `rank ${rank}`, spans }));
  return traceFile(rows, { plan: plan.name, simulated: true });
}
