/** Random schedules, and a model of ranks that run one: what the checker is tested against. */
import {
  type Action,
  type Compute,
  formatAction,
  isTransfer,
  type Pipeline,
  type Schedule,
  type Transfer,
} from './action.ts';
import { checkSchedule } from './check.ts';
import { rankCount, ranksOn, transfersAround } from './pipeline.ts';
import { ScheduleError } from './waits.ts';

/** Uniform in [0, 1). */
export type Random = () => number;

const pick = <T>(items: readonly T[], random: Random): T => items[Math.floor(random() * items.length)]!;

/** One to four stages of one to three ranks. */
export function randomPipeline(random: Random): Pipeline {
  let rank = 0;
  const stages = Array.from({ length: 1 + Math.floor(random() * 4) }, () =>
    Array.from({ length: 1 + Math.floor(random() * 3) }, () => rank++),
  );
  const within = random() < 0.5 ? 'sequence' : 'data';
  if (within === 'sequence' && random() < 0.3)
    return { stages, within, replicas: 1 + Math.floor(random() * 3) };
  return random() < 0.5
    ? { stages, within }
    : { stages, within, leaves: stages.map(() => pick([6, 8, 24], random)) };
}

/**
 * A schedule made of moves that ranks could make: of all that can be done next one is chosen at random, until nothing is
 * left. A send waits for a free place among `buffers`; backward passes are whole or split by chance.
 */
export function randomSchedule(
  pipeline: Pipeline,
  microbatches: number,
  buffers: number,
  random: Random,
): Schedule {
  const actions: Action[][] = Array.from({ length: rankCount(pipeline) }, () => []);
  const ranks = new Ranks(pipeline, buffers);
  const split = Array.from({ length: pipeline.stages.length * microbatches }, () => random() < 0.5);
  const left = pipeline.stages.flatMap((_, stage) =>
    Array.from({ length: microbatches }, (_, microbatch) => ({ stage, microbatch })).flatMap(
      (work): Compute[] =>
        split[stage * microbatches + work.microbatch]
          ? (['forward', 'inputGradient', 'weightGradient'] as const).map((kind) => ({ kind, ...work }))
          : (['forward', 'backward'] as const).map((kind) => ({ kind, ...work })),
    ),
  );
  const sends: { rank: number; action: Transfer }[] = [];
  for (;;) {
    const moves: (() => void)[] = [];
    const make = (rank: number, action: Action): void => {
      ranks.run(rank, action);
      actions[rank]!.push(action);
    };
    for (const { rank, action } of ranks.arrived()) moves.push(() => make(rank, action));
    for (const [i, { rank, action }] of sends.entries())
      if (ranks.canSend(rank, action)) moves.push(() => make(sends.splice(i, 1)[0]!.rank, action));
    for (const [i, action] of left.entries()) {
      const who = ranksOn(pipeline, action.stage, action.microbatch);
      if (!who.every((rank) => ranks.missing(rank, action) === undefined)) continue;
      moves.push(() => {
        left.splice(i, 1);
        for (const rank of who) {
          make(rank, action);
          for (const send of transfersAround(pipeline, rank, action).after)
            sends.push({ rank, action: send });
        }
      });
    }
    if (moves.length === 0) return { pipeline, microbatches, buffers, actions };
    pick(moves, random)();
  }
}

/** The schedule with an action dropped, doubled, moved, swapped with the next or replaced. */
export function mutate(schedule: Schedule, random: Random): Schedule {
  const actions = schedule.actions.map((list) => [...list]);
  const list = pick(actions, random);
  const at = Math.floor(random() * list.length);
  const to = Math.floor(random() * list.length);
  const action = list[at];
  if (action === undefined) return schedule;
  pick(
    [
      () => list.splice(at, 1),
      () => list.splice(to, 0, action),
      () => list.splice(to, 0, ...list.splice(at, 1)),
      () => list.splice(at, 2, ...list.slice(at, at + 2).reverse()),
      () => list.splice(at, 1, { ...action, microbatch: Math.floor(random() * schedule.microbatches) }),
    ],
    random,
  )();
  return { ...schedule, actions };
}

/**
 * Runs a schedule on model ranks, which take turns at random, until all are done.
 *
 * @returns what went wrong, or undefined.
 */
export function runModel(schedule: Schedule, random: Random): string | undefined {
  const { pipeline, microbatches, buffers, actions } = schedule;
  const ranks = new Ranks(pipeline, buffers);
  const next = actions.map(() => 0);
  const current = (rank: number): Action | undefined => actions[rank]![next[rank]!];
  const waits = (rank: number): boolean => {
    const action = current(rank);
    if (action === undefined) return true;
    if (action.kind === 'send') return !ranks.canSend(rank, action);
    if (action.kind === 'receive') return ranks.first(action.peer, rank) === undefined;
    const name = formatAction(action);
    return ranksOn(pipeline, action.stage, action.microbatch).some((peer) => {
      const other = current(peer);
      return other === undefined || formatAction(other) !== name;
    });
  };
  for (;;) {
    const ready = [...actions.keys()].filter((rank) => !waits(rank));
    if (ready.length === 0) break;
    const rank = pick(ready, random);
    const action = current(rank)!;
    const together = isTransfer(action) ? [rank] : ranksOn(pipeline, action.stage, action.microbatch);
    if (!together.includes(rank)) return `rank ${rank} does ${formatAction(action)} of another rank`;
    for (const one of together) {
      const wrong = ranks.missing(one, action);
      if (wrong !== undefined) return `rank ${one} does ${formatAction(action)} without ${wrong}`;
      ranks.run(one, action);
      next[one]!++;
    }
  }
  const stuck = actions.findIndex((list, rank) => next[rank]! < list.length);
  if (stuck >= 0) return `rank ${stuck} waits for ever at ${formatAction(current(stuck)!)}`;
  return ranks.unfinished(microbatches);
}

