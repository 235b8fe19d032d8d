/** Loads a function in stages: each rank has one, with its parameters, and leaves go through all of them. */

import {
  type BuiltPipeline,
  buildStages,
  memoryReport,
  type PipelineProgram,
  programBytes,
  type StageAction,
  StageError,
  type StageProgram,
  setsInFlight,
  type Traceable,
} from '@cohesin/core';
import type { DistributeOptions, LoadedFunction } from './distribute.ts';
import { gatheredBytes, gatherMemory, share, sumMemory } from './exchange.ts';
import type { StageJob } from './rank-worker.ts';
import { groupOf } from './rendezvous.ts';
import { assigns, batchBytes, batchMemory, type DistributedProgram } from './runner.ts';
import {
  checkSchedule,
  isTransfer,
  makeSchedule,
  type Pipeline,
  rankCount,
  ranksOn,
  type ScheduleName,
} from './schedule/index.ts';
import { type Channel, channel } from './stage-exchange.ts';
import { type DistributedState, freshId } from './state.ts';

export interface StagesOptions {
  /**
   * Layers of each stage, from the first to the last, as dotted paths: `*` for one name, several with `|`. Layers that none
   * names go with what they read, so it is enough to name where a stage begins: `['stem', 'transformer']`.
   */
  readonly stages: readonly string[];
  /** Devices of each stage, which share its leaves; as even as they divide by default, the first stages having more. */
  readonly devices?: readonly number[];
  /** Default `1f1b`. */
  readonly schedule?: ScheduleName;
}

/**
 * @throws when the devices are not as many as the stages say, a stage has more devices than there are leaves, or the step
 *   cannot be cut: see `buildStages`.
 */
export async function loadStages(
  fn: Traceable,
  options: DistributeOptions & { readonly state: DistributedState; readonly pipeline: StagesOptions },
): Promise<LoadedFunction> {
  const { mesh, state, leaves = 1, pipeline: wanted } = options;
  const pipeline = pipelineOf(wanted, mesh.ranks.length, leaves);
  const { schedule = '1f1b' } = wanted;
  const training = trainingActions(schedule, pipeline, leaves);
  const inFlight = pipeline.stages.map((ranks) => mostSets(ranks, training));
  const built = buildStages(fn, {
    ...options,
    stages: wanted.stages,
    splitBackward: schedule === 'zero-bubble',
    inFlight,
  });
  const actions = built.program.stages[0]!.update === undefined ? forwardActions(pipeline, leaves) : training;
  declareState(built.program, pipeline, state);
  const program = described(built.program, pipeline, actions);
  const trains = built.program.stages.some(assigns);
  const memory = stageMemory(built.program, pipeline, actions);
  const batch = batchMemory(program);
  const hostBytes = batchBytes(batch) + bytesOf(memory);
  const job = { id: freshId(), program, assigns: trains, sums: sumsOf(built), ...batch, hostBytes };
  await Promise.all(
    pipeline.stages.flatMap((ranks, stage) =>
      ranks.map((rank) => {
        const { id, inputs, outputs } = job;
        const own = {
          kind: 'stage' as const,
          id,
          stateId: state.id,
          program: built.program.stages[stage]!,
          actions: actions[rank]!,
          memory: memory[rank]!,
          rendezvous: mesh.rendezvous,
          inputs,
          outputs,
          deadlineMs: mesh.deadlineMs,
        };
        return mesh.ranks[rank]!.call((api) => api.load(own));
      }),
    ),
  );
  return { job, parameters: built.parameters, counters: built.counters };
}

/** Ranks of each stage, one after the other. */
export function pipelineOf({ stages, devices }: StagesOptions, ranks: number, leaves: number): Pipeline {
  if (stages.length < 2)
    throw new StageError(`stages: ${stages.length} stage; give two or more, or leave the pipeline out`);
  if (devices === undefined && ranks < stages.length)
    throw new StageError(
      `stages: ${stages.length} stages but the mesh has ${ranks} devices; give it one or more for each stage`,
    );
  const counts = devices ?? stages.map((_, stage) => even(stages.length, stage, ranks));
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (counts.length !== stages.length || total !== ranks || counts.some((count) => count < 1))
    throw new StageError(
      `stages: ${stages.length} stages on ${counts.join(' + ')} devices, but the mesh has ${ranks}; give each stage at least one, and all of them together ${ranks}`,
    );
  const most = Math.max(...counts);
  if (most > leaves)
    throw new StageError(
      `stages: a stage on ${most} devices but only ${leaves} leaves; use at most ${leaves} devices for a stage, or a larger batch`,
    );
  let next = 0;
  return {
    stages: counts.map((count) => Array.from({ length: count }, () => next++)),
    within: 'data',
  };
}

/** Devices of a stage where they are divided evenly. */
function even(stages: number, stage: number, ranks: number): number {
  const [from, to] = share(ranks, stages - 1 - stage, stages);
  return to - from;
}

/** What each rank computes in a step of a checked schedule. */
function trainingActions(name: ScheduleName, pipeline: Pipeline, leaves: number): StageAction[][] {
  const schedule = makeSchedule(name, pipeline, leaves);
  checkSchedule(schedule);
  return schedule.actions.map((list) =>
    list.flatMap((action) => (isTransfer(action) ? [] : { kind: action.kind, leaf: action.microbatch })),
  );
}

