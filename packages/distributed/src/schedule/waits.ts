/** For what on other ranks each action of a schedule waits. */
import { type Action, formatAction, isTransfer, type Schedule, type Transfer } from './action.ts';
import { ranksOn } from './pipeline.ts';

/** A position in the schedule. */
export interface At {
  readonly rank: number;
  readonly index: number;
}

export interface Wait {
  readonly at: At;
  /** Whether that action must be done, or only be the next one of its rank. */
  readonly until: 'done' | 'reached';
}

/** By rank and index of the action. */
export type Waits = readonly (readonly (readonly Wait[])[])[];

/** What is wrong with a schedule and where. */
export class ScheduleError extends Error {
  override name = 'ScheduleError';
  readonly rank: number;
  readonly action: Action | undefined;

  constructor(rank: number, action: Action | undefined, message: string) {
    super(`rank ${rank}${action === undefined ? '' : `, ${formatAction(action)}`}: ${message}`);
    this.rank = rank;
    this.action = action;
  }
}

/**
 * A receive waits for its send; a send for the receive of `buffers` values before, or with none for its own; under
 * `within: 'sequence'` the ranks of a stage that share a microbatch compute together.
 *
 * @throws ScheduleError where a transfer or a computation has no partner, or transfers come in different orders.
 */
export function waitsOf(schedule: Schedule): Waits {
  const { buffers } = schedule;
  const waits = schedule.actions.map((list) => list.map((): Wait[] => []));
  const add = ({ rank, index }: At, at: At, until: Wait['until']): void =>
    void waits[rank]![index]!.push({ at, until });
  for (const { sends, receives } of matchTransfers(schedule)) {
    for (const [n, send] of sends.entries()) {
      add(receives[n]!, send, buffers === 0 ? 'reached' : 'done');
      if (buffers === 0) add(send, receives[n]!, 'reached');
      else if (n >= buffers) add(send, receives[n - buffers]!, 'done');
    }
  }
  if (schedule.pipeline.within === 'sequence') meetWithinStages(schedule, add);
  return waits;
}

function meetWithinStages(
  { pipeline, actions }: Schedule,
  add: (at: At, other: At, until: Wait['until']) => void,
): void {
  const places = actions.map((list) => new Map(list.map((action, index) => [formatAction(action), index])));
  for (const [rank, list] of actions.entries()) {
    for (const [index, action] of list.entries()) {
      if (isTransfer(action)) continue;
      for (const peer of ranksOn(pipeline, action.stage, action.microbatch)) {
        if (peer === rank) continue;
        const place = places[peer]!.get(formatAction(action));
        if (place === undefined)
          throw new ScheduleError(rank, action, `rank ${peer} of the same stage has no such action`);
        add({ rank, index }, { rank: peer, index: place }, 'reached');
      }
    }
  }
}

/** Sends and receives of a channel, both in order: the n-th receive takes the value of the n-th send. */
interface Channel {
  readonly sends: At[];
  readonly receives: At[];
}

/** Pairs sends with receives. @throws where one has no partner, or they come in different orders. */
function matchTransfers({ actions }: Schedule): Channel[] {
  const channels = new Map<string, Channel>();
  for (const [rank, list] of actions.entries()) {
    for (const [index, action] of list.entries()) {
      if (!isTransfer(action)) continue;
      const key = action.kind === 'send' ? `${rank} ${action.peer}` : `${action.peer} ${rank}`;
      const channel = channels.get(key) ?? { sends: [], receives: [] };
      channels.set(key, channel);
      channel[action.kind === 'send' ? 'sends' : 'receives'].push({ rank, index });
    }
  }
  const at = ({ rank, index }: At): Transfer => actions[rank]![index] as Transfer;
  for (const { sends, receives } of channels.values()) {
    for (let n = 0; n < Math.max(sends.length, receives.length); n++) {
      const [sent, received] = [sends[n] && at(sends[n]!), receives[n] && at(receives[n]!)];
      if (sent !== undefined && received !== undefined && sameValue(sent, received)) continue;
      if (received === undefined)
        throw new ScheduleError(sends[n]!.rank, sent, `rank ${sent!.peer} never receives it`);
      throw new ScheduleError(
        receives[n]!.rank,
        received,
        sent === undefined
          ? `rank ${received.peer} never sends it`
          : `the value that comes at this place is '${formatAction(sent)}' of rank ${received.peer}; send and receive in the same order`,
      );
    }
  }
  return [...channels.values()];
}

function sameValue(a: Transfer, b: Transfer): boolean {
  return a.value === b.value && a.stage === b.stage && a.microbatch === b.microbatch;
}
