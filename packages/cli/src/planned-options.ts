/** The options of a run that is planned: what the plan says, and the command line may only repeat. */
import { deviceCount, type StagesOptions } from '@cohesin/distributed';
import { UsageError } from './command-line.ts';
import type { NamedPlan } from './plan-file.ts';
import type { RunOptions } from './run-options.ts';

/** @throws UsageError when an option contradicts the plan, with both sides. */
export function plannedOptions(given: RunOptions, plan: NamedPlan, devicesGiven: boolean): RunOptions {
  const { path, logical, placement } = plan;
  const { stages } = placement;
  const agree = <T>(name: string, own: T | undefined, planned: T): T => {
    if (own === undefined || String(own) === String(planned)) return planned;
    throw new UsageError(
      `--${name} is ${own} but ${path} says ${planned}; leave --${name} out, or change the plan`,
    );
  };
  const pipeline = pipelineOf(plan);
  const { pipeline: stated } = given;
  if (stated !== undefined && pipeline === undefined)
    throw new UsageError(
      `--stages is ${stated.stages} but ${path} has all layers in one stage; leave --stages out, or change the plan`,
    );
  agree('stages', stated?.stages, pipeline?.stages);
  agree('stage-devices', stated?.devices, pipeline?.devices);
  agree('schedule', stated?.schedule, pipeline?.schedule);
  const devices = stages.reduce((total, stage) => total + stage.devices, 0);
  agree('devices', devicesGiven ? deviceCount(given.devices) : undefined, devices);
  return {
    ...given,
    plan,
    devices: devicesGiven ? given.devices : devices,
    pipeline,
    replicas:
      given.replicas === undefined
        ? placement.replicas
        : agree('replicas', given.replicas, placement.replicas),
    sideBySide:
      given.sideBySide === undefined
        ? placement.sideBySide
        : agree('side-by-side', given.sideBySide, placement.sideBySide),
    shardOptimizer: agree(
      'shard-optimizer',
      given.shardOptimizer || undefined,
      placement.shardOptimizer ?? false,
    ),
    batch: agree('batch', given.batch, logical.batch),
    parts: agree('parts', given.parts, logical.parts),
    batchNorm: agree('batch-norm', given.batchNorm, logical.batchNorm),
    precision: agree('precision', given.precision, logical.precision),
    recompute: placement.recompute,
  };
}

function pipelineOf({ placement }: NamedPlan): StagesOptions | undefined {
  const { stages, schedule, ahead } = placement;
  if (stages.length === 1) return undefined;
  return {
    stages: stages.map(({ layers }) => layers.join('|')),
    devices: stages.map(({ devices }) => devices),
    schedule,
    ahead,
  };
}
