/** Loads a function in stages: each rank has one, with its parameters, and leaves go through all of them. */

import {
  type BuiltPipeline,
  buildStages,
  type LinkTensor,
  memoryReport,
  momentsReport,
  type PipelineProgram,
  programBytes,
  type StageAction,
  StageError,
  type StageProgram,
  type StageWork,
  setsInFlight,
  type Traceable,
  totalBytes,
} from '@cohesin/core';
import { heldBytes } from './chunks.ts';
import { type Cut, checkReplicas, cutOf } from './deal.ts';
import type { DistributeOptions, LoadedFunction } from './distribute.ts';
import {
  type ExchangeMemory,
  exchangeMemory,
  gatheredBytes,
  gatherMemory,
  share,
  sumMemory,
} from './exchange.ts';
import { buildEach, checkExchanges, mixedBitsId } from './kinds.ts';
import { differenceOf } from './level.ts';
import type { StageJob } from './rank-worker.ts';
import { groupOf } from './rendezvous.ts';
import { assigns, batchBytes, batchMemory, type DistributedProgram } from './runner.ts';
import {
  checkSchedule,
  groupCount,
  isTransfer,
  makeSchedule,
  type Pipeline,
  rankCount,
  ranksOn,
  type Schedule,
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
  /** Devices of each stage, which share its work; as even as they divide by default, the first stages having more. */
  readonly devices?: readonly number[];
  /** Default `1f1b`. */
  readonly schedule?: ScheduleName;
  /** Further microbatches that stages begin before they first go backward: see `ScheduleOptions`. None by default. */
  readonly ahead?: number;
}

/**
 * @throws when the devices are not as many as the stages say, a stage has more devices than there are leaves or parts of a
 *   sequence, or the step cannot be cut: see `buildStages`.
 */
export async function loadStages(
  fn: Traceable,
  options: DistributeOptions & { readonly state: DistributedState; readonly pipeline: StagesOptions },
): Promise<LoadedFunction> {
  const { mesh, state, pipeline: wanted, replicas } = options;
  const cut = cutOf(options);
  const pipeline = pipelineOf(wanted, mesh.ranks.length, cut, replicas);
  const { schedule = '1f1b', ahead = 0 } = wanted;
  const microbatches = cut.leavesPerSequence === 1 ? cut.leaves : cut.leaves / cut.leavesPerSequence;
  const training = trainingActions(makeSchedule(schedule, pipeline, microbatches, { ahead }));
  const inFlight = pipeline.stages.map((ranks) => mostSets(ranks, training));
  const parts = pipeline.stages.map((_, stage) => partsOf(pipeline, stage, cut.leavesPerSequence));
  const partsOnDevice = parts.map((each) => Math.max(...each.map(({ length }) => length)));
  const built = programsOf(fn, pipeline, {
    ...options,
    stages: wanted.stages,
    splitBackward: schedule === 'zero-bubble',
    inFlight,
    partsOnDevice,
    ...(options.shardOptimizer === true && {
      sharedUpdate: { ranks: pipeline.stages.map(({ length }) => length), owners: state.owners },
    }),
  });
  const { programs } = built;
  const trains = built.program.stages.some(assigns);
  const actions =
    built.program.stages[0]!.update === undefined ? forwardActions(pipeline, microbatches) : training;
  declareState(programs, state);
  const work = pipeline.stages.flatMap((ranks, stage) =>
    ranks.map((rank, i): StageWork => ({ actions: actions[rank]!, parts: parts[stage]![i]! })),
  );
  const program = described(built.program, pipeline, work, programs);
  const memory = stageMemory(built.program, pipeline, work);
  const batch = batchMemory(program);
  const bytes = {
    deviceBytes: programs.map((one, rank) => {
      const own = mostSets([rank], actions);
      return totalBytes(one, own * work[rank]!.parts!.length, own);
    }),
    hostBytes: batchBytes(batch) + bytesOf(memory),
  };
  const job = { id: freshId(), program, assigns: trains, sums: sumsOf(built), ...batch, ...bytes };
  await Promise.all(
    programs.map((one, rank) => {
      const { id, inputs, outputs } = job;
      const own = {
        kind: 'stage' as const,
        id,
        stateId: state.id,
        program: one,
        work: work[rank]!,
        memory: memory[rank]!,
        rendezvous: mesh.rendezvous,
        inputs,
        outputs,
        deadlineMs: mesh.deadlineMs,
      };
      return mesh.ranks[rank]!.call((api) => api.load(own));
    }),
  );
  return { job, parameters: built.parameters, counters: built.counters };
}

