/** Proves, before a step runs, that a schedule computes everything once, in order, and that no rank waits for ever. */
import {
  type Action,
  type Compute,
  formatAction,
  type Pipeline,
  type Schedule,
  type Work,
} from './action.ts';
import { ranksOn, stageOfRanks, transfersAround } from './pipeline.ts';
import { type At, ScheduleError, type Waits, waitsOf } from './waits.ts';

export interface Checked {
  /** For each rank, the most microbatches that have gone forward and not all the way back: copies of activations to keep. */
  readonly inFlight: readonly number[];
}

/**
 * Checks a schedule for blocking sends and receives; under `within: 'sequence'` the ranks of a stage also wait for each
 * other in every computation.
 *
 * @throws ScheduleError that names the rank, its action and what it misses or waits for.
 */
export function checkSchedule(schedule: Schedule): Checked {
  const stages = stageOfRanks(schedule.pipeline);
  if (schedule.actions.length !== stages.length)
    throw new Error(
      `the schedule has actions for ${schedule.actions.length} ranks, its pipeline ${stages.length} ranks`,
    );
  for (const [rank, stage] of stages.entries()) {
    checkComplete(schedule, rank, stage);
    checkOrder(schedule, rank);
  }
  checkProgress(schedule, waitsOf(schedule));
  return { inFlight: schedule.actions.map(mostInFlight) };
}

/** A rank does everything that the pipeline asks of it once, and nothing else. */
function checkComplete(schedule: Schedule, rank: number, stage: number): void {
  const missing = duties(schedule, rank, stage);
  const seen = new Set<string>();
  for (const action of schedule.actions[rank]!) {
    for (const name of namesOf(action)) {
      if (seen.has(name)) throw new ScheduleError(rank, action, `${name} is done twice`);
      if (!missing.delete(name))
        throw new ScheduleError(rank, action, `this is not for rank ${rank}, which works on stage ${stage}`);
      seen.add(name);
    }
  }
  const [first] = missing;
  if (first !== undefined) throw new ScheduleError(rank, undefined, `'${first}' is missing`);
}

/** Names of what a rank has to do, backward passes by their halves. */
function duties({ pipeline, microbatches }: Schedule, rank: number, stage: number): Set<string> {
  const names = new Set<string>();
  for (let microbatch = 0; microbatch < microbatches; microbatch++) {
    if (!ranksOn(pipeline, stage, microbatch).includes(rank)) continue;
    for (const kind of ['forward', 'backward'] as const) {
      const action: Compute = { kind, stage, microbatch };
      const { before, after } = transfersAround(pipeline, rank, action);
      for (const duty of [...before, action, ...after]) for (const name of namesOf(duty)) names.add(name);
    }
  }
  return names;
}

function namesOf(action: Action): string[] {
  if (action.kind !== 'backward') return [formatAction(action)];
  const halves = ['inputGradient', 'weightGradient'] as const;
  return halves.map((kind) => formatAction({ ...action, kind }));
}

/** What an action reads has been received or computed on its rank before. */
function checkOrder({ pipeline, actions }: Schedule, rank: number): void {
  const done = new Set<string>();
  for (const action of actions[rank]!) {
    for (const need of needs(pipeline, rank, action))
      if (!done.has(need)) throw new ScheduleError(rank, action, `needs '${need}' before it`);
    for (const name of namesOf(action)) done.add(name);
  }
}

function needs(pipeline: Pipeline, rank: number, action: Action): string[] {
  const { kind, stage, microbatch } = action;
  const computed = (work: Work): string => formatAction({ kind: work, stage, microbatch });
  if (kind === 'receive') return [];
  if (kind === 'send') return [computed(action.value === 'activation' ? 'forward' : 'inputGradient')];
  if (kind === 'weightGradient') return [computed('inputGradient')];
  const received = transfersAround(pipeline, rank, action as Compute).before.map(formatAction);
  return kind === 'forward' ? received : [computed('forward'), ...received];
}

/**
 * Runs the waits without the work. Ranks are deterministic and channels first in, first out, so whether all come to the
 * end does not depend on who goes first (Kahn 1974): one order proves all.
 */
function checkProgress({ actions }: Schedule, waits: Waits): void {
  const reached = actions.map(() => 0);
  const stuckOn = (rank: number): At | undefined =>
    waits[rank]![reached[rank]!]!.find(
      ({ at, until }) => reached[at.rank]! < at.index + (until === 'done' ? 1 : 0),
    )?.at;
  for (let moved = true; moved; ) {
    moved = false;
    for (const [rank, list] of actions.entries()) {
      for (; reached[rank]! < list.length && stuckOn(rank) === undefined; reached[rank]!++) moved = true;
    }
  }
  const rank = actions.findIndex((list, r) => reached[r]! < list.length);
  if (rank >= 0) throw deadlock(actions, reached, stuckOn, rank);
}

/** Follows who waits for whom until it comes back: the ring is the error. */
function deadlock(
  actions: Schedule['actions'],
  reached: readonly number[],
  stuckOn: (rank: number) => At | undefined,
  first: number,
): ScheduleError {
  const ring: number[] = [];
  let rank = first;
  while (!ring.includes(rank)) {
    ring.push(rank);
    rank = stuckOn(rank)!.rank;
  }
  ring.splice(0, ring.indexOf(rank));
  const lines = ring.map((r) => {
    const { rank: other, index } = stuckOn(r)!;
    return `rank ${r} at ${formatAction(actions[r]![reached[r]!]!)} waits for rank ${other} to do ${formatAction(actions[other]![index]!)}`;
  });
  return new ScheduleError(rank, actions[rank]![reached[rank]!], `waits for ever: ${lines.join('; ')}`);
}

function mostInFlight(list: readonly Action[]): number {
  let [now, most] = [0, 0];
  for (const { kind } of list) {
    if (kind === 'forward') most = Math.max(most, ++now);
    if (kind === 'backward' || kind === 'weightGradient') now--;
  }
  return most;
}