/** What model ranks have done, and the values on their way. */
class Ranks {
  private readonly pipeline: Pipeline;
  private readonly buffers: number;
  private readonly done: Set<string>[];
  private readonly channels = new Map<string, Transfer[]>();

  constructor(pipeline: Pipeline, buffers: number) {
    this.pipeline = pipeline;
    this.buffers = buffers;
    this.done = Array.from({ length: rankCount(pipeline) }, () => new Set<string>());
  }

  canSend(rank: number, { peer }: Transfer): boolean {
    return this.channel(rank, peer).length < this.buffers;
  }

  /** The value that comes next from a rank to another. */
  first(from: number, to: number): Transfer | undefined {
    return this.channel(from, to)[0];
  }

  /** Receives that are possible now. */
  arrived(): { rank: number; action: Transfer }[] {
    return [...this.channels].flatMap(([key, [first]]) => {
      if (first === undefined) return [];
      const [from, to] = key.split(' ').map(Number) as [number, number];
      return [{ rank: to, action: { ...first, kind: 'receive', peer: from } }];
    });
  }

  /** What an action lacks on a rank, or has been done before. */
  missing(rank: number, action: Action): string | undefined {
    const done = this.done[rank]!;
    const { kind, stage, microbatch } = action;
    const has = (work: Compute['kind']): boolean => done.has(formatAction({ kind: work, stage, microbatch }));
    if (done.has(formatAction(action))) return 'a need: it is done';
    if (kind === 'send') {
      const work: Compute = {
        kind: action.value === 'activation' ? 'forward' : 'inputGradient',
        stage,
        microbatch,
      };
      const asked = transfersAround(this.pipeline, rank, work).after.some(
        (send) => formatAction(send) === formatAction(action),
      );
      return asked && done.has(formatAction(work)) ? undefined : 'its value';
    }
    if (kind === 'receive') {
      const first = this.first(action.peer, rank)!;
      return first.microbatch === microbatch && first.value === action.value && first.stage === stage
        ? undefined
        : 'its value';
    }
    if (kind === 'weightGradient')
      return has('inputGradient') && !has('weightGradient') ? undefined : 'the input gradient';
    if (kind !== 'forward' && (!has('forward') || has('inputGradient'))) return 'the forward pass';
    const { before } = transfersAround(this.pipeline, rank, action as Compute);
    return before.every((receive) => done.has(formatAction(receive)))
      ? undefined
      : 'a value of another stage';
  }

  run(rank: number, action: Action): void {
    if (action.kind === 'send') this.channel(rank, action.peer).push(action);
    if (action.kind === 'receive') this.channel(action.peer, rank).shift();
    const kinds =
      action.kind === 'backward' ? (['inputGradient', 'weightGradient', 'backward'] as const) : [];
    this.done[rank]!.add(formatAction(action));
    for (const kind of kinds) this.done[rank]!.add(formatAction({ ...action, kind } as Compute));
  }

  /** What nobody computed, or nobody received. */
  unfinished(microbatches: number): string | undefined {
    for (const [stage] of this.pipeline.stages.entries()) {
      for (let microbatch = 0; microbatch < microbatches; microbatch++) {
        const last = formatAction({ kind: 'weightGradient', stage, microbatch });
        for (const rank of ranksOn(this.pipeline, stage, microbatch))
          if (!this.done[rank]!.has(last)) return `rank ${rank} never does ${last}`;
      }
    }
    const full = [...this.channels].find(([, values]) => values.length > 0);
    return full === undefined ? undefined : `a value stays between ranks ${full[0]}`;
  }

  private channel(from: number, to: number): Transfer[] {
    const key = `${from} ${to}`;
    const channel = this.channels.get(key) ?? [];
    this.channels.set(key, channel);
    return channel;
  }
}

export interface Agreement {
  readonly schedules: number;
  /** Made of moves that ranks could make. */
  readonly valid: number;
  /** Of the valid ones. */
  readonly refused: number;
  readonly accepted: number;
  /** Where checker and model disagree, or a valid schedule is refused. */
  readonly wrong: readonly string[];
}

/** Compares checker and model on random schedules, every other one mutated once or twice. */
export function compareWithModel(schedules: number, random: Random): Agreement {
  const wrong: string[] = [];
  let [valid, refusedValid, accepted] = [0, 0, 0];
  for (let i = 0; i < schedules; i++) {
    const buffers = 1 + Math.floor(random() * 3);
    const mutations = i % 2 === 0 ? 0 : 1 + Math.floor(random() * 2);
    let schedule = randomSchedule(randomPipeline(random), 1 + Math.floor(random() * 5), buffers, random);
    for (let k = 0; k < mutations; k++) schedule = mutate(schedule, random);
    const refused = refusal(schedule);
    const failed = runModel(schedule, random);
    if (mutations === 0) valid++;
    if (mutations === 0 && refused !== undefined) refusedValid++;
    if (refused === undefined) accepted++;
    if (
      mutations === 0
        ? refused !== undefined || failed !== undefined
        : (refused === undefined) !== (failed === undefined)
    )
      wrong.push(`schedule ${i}: the checker says '${refused ?? 'yes'}', the model '${failed ?? 'yes'}'`);
  }
  return { schedules, valid, refused: refusedValid, accepted, wrong };
}

function refusal(schedule: Schedule): string | undefined {
  try {
    checkSchedule(schedule);
    return undefined;
  } catch (error) {
    if (error instanceof ScheduleError) return error.message;
    throw error;
  }
}

/** Random numbers that are the same on every machine: mulberry32 (Ettinger 2017, public domain). */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