/**
 * Each stage is built for its devices, which are alike: their copies of its parameters stay so. With a program for each
 * rank.
 *
 * @throws StageError when the devices of a stage differ.
 */
function programsOf(
  fn: Traceable,
  { stages }: Pipeline,
  options: DistributeOptions & Parameters<typeof buildStages>[1],
): BuiltPipeline & { readonly programs: readonly StageProgram[] } {
  const { mesh } = options;
  for (const [stage, ranks] of stages.entries()) {
    const difference = differenceOf(mesh.infos, ranks);
    if (difference !== undefined)
      throw new StageError(
        `stages: the devices of stage ${stage} are not alike: ${difference}. Each has a copy of its parameters and would round it apart; give unlike devices stages of their own, or leave the stages out`,
      );
  }
  const built = buildEach(mesh, options, (own) => {
    const pipeline = buildStages(fn, { ...options, ...own });
    return { ...pipeline, programs: ofRanks(pipeline.program, stages) };
  });
  checkExchanges(built.map((one) => one.programs));
  const programs = built.map((one, rank) => one.programs[rank]!);
  const { parameters, counters, program } = built[0]!;
  const own = { stages: stages.map(([rank]) => programs[rank!]!), bitsId: mixedBitsId(programs) };
  return { program: { ...program, ...own }, parameters, counters, programs };
}

/** The program of each rank. */
function ofRanks(
  { stages: programs, ranks }: PipelineProgram,
  stages: Pipeline['stages'],
): readonly StageProgram[] {
  return ranks ?? stages.flatMap((members, stage) => members.map(() => programs[stage]!));
}

/**
 * Ranks of each stage, one after the other. Those of a stage share each sequence, where it is cut into parts, or form
 * `replicas` groups that each share their own; whole sequences are dealt to them in turn.
 */
export function pipelineOf(
  { stages, devices }: StagesOptions,
  ranks: number,
  cut: Cut,
  replicas?: number,
): Pipeline {
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
  const { leaves, leavesPerSequence: parts } = cut;
  checkReplicas(cut, ranks, replicas);
  let next = 0;
  const placed = counts.map((count) => Array.from({ length: count }, () => next++));
  const pipeline: Pipeline =
    parts === 1
      ? { stages: placed, within: 'data' }
      : {
          stages: placed,
          within: 'sequence',
          replicas: Math.min(replicas ?? 1, leaves / parts),
          leaves: counts.map(() => parts),
        };
  const most = Math.max(...counts);
  if (parts === 1 && most > leaves)
    throw new StageError(
      `stages: a stage on ${most} devices but only ${leaves} leaves; use at most ${leaves} devices for a stage, or a larger batch`,
    );
  for (const [stage, count] of counts.entries()) {
    const groups = groupCount(pipeline, stage);
    if (parts > 1 && Math.ceil(count / groups) > parts)
      throw new StageError(
        `stages: ${groups === 1 ? `a stage on ${count} devices` : `${groups} groups of a stage on ${count} devices`} but only ${parts} parts of a sequence; use at most ${parts * groups} devices for it, more replicas or more parts`,
      );
  }
  return pipeline;
}

/** Of each rank of a stage, which parts of a sequence it has. */
function partsOf(pipeline: Pipeline, stage: number, parts: number): number[][] {
  const groups = Array.from({ length: groupCount(pipeline, stage) }, (_, group) =>
    ranksOn(pipeline, stage, group),
  );
  return groups.flatMap((ranks) =>
    ranks.map((_, i) => {
      const [from, to] = pipeline.within === 'sequence' ? share(parts, i, ranks.length) : [0, parts];
      return Array.from({ length: to - from }, (_, part) => from + part);
    }),
  );
}

