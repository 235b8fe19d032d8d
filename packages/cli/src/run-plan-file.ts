/** A run and a plan file: whether they fit, and the file of a run. */
import { type DeviceInfo, kernelTableHash, nn } from '@cohesin/core';
import { deviceCount, type Mesh, pipelineOf } from '@cohesin/distributed';
import { UsageError } from './command-line.ts';
import type { NamedPlan, Placement, PlanFile } from './plan-file.ts';
import type { Output } from './progress.ts';
import type { RunPlan } from './run-plan.ts';
import type { Study } from './study.ts';
import type { Training } from './training.ts';

/** @throws UsageError when the plan is for another model, or its one stage leaves out layers. */
export function checkModel({ name, id, weights }: Study, { path, logical, placement }: NamedPlan): void {
  const { model } = logical;
  if (model.id !== id)
    throw new UsageError(
      `${path} is a plan for ${model.name} (${model.id.slice(0, 12)}) but --model is ${name} (${id.slice(0, 12)}); give the same model, or plan anew`,
    );
  const [{ layers }, ...others] = placement.stages as [Placement['stages'][number]];
  if (others.length > 0) return;
  const left = [...nn.parameters(weights.model).keys()].find(
    (parameter) => !layers.some((layer) => layer === '*' || parameter.startsWith(`${layer}.`)),
  );
  if (left !== undefined)
    throw new UsageError(
      `${path}: the only stage has ${layers.join(', ')}, not ${left}; it must have all layers, or another stage the rest`,
    );
}

/**
 * Says when devices are others than the plan was written on.
 *
 * @throws UsageError when the kernels or the step are others than the plan's.
 */
export function checkBits(training: Training, plan: NamedPlan, output: Output): void {
  const { bitsId, mesh } = training;
  const { path, logical } = plan;
  const differing = differences(plan, mesh);
  if (logical.bitsId !== undefined && logical.bitsId !== bitsId)
    throw new UsageError(
      `${path}: the plan has the bitsId ${logical.bitsId.slice(0, 12)} but this run ${bitsId.slice(0, 12)}: its kernels or its step are others (${differing.length > 0 ? differing.join('; ') : 'on the same device: other frozen layers, rates, data shapes, or another version of cohesin'}). Make them equal, or take bitsId out of the plan`,
    );
  if (differing.length > 0)
    output.say(
      `${path} was written on another device (${differing.join('; ')}): the kernels are the same, the bits may differ`,
    );
}

function differences({ device, devices = [] }: PlanFile, { infos }: Mesh): string[] {
  const found = infos.flatMap((here, rank) => {
    const planned = devices[rank] ?? device;
    if (planned === undefined) return [];
    return (Object.keys(here) as (keyof DeviceInfo)[])
      .map((field) => [field, JSON.stringify(planned[field]), JSON.stringify(here[field])] as const)
      .filter(([, a, b]) => a !== b)
      .map(([field, a, b]) => `${field}: planned ${a}, here ${b}`);
  });
  return [...new Set(found)];
}

/** What a run trains on. */
export function planFileOf({ study, plan, bitsId, mesh, level }: Training): PlanFile {
  const { batch, leaves, parts, batchNorm, precision, kernelTable } = plan;
  return {
    logical: {
      model: { name: study.name, id: study.id },
      batch,
      leaves,
      parts,
      batchNorm,
      precision,
      kernelTable: kernelTable && kernelTableHash(kernelTable),
      bitsId,
    },
    placement: placementOf(plan, mesh),
    device: mesh.info,
    ...(mesh.level === 'L2' && { devices: mesh.infos }),
    level,
  };
}

function placementOf(plan: RunPlan, { level }: Mesh): Placement {
  const { pipeline, devices, replicas, sideBySide, recompute, batch, parts, leaves } = plan;
  const sharded = plan.shardOptimizer || (level === 'L2' && pipeline === undefined); // as `distribute` does
  const shardOptimizer = sharded || undefined;
  const count = deviceCount(devices);
  const { schedule = '1f1b', ahead = 0 } = pipeline ?? {};
  const cut = { leaves: parts > 1 ? batch * parts : leaves, leavesPerSequence: parts };
  const ranks = pipeline && pipelineOf(pipeline, count, cut, replicas).stages;
  const stages = pipeline?.stages.map((layers, stage) => ({
    layers: layers.split('|'),
    devices: ranks![stage]!.length,
  })) ?? [{ layers: ['*'], devices: count }];
  return { stages, replicas, sideBySide, schedule, ahead, shardOptimizer, recompute };
}