/** What each rank computes where nothing goes back. */
function forwardActions(pipeline: Pipeline, leaves: number): StageAction[][] {
  const actions: StageAction[][] = Array.from({ length: rankCount(pipeline) }, () => []);
  for (let leaf = 0; leaf < leaves; leaf++)
    for (const stage of pipeline.stages.keys())
      for (const rank of ranksOn(pipeline, stage, leaf)) actions[rank]!.push({ kind: 'forward', leaf });
  return actions;
}

/** Leaves that any of the ranks has in flight at most. */
function mostSets(ranks: readonly number[], actions: readonly (readonly StageAction[])[]): number {
  return Math.max(...ranks.map((rank) => new Set(setsInFlight(actions[rank]!).values()).size));
}

/** State is on the ranks of the stages that use it. */
function declareState({ stages }: PipelineProgram, pipeline: Pipeline, state: DistributedState): void {
  const ranks = new Map<string, number[]>();
  const shapes = new Map<string, readonly number[]>();
  for (const program of stages) {
    for (const { name, shape } of program.state) {
      shapes.set(name, shape);
      ranks.set(name, [...(ranks.get(name) ?? []), ...pipeline.stages[program.stage]!]);
    }
  }
  const trains = stages.some(assigns);
  for (const [name, shape] of shapes) state.declare({ name, shape }, ranks.get(name)!, trains);
}

const sumsOf = ({ program }: BuiltPipeline): string[] =>
  program.stages[0]!.peaks.tensors.map(({ name }) => name);

function described(
  program: PipelineProgram,
  pipeline: Pipeline,
  actions: readonly (readonly StageAction[])[],
): DistributedProgram {
  const inFlight = pipeline.stages.map((ranks) => mostSets(ranks, actions));
  const memory = (): string =>
    [
      ...program.stages.map((stage, i) => stageLine(stage, pipeline.stages[i]!, inFlight[i]!)),
      ...program.stages.map((stage, i) => `stage ${i}: ${memoryReport(stage, inFlight[i])}`),
    ].join('\n');
  return { ...program, memory };
}

/** What a rank of a stage holds, and hands on. */
function stageLine(program: StageProgram, ranks: readonly number[], inFlight: number): string {
  const { state, next, ...rest } = programBytes(program, inFlight);
  const work = Object.values(rest).reduce((total, bytes) => total + bytes, 0);
  const links = program.links
    .filter(({ from }) => from === program.stage)
    .map(({ value, to, bytes }) => `; ${mebibytes(bytes)} of ${value}s a leaf to stage ${to}`);
  return `stage ${program.stage} on rank ${ranks.join(', ')}: ${mebibytes(state + next)} of weights, statistics and moments, ${mebibytes(work)} for ${inFlight} ${inFlight === 1 ? 'leaf' : 'leaves'} at a time${links.join('')}`;
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(2)} MiB`;

/** The shared memory of each rank. */
function stageMemory(
  { stages }: PipelineProgram,
  pipeline: Pipeline,
  actions: readonly (readonly StageAction[])[],
): StageJob['memory'][] {
  const all = gatherMemory(Math.max(...stages.map(sharedBytes)));
  const channels = stages.flatMap((program) => channelsFrom(program, pipeline, actions));
  const memory: StageJob['memory'][] = [];
  for (const program of stages) {
    const ranks = pipeline.stages[program.stage]!;
    const group = groupOf(ranks);
    const gathered = gatheredBytes(program.segments.flatMap(({ combine }) => combine));
    const exchange = sumMemory(program, ranks.length, gathered);
    for (const rank of ranks)
      memory[rank] = {
        group,
        exchange,
        all,
        channels: channels.filter(({ from, to }) => from === rank || to === rank),
      };
  }
  return memory;
}

/** Bytes of it, with each rank's copies of what it gathered. */
function bytesOf(memory: readonly StageJob['memory'][]): number {
  const shared = new Set(
    memory.flatMap(({ exchange: { gathered, peaks, sums, total }, all, channels }) => [
      ...[...gathered, ...peaks, ...sums, total, ...all],
      ...channels.flatMap(({ words, messages }) => [words, messages]),
    ]),
  );
  const copies = memory.flatMap(({ exchange, all }) => [exchange.gathered[0], all[0]]);
  return [...shared, ...copies].reduce((total, { byteLength }) => total + byteLength, 0);
}

/** The most that all ranks share at a time: largest gradients, what the update hands over, or parameters. */
function sharedBytes({ peaks, handOvers, sharedParameters }: StageProgram): number {
  const lists = [peaks.tensors.map(() => ({ bytes: 4 })), ...handOvers, sharedParameters];
  return Math.max(...lists.map((list) => list.reduce((total, { bytes }) => total + bytes, 0)));
}

/** Channels from the ranks of a stage to those of others. */
function channelsFrom(
  { stage, links }: StageProgram,
  pipeline: Pipeline,
  actions: readonly (readonly StageAction[])[],
): Channel[] {
  return links
    .filter((link) => link.from === stage)
    .flatMap(({ value, from, to, bytes }) =>
      pipeline.stages[from]!.flatMap((sender) =>
        pipeline.stages[to]!.flatMap((receiver) => {
          const earlier = setsInFlight(actions[from < to ? sender : receiver]!);
          const later = new Set(actions[from < to ? receiver : sender]!.map(({ leaf }) => leaf));
          const slots = new Map([...earlier].filter(([leaf]) => later.has(leaf)));
          const ends = { value, from: sender, to: receiver, stages: [from, to] as const };
          return slots.size === 0 ? [] : [channel({ ...ends, slots, bytes })];
        }),
      ),
    );
}
