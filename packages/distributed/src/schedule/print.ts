import { formatAction, isTransfer, type Schedule } from './action.ts';
import { stageOfRanks } from './pipeline.ts';
import { timeSchedule, UNIT_COSTS } from './timing.ts';

/**
 * The timetable as text: a line for each rank, a column for each unit of time. Forward, input gradient and weight
 * gradient take one unit each, a whole backward pass two; `·` is idle.
 */
export function printSchedule(schedule: Schedule): string {
  const stages = stageOfRanks(schedule.pipeline);
  const width = Math.max(
    ...schedule.actions.flat().map((action) => (isTransfer(action) ? 0 : formatAction(action).length)),
  );
  const spans = timeSchedule(schedule, UNIT_COSTS);
  const length = Math.max(...spans.flat().map(({ end }) => end));
  let busy = 0;
  const lines = spans.map((list, rank) => {
    const cells = Array.from({ length }, () => '·'.padEnd(width));
    for (const { action, start, end } of list) {
      if (isTransfer(action)) continue;
      cells[start] = formatAction(action).padEnd(width);
      for (let unit = start + 1; unit < end; unit++) cells[unit] = '-'.repeat(width);
      busy += end - start;
    }
    return `rank ${rank}, stage ${stages[rank]}  ${cells.join(' ').trimEnd()}`;
  });
  const idle = 1 - busy / (length * spans.length);
  return [...lines, `${length} units, bubble ${(100 * idle).toFixed(1)} %`].join('\n');
}
