/** When each action of a schedule runs, given how long it takes. */
import { type Action, type Compute, isTransfer, type Schedule, type Transfer } from './action.ts';
import { ScheduleError, waitsOf } from './waits.ts';

export interface ScheduleCosts {
  /** Time of a computation on a rank. */
  readonly compute: (action: Compute, rank: number) => number;
  /** Time from a send to the arrival of its value. */
  readonly transfer: (action: Transfer, rank: number) => number;
  /** Time of taking a value that has arrived, where nothing overlaps. */
  readonly receive: (action: Transfer, rank: number) => number;
  /** Whether a rank computes while its values travel; otherwise it is busy with them at both ends. */
  readonly overlap: boolean;
}

/** Forward, input gradient and weight gradient take 1 each, transfers nothing. */
export const UNIT_COSTS: ScheduleCosts = {
  compute: ({ kind }) => (kind === 'backward' ? 2 : 1),
  transfer: () => 0,
  receive: () => 0,
  overlap: true,
};

export interface Span {
  readonly action: Action;
  readonly start: number;
  /** A rank is free again then; of a send with `overlap`, at once. */
  readonly end: number;
}

/**
 * Spans of each rank's actions, every one as early as it can be. Values of a channel travel one after the other.
 *
 * @throws ScheduleError for a schedule that `checkSchedule` refuses because ranks wait for ever.
 */
export function timeSchedule(schedule: Schedule, costs: ScheduleCosts): Span[][] {
  const waits = waitsOf(schedule);
  const spans: Span[][] = schedule.actions.map(() => []);
  const arrivals = new Map<Action, number>(); // of sends
  const channels = new Map<string, number>(); // when the last value has arrived
  const endOf = (rank: number, index: number): number => (index < 0 ? 0 : spans[rank]![index]!.end);
  const ready = (rank: number, index: number): number | undefined => {
    let start = endOf(rank, index - 1);
    for (const { at, until } of waits[rank]![index]!) {
      if (spans[at.rank]!.length < at.index + (until === 'done' ? 1 : 0)) return undefined;
      const other = schedule.actions[at.rank]![at.index]!;
      const time = until === 'reached' ? endOf(at.rank, at.index - 1) : endOf(at.rank, at.index);
      start = Math.max(start, arrivals.get(other) ?? time);
    }
    return start;
  };
  const span = (action: Action, rank: number, start: number): Span => {
    if (action.kind === 'receive')
      return { action, start, end: costs.overlap ? start : start + costs.receive(action, rank) };
    if (!isTransfer(action)) return { action, start, end: start + costs.compute(action, rank) };
    const channel = `${rank} ${action.peer}`;
    const arrival = Math.max(start, channels.get(channel) ?? 0) + costs.transfer(action, rank);
    channels.set(channel, arrival);
    arrivals.set(action, arrival);
    return { action, start, end: costs.overlap ? start : arrival };
  };
  for (let moved = true; moved; ) {
    moved = false;
    for (const [rank, list] of schedule.actions.entries()) {
      for (let index = spans[rank]!.length; index < list.length; index++) {
        const start = ready(rank, index);
        if (start === undefined) break;
        spans[rank]!.push(span(list[index]!, rank, start));
        moved = true;
      }
    }
  }
  const rank = spans.findIndex((list, r) => list.length < schedule.actions[r]!.length);
  if (rank >= 0)
    throw new ScheduleError(
      rank,
      schedule.actions[rank]![spans[rank]!.length],
      'waits for ever; see checkSchedule',
    );
  return spans;
}