/** Devices of a stage where they are divided evenly. */
function even(stages: number, stage: number, ranks: number): number {
  const [from, to] = share(ranks, stages - 1 - stage, stages);
  return to - from;
}

/** What each rank computes in a step of a checked schedule. */
function trainingActions(schedule: Schedule): StageAction[][] {
  checkSchedule(schedule);
  return schedule.actions.map((list) =>
    list.flatMap((action) =>
      isTransfer(action) ? [] : { kind: action.kind, microbatch: action.microbatch },
    ),
  );
}

/** What each rank computes where nothing goes back. */
function forwardActions(pipeline: Pipeline, microbatches: number): StageAction[][] {
  const actions: StageAction[][] = Array.from({ length: rankCount(pipeline) }, () => []);
  for (let microbatch = 0; microbatch < microbatches; microbatch++)
    for (const stage of pipeline.stages.keys())
      for (const rank of ranksOn(pipeline, stage, microbatch))
        actions[rank]!.push({ kind: 'forward', microbatch });
  return actions;
}

/** Microbatches that any of the ranks has in flight at most. */
function mostSets(ranks: readonly number[], actions: readonly (readonly StageAction[])[]): number {
  return Math.max(...ranks.map((rank) => new Set(setsInFlight(actions[rank]!).values()).size));
}

/** State is on the ranks whose programs use it. */
function declareState(programs: readonly StageProgram[], state: DistributedState): void {
  const ranks = new Map<string, number[]>();
  const shapes = new Map<string, readonly number[]>();
  for (const [rank, program] of programs.entries()) {
    for (const { name, shape } of program.state) {
      shapes.set(name, shape);
      ranks.set(name, [...(ranks.get(name) ?? []), rank]);
    }
  }
  const trains = programs.some(assigns);
  for (const [name, shape] of shapes) state.declare({ name, shape }, ranks.get(name)!, trains);
  for (const [rank, { sums, updateShare }] of programs.entries())
    for (const [i, owner] of (updateShare?.owners ?? []).entries())
      if (owner === updateShare!.rank) state.owners.set(sums!.tensors[i]!.name, rank);
}

const sumsOf = ({ program }: BuiltPipeline): string[] =>
  program.stages[0]!.peaks.tensors.map(({ name }) => name);

function described(
  program: PipelineProgram,
  pipeline: Pipeline,
  work: readonly StageWork[],
  programs: readonly StageProgram[],
): DistributedProgram {
  const actions = work.map((one) => one.actions);
  const memory = (): string => {
    const held = pipeline.stages.map((ranks) => {
      const parts = Math.max(...ranks.map((rank) => work[rank]!.parts!.length));
      return { ranks, parts, inFlight: mostSets(ranks, actions) };
    });
    return [
      ...program.stages.map((stage, i) => stageLine(stage, held[i]!)),
      ...program.stages.map((stage, i) => {
        const { parts, inFlight } = held[i]!;
        return `stage ${i}: ${memoryReport(stage, inFlight * parts, inFlight)}`;
      }),
      ...(programs[0]!.updateShare === undefined ? [] : [momentsReport(programs)]),
    ].join('\n');
  };
  return { ...program, memory };
}

interface Held {
  readonly ranks: readonly number[];
  /** Of a sequence on a rank. */
  readonly parts: number;
  /** Microbatches. */
  readonly inFlight: number;
}

