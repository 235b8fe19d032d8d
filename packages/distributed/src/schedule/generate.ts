/** Schedules as pure functions of the pipeline: what each rank computes in which order, and the transfers around it. */
import type { Action, Compute, Pipeline, Schedule, Work } from './action.ts';
import { groupCount, ranksOn, stageOfRanks, transfersAround } from './pipeline.ts';

export const SCHEDULES = ['gpipe', '1f1b', 'zero-bubble'] as const;
export type ScheduleName = (typeof SCHEDULES)[number];

export interface ScheduleOptions {
  /**
   * Further microbatches that a stage may begin before it first goes backward: each hides a transfer for the memory of
   * its activations, and of a buffer in each channel. GPipe begins all in any case.
   */
  readonly ahead?: number;
}

/**
 * The schedule of a step.
 *
 * - `gpipe`: all forward, then all backward (Huang et al. 2019).
 * - `1f1b`: forward and backward in turn once the pipeline is full, so that few activations are kept (Narayanan et al. 2019).
 * - `zero-bubble`: the same with backward split; weight gradients, for which nobody waits, fill the idle time. Keeps as
 *   much as the first stage of 1F1B does, on every stage (ZB-H1 of Qi et al. 2023).
 *
 * @throws when there is no such schedule, or a rank is in no stage or in two.
 */
export function makeSchedule(
  name: ScheduleName,
  pipeline: Pipeline,
  microbatches: number,
  { ahead = 0 }: ScheduleOptions = {},
): Schedule {
  if (!SCHEDULES.includes(name))
    throw new Error(`no schedule is called '${name}'; there are ${SCHEDULES.join(', ')}`);
  const stages = stageOfRanks(pipeline);
  const depths = name === 'gpipe' ? stages.map(() => microbatches) : warmUp(pipeline, ahead);
  const lag = Math.max(...depths);
  const actions = stages.map((stage, rank) => {
    const own = Array.from({ length: microbatches }, (_, k) => k).filter((k) =>
      ranksOn(pipeline, stage, k).includes(rank),
    );
    const order = name === 'zero-bubble' ? apart(own, depths[stage]!, lag) : together(own, depths[stage]!);
    return order.flatMap(([kind, microbatch]): Action[] => {
      const action: Compute = { kind, stage, microbatch };
      const { before, after } = transfersAround(pipeline, rank, action);
      return [...before, action, ...after];
    });
  });
  return { pipeline, microbatches, buffers: 1 + ahead, actions };
}

type Order = (readonly [Work, microbatch: number])[];

/**
 * Microbatches that each rank of a stage begins before its first backward pass: one more than keep the next stage busy.
 * With one rank a stage that is the number of stages from this one on.
 */
function warmUp(pipeline: Pipeline, ahead: number): number[] {
  const depths: number[] = [];
  let next = 0; // microbatches in the next stage
  for (const stage of [...pipeline.stages.keys()].reverse()) {
    const own = groupCount(pipeline, stage);
    depths[stage] = 1 + Math.ceil(next / own) + (next > 0 ? ahead : 0);
    next = depths[stage]! * own;
  }
  return depths;
}

/** Backward as one action: `depth` microbatches forward, then one back and one forward in turn. */
function together(own: readonly number[], depth: number): Order {
  const order: Order = [];
  for (let i = 0; i < own.length + depth - 1; i++) {
    if (i < own.length) order.push(['forward', own[i]!]);
    if (i >= depth - 1) order.push(['backward', own[i - depth + 1]!]);
  }
  return order;
}

/** Input gradients as 1F1B's backward passes; weight gradients follow once `lag` microbatches are in flight. */
function apart(own: readonly number[], depth: number, lag: number): Order {
  const order: Order = [];
  let finished = 0;
  for (let i = 0; i < own.length + depth - 1; i++) {
    if (i < own.length) order.push(['forward', own[i]!]);
    if (i < depth - 1) continue;
    order.push(['inputGradient', own[i - depth + 1]!]);
    if (i >= lag - 1) order.push(['weightGradient', own[finished++]!]);
  }
  while (finished < own.length) order.push(['weightGradient', own[finished++]!]);
  return order;
}
