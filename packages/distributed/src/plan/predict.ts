/** A step of a plan, simulated: when each device does what, what bounds it, and what it keeps. */
import {
  type Compute,
  formatAction,
  type Pipeline,
  type Schedule,
  type Transfer,
} from '../schedule/action.ts';
import { checkSchedule } from '../schedule/check.ts';
import { makeSchedule, type ScheduleName } from '../schedule/generate.ts';
import { groupsOf, stageOfRanks } from '../schedule/pipeline.ts';
import { type ScheduleCosts, type Span, timeSchedule } from '../schedule/timing.ts';
import type { Blocks } from './blocks.ts';
import { type Costs, transferMs } from './costs.ts';
import type { Stage } from './partition.ts';
import { leastStageBytes, type Sharing, type StageCost, stageCost } from './stage.ts';

export interface Plan extends Sharing {
  /** What kind of plan this is, as 'data parallel'. */
  readonly name: string;
  readonly stages: readonly Stage[];
  readonly schedule: ScheduleName;
  readonly ahead: number;
  /** Microbatches of a step. */
  readonly microbatches: number;
}

export interface Prediction {
  readonly plan: Plan;
  readonly leaves: number;
  readonly schedule: Schedule;
  readonly stages: readonly StageCost[];
  readonly stepMs: number;
  /** Of each rank: computations, sends, the gradient sum and the update. */
  readonly timeline: readonly (readonly TimedSpan[])[];
  /** Bytes that leave a device in a step, all devices together. */
  readonly bytes: { readonly meetings: number; readonly borders: number; readonly sums: number };
  /** Parts of all devices' time: adds up to 1. */
  readonly parts: {
    readonly kernels: number;
    readonly meetings: number;
    readonly sums: number;
    readonly update: number;
    readonly idle: number;
  };
}