/** What a rank of a stage holds, and hands on. */
function stageLine(program: StageProgram, { ranks, parts, inFlight }: Held): string {
  const { state, next, ...rest } = programBytes(program, inFlight * parts, inFlight);
  const work = Object.values(rest).reduce((total, bytes) => total + bytes, 0);
  const inParts = program.leavesPerSequence > 1;
  const [one, many] = inParts ? ['sequence', 'sequences'] : ['leaf', 'leaves'];
  const links = program.links
    .filter(({ from }) => from === program.stage)
    .map(({ value, to, bytes }) => `; ${mebibytes(bytes)} of ${value}s a ${one} to stage ${to}`);
  const share = inParts ? `, ${parts} of ${program.leavesPerSequence} parts of each` : '';
  return `stage ${program.stage} on rank ${ranks.join(', ')}: ${mebibytes(state + next)} of weights, statistics and moments, ${mebibytes(work)} for ${inFlight} ${inFlight === 1 ? one : many} at a time${share}${links.join('')}`;
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(2)} MiB`;

/** The shared memory of each rank. */
function stageMemory(
  { stages }: PipelineProgram,
  pipeline: Pipeline,
  work: readonly StageWork[],
): StageJob['memory'][] {
  const all = gatherMemory(Math.max(...stages.map(sharedBytes)));
  const channels = stages.flatMap((program) => channelsFrom(program, pipeline, work));
  const memory: StageJob['memory'][] = [];
  for (const program of stages) {
    const ranks = pipeline.stages[program.stage]!;
    const group = groupOf(ranks);
    const exchange = stageExchange(program, pipeline);
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

/** For the ranks of a stage: leaves meet once a step, parts of a sequence where they need each other. */
function stageExchange(program: StageProgram, pipeline: Pipeline): ExchangeMemory {
  const { stage, leaves, leavesPerSequence } = program;
  const ranks = pipeline.stages[stage]!;
  if (leavesPerSequence === 1)
    return sumMemory(
      program,
      ranks.length,
      gatheredBytes(program.segments.flatMap(({ combine }) => combine)),
    );
  const rounds = Array.from({ length: leaves / leavesPerSequence }, (_, microbatch) =>
    ranksOn(pipeline, stage, microbatch),
  );
  return exchangeMemory(program, ranks.length, rounds);
}

/** Bytes of it, with what ranks hold of chunks. */
function bytesOf(memory: readonly StageJob['memory'][]): number {
  const shared = new Set(
    memory.flatMap(({ exchange: { gathered, chunks, groups }, all, channels }) => [
      ...[...gathered, chunks.areas.buffer, ...all],
      ...groups.flatMap((group) => group.gathered),
      ...channels.flatMap(({ words, messages }) => [words, messages]),
    ]),
  );
  const ofChunks = memory.reduce(
    (total, { exchange: { chunks, ranks } }) => total + heldBytes(chunks, ranks),
    0,
  );
  return [...shared].reduce((total, { byteLength }) => total + byteLength, ofChunks);
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
  work: readonly StageWork[],
): Channel[] {
  return links
    .filter((link) => link.from === stage)
    .flatMap(({ value, from, to, tensors }) =>
      pipeline.stages[from]!.flatMap((sender) =>
        pipeline.stages[to]!.flatMap((receiver) => {
          const earlier = setsInFlight(work[from < to ? sender : receiver]!.actions);
          const later = new Set(
            work[from < to ? receiver : sender]!.actions.map(({ microbatch }) => microbatch),
          );
          const slots = new Map([...earlier].filter(([microbatch]) => later.has(microbatch)));
          const [microbatch] = slots.keys();
          const isFirst = microbatch !== undefined && ranksOn(pipeline, from, microbatch)[0] === sender;
          const shared = work[receiver]!.parts!.filter((part) => work[sender]!.parts!.includes(part));
          const pieces = piecesHanded(tensors, shared, isFirst);
          const ends = { value, from: sender, to: receiver, stages: [from, to] as const };
          return slots.size === 0 || pieces.length === 0 ? [] : [channel({ ...ends, slots, pieces })];
        }),
      ),
    );
}

/** What a rank hands to one that has these of its parts; what all ranks of a microbatch have, the first hands on. */
function piecesHanded(
  tensors: readonly LinkTensor[],
  shared: readonly number[],
  isFirst: boolean,
): Channel['pieces'] {
  return tensors.flatMap(({ bytes, parts }, tensor): Channel['pieces'] => {
    if (parts === undefined) return isFirst ? [{ tensor, part: undefined, bytes }] : [];
    const own = shared.filter((part) => part >= parts[0] && part < parts[1]);
    return own.map((part) => ({ tensor, part, bytes }));
  });
}
