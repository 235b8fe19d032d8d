import { formatAction, isTransfer, type Schedule } from './action.ts';
import { stageOfRanks } from './pipeline.ts';
import { type ScheduleCosts, timeSchedule, UNIT_COSTS } from './timing.ts';

export interface PrintOptions {
  readonly costs: ScheduleCosts;
  /** Time of a column. */
  readonly column: number;
}

/** Every pass takes a column, a whole backward pass two. */
const UNITS: PrintOptions = { costs: UNIT_COSTS, column: 1 };

/** The timetable as text: a line for each rank, time from left to right; `·` is idle. */
export function printSchedule(schedule: Schedule, { costs, column }: PrintOptions = UNITS): string {
  const stages = stageOfRanks(schedule.pipeline);
  const names = schedule.actions.flat().filter((action) => !isTransfer(action));
  const width = Math.max(...names.map((action) => formatAction(action).length));
  const spans = timeSchedule(schedule, costs);
  const end = Math.max(...spans.flat().map((span) => span.end));
  const columns = Math.round(end / column);
  let busy = 0;
  const lines = spans.map((list, rank) => {
    const cells: string[] = [];
    for (const { action, start, end: until } of list) {
      if (isTransfer(action)) continue;
      while (cells.length < Math.round(start / column)) cells.push('·'.padEnd(width));
      cells.push(formatAction(action).padEnd(width));
      while (cells.length < Math.round(until / column)) cells.push('-'.repeat(width));
      busy += until - start;
    }
    while (cells.length < columns) cells.push('·'.padEnd(width));
    return `rank ${rank}, stage ${stages[rank]}  ${cells.join(' ').trimEnd()}`;
  });
  const idle = 1 - busy / (end * spans.length);
  return [...lines, `${columns} columns, bubble ${(100 * idle).toFixed(1)} %`].join('\n');
}