export interface TimedSpan {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** @throws when a stage does not fit the memory of a device, naming it. */
export function predict(plan: Plan, blocks: Blocks, costs: Costs): Prediction {
  const pipeline = pipelineOf(plan, blocks);
  const schedule = makeSchedule(plan.schedule, pipeline, turnsOf(plan), { ahead: plan.ahead });
  const { inFlight } = checkSchedule(schedule);
  const stages = plan.stages.map((stage, index) => {
    const most = Math.max(...pipeline.stages[index]!.map((rank) => inFlight[rank]!));
    const cost = stageCost(blocks, stage, { ...plan, inFlight: most, buffers: schedule.buffers }, costs);
    if (cost === undefined) throw new Error(tooLarge(plan, index, most, schedule.buffers, blocks, costs));
    return cost;
  });
  const spans = timeSchedule(schedule, scheduleCosts(stages, schedule, costs));
  const timeline = withUpdate(spans, stages, schedule);
  const stepMs =
    Math.max(...timeline.flat().map(({ end }) => end)) + (timeline.length > 1 ? costs.link.latencyMs : 0);
  return {
    plan,
    leaves: blocks.leaves,
    schedule,
    stages,
    stepMs,
    timeline,
    bytes: bytesMoved(plan, stages),
    parts: partsOf(spans, stages, schedule, stepMs),
  };
}

/** Times of the actions of a schedule whose stages cost this. */
export function scheduleCosts(stages: readonly StageCost[], schedule: Schedule, costs: Costs): ScheduleCosts {
  return {
    compute: (action) => computeMs(action, stages[action.stage]!),
    transfer: (action, rank) => borderMs(action, rank, stages, schedule, costs),
    receive: (action, rank) => borderMs(action, rank, stages, schedule, costs) - costs.link.latencyMs, // is there: only to be copied
    overlap: costs.link.overlap,
  };
}

/** Microbatches, those that go side by side counted as one. */
function turnsOf({ stages, microbatches, sideBySide = 1, ...sharing }: Plan): number {
  if (sideBySide === 1) return microbatches;
  const groups = groupsOf(stages[0]!.devices, sharing);
  return groups * Math.ceil(microbatches / groups / sideBySide);
}

function pipelineOf({ stages, within, replicas }: Plan, { leaves }: Blocks): Pipeline {
  let rank = 0;
  return {
    stages: stages.map(({ devices }) => Array.from({ length: devices }, () => rank++)),
    within,
    ...(replicas !== undefined && { replicas }),
    leaves: stages.map(() => leaves),
  };
}

function tooLarge(
  plan: Plan,
  index: number,
  inFlight: number,
  buffers: number,
  cut: Blocks,
  costs: Costs,
): string {
  const stage = plan.stages[index]!;
  const own = cut.blocks.slice(stage.from, stage.to);
  const needed = leastStageBytes(cut, stage, { ...plan, inFlight, buffers }, costs);
  const state = own.reduce((sum, block) => sum + block.stateBytes, 0);
  const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(1);
  const held = inFlight * (plan.sideBySide ?? 1);
  return `stage ${index} (${own[0]!.name} to ${own.at(-1)!.name}) does not fit ${costs.device.memoryGb} GB: with each block computed again from its input it needs ${gigabytes(needed)} GB, ${gigabytes(state)} GB of them weights, moments and sums, and activations of ${held} ${held === 1 ? 'microbatch' : 'microbatches'}`;
}

function computeMs({ kind }: Compute, { passMs }: StageCost): number {
  if (kind !== 'backward') return passMs[kind];
  return passMs.inputGradient + passMs.weightGradient;
}

/** A rank sends a part to each peer. */
function borderMs(
  { stage, value, peer }: Transfer,
  rank: number,
  stages: readonly StageCost[],
  { pipeline }: Schedule,
  costs: Costs,
): number {
  const bytes = stages[value === 'activation' ? stage : stage - 1]!.outputBytes;
  const sizes = [rank, peer].map((one) => {
    const { length } = pipeline.stages.find((ranks) => ranks.includes(one))!;
    return Math.floor(length / groupsOf(length, pipeline));
  });
  return transferMs(bytes / Math.max(...sizes), costs);
}

/** After its last action a rank adds up gradients with those of its stage, once all are there, and updates. */
function withUpdate(
  spans: readonly (readonly Span[])[],
  stages: readonly StageCost[],
  { pipeline }: Schedule,
): TimedSpan[][] {
  const owners = stageOfRanks(pipeline);
  const endOf = (rank: number): number => spans[rank]!.at(-1)?.end ?? 0;
  return spans.map((list, rank) => {
    const ranks = pipeline.stages[owners[rank]!]!;
    const { sumMs, updateMs } = stages[owners[rank]!]!;
    const start = Math.max(...ranks.map(endOf));
    const summed = start + sumMs;
    const last: TimedSpan[] = [{ name: 'update', start: summed, end: summed + updateMs }];
    if (ranks.length > 1) last.unshift({ name: 'gradient sum', start, end: summed });
    return [...list.filter(({ start: from, end }) => end > from).map(timed), ...last];
  });
}

const timed = ({ action, start, end }: Span): TimedSpan => ({ name: formatAction(action), start, end });

function bytesMoved({ microbatches }: Plan, stages: readonly StageCost[]): Prediction['bytes'] {
  const sum = (of: (stage: StageCost) => number): number => stages.reduce((all, stage) => all + of(stage), 0);
  return {
    meetings: microbatches * sum(({ meetingBytes }) => meetingBytes),
    borders: microbatches * sum(({ outputBytes }) => 2 * outputBytes),
    sums: sum(({ sumBytes }) => sumBytes),
  };
}

function partsOf(
  spans: readonly (readonly Span[])[],
  stages: readonly StageCost[],
  { pipeline }: Schedule,
  stepMs: number,
): Prediction['parts'] {
  const owners = stageOfRanks(pipeline);
  const all = stepMs * spans.length;
  let [busy, meetings, sums, update] = [0, 0, 0, 0];
  for (const [rank, list] of spans.entries()) {
    const { meetingMs, sumMs, updateMs } = stages[owners[rank]!]!;
    for (const { action, start, end } of list) {
      busy += end - start;
      if (action.kind === 'send' || action.kind === 'receive') meetings += end - start;
      else if (action.kind === 'backward') meetings += meetingMs.inputGradient + meetingMs.weightGradient;
      else meetings += meetingMs[action.kind];
    }
    sums += sumMs;
    update += updateMs;
  }
  const idle = all - busy - sums - update;
  return {
    kernels: (busy - meetings) / all,
    meetings: meetings / all,
    sums: sums / all,
    update: update / all,
    idle: idle / all,
  };
}
