/**
 * A plan as a file, in two parts: `logical` decides the bits of a run, `placement` where it runs. `cohesin plan --out` writes
 * one for devices that need not be there, `cohesin train` one of each run beside its checkpoints; `train --plan` trains on it.
 */
import { readFile } from 'node:fs/promises';
import { type DeviceInfo, explain, type Precision, replacePath, writeSynced } from '@cohesin/core';
import { type Level, SCHEDULES, type ScheduleName } from '@cohesin/distributed';
import { type Fields, fields } from '@cohesin/models';
import { parseJson } from './json-file.ts';
import { usage } from './task.ts';

/** A plan, and the file it was read from. */
export interface NamedPlan extends PlanFile {
  readonly path: string;
}

export interface PlanFile {
  readonly logical: LogicalPlan;
  readonly placement: Placement;
  /** What the devices of a run said of themselves; unknown of a plan for devices that were not there. */
  readonly device?: DeviceInfo | undefined;
  /** Of each, where they differ. */
  readonly devices?: readonly DeviceInfo[] | undefined;
  /** `L2` where they do: the weights are then those of one device within tolerance, not in every bit. */
  readonly level?: Level | undefined;
}

/** What decides the bits: equal in two files, on equal devices and drivers, the weights are equal too. */
export interface LogicalPlan {
  /** As it was called, and the hash of what defines it. */
  readonly model: { readonly name: string; readonly id: string };
  /** Sequences of a step. */
  readonly batch: number;
  /** Groups of whole sequences that the batch is cut into; one for each sequence where these are cut into parts. */
  readonly leaves: number;
  /** Parts of each sequence. */
  readonly parts: number;
  readonly batchNorm: 'sequence' | 'step';
  readonly precision: Precision;
  /** Hash of the kernel table; of the shipped one where undefined. */
  readonly kernelTable?: string | undefined;
  /** Hash of the kernel texts and of all that is above; known once devices were opened. */
  readonly bitsId?: string | undefined;
}

/** Where a run takes place: changes its speed and memory, never a bit. */
export interface Placement {
  /** One that has all layers, or a pipeline. */
  readonly stages: readonly StagePlacement[];
  /**
   * For sequences in parts: groups of the devices, or of those of each stage, that have sequences of their own; by default
   * as few as give every device a part.
   */
  readonly replicas?: number | undefined;
  /** Sequences in parts that a device takes through the model at once; 1 where undefined. */
  readonly sideBySide?: number | undefined;
  readonly schedule: ScheduleName;
  /** Further leaves that a stage begins before it first goes backward. */
  readonly ahead: number;
  /** Each device has the moments of some parameters of its stage only. */
  readonly shardOptimizer?: boolean | undefined;
  /** Layers that are computed again in the backward pass. */
  readonly recompute?: readonly string[] | undefined;
}

export interface StagePlacement {
  /** Layer paths; `*` for all. */
  readonly layers: readonly string[];
  readonly devices: number;
}

const FORMAT = 'cohesin plan 1';

/** @throws UsageError when the file cannot be read, has a field that is unknown, or lacks one. */
export function readPlanFile(path: string): Promise<NamedPlan> {
  return usage(async () => {
    const text = await readFile(path, 'utf8').catch((cause: unknown) => {
      throw explain(path, cause);
    });
    return { ...planOf(parseJson(text, path), path), path };
  });
}

export function writePlanFile(path: string, { logical, placement, ...run }: PlanFile): Promise<void> {
  const { kernelTable = null, bitsId = null } = logical; // said, so that a reader of the file knows of them
  const file = { format: FORMAT, logical: { ...logical, kernelTable, bitsId }, placement, ...run };
  const text = JSON.stringify(file, undefined, 2);
  return replacePath(path, (aside) => writeSynced(aside, [new TextEncoder().encode(`${text}\n`)]));
}

function planOf(value: unknown, path: string): PlanFile {
  const file = fields(value, path);
  const format = file.value('format');
  if (format !== FORMAT)
    throw new Error(
      `${path}: the format is ${JSON.stringify(format) ?? 'not stated'} but this version reads '${FORMAT}'; give a file that cohesin plan --out or cohesin train wrote`,
    );
  const logical = logicalOf(fields(file.value('logical'), `${path}: logical`));
  const placement = placementOf(fields(file.value('placement'), `${path}: placement`));
  const device = file.value('device') as DeviceInfo | undefined;
  const devices = file.value('devices') as DeviceInfo[] | undefined;
  const level = file.has('level') ? file.choice('level', ['L0', 'L2']) : undefined;
  file.finish();
  return { logical, placement, device, devices, level };
}

function logicalOf(logical: Fields): LogicalPlan {
  const model = fields(logical.value('model'), `${logical.where}.model`);
  const plan = {
    model: { name: model.text('name'), id: model.text('id') },
    batch: logical.integer('batch'),
    leaves: logical.integer('leaves'),
    parts: logical.integer('parts'),
    batchNorm: logical.choice('batchNorm', ['sequence', 'step']),
    precision: logical.choice('precision', ['f32', 'mixed']),
    kernelTable: optionalText(logical, 'kernelTable'),
    bitsId: optionalText(logical, 'bitsId'),
  };
  model.finish();
  logical.finish();
  const { batch, leaves, parts } = plan;
  if (parts > 1 && leaves !== batch)
    throw new Error(
      `${logical.where}: ${leaves} leaves but a batch of ${batch} in ${parts} parts each; sequences in parts are a leaf each: make both equal`,
    );
  if (batch % leaves !== 0)
    throw new Error(
      `${logical.where}: a batch of ${batch} does not divide into ${leaves} leaves; change one of them`,
    );
  return plan;
}

function placementOf(placement: Fields): Placement {
  const plan = {
    stages: placement
      .objects('stages')
      .map((stage, i) => stageOf(fields(stage, `${placement.where}.stages[${i}]`))),
    replicas: placement.has('replicas') ? placement.integer('replicas') : undefined,
    sideBySide: placement.has('sideBySide') ? placement.integer('sideBySide') : undefined,
    schedule: placement.choice('schedule', SCHEDULES, '1f1b'),
    ahead: placement.has('ahead') ? whole(placement, 'ahead') : 0,
    shardOptimizer: placement.has('shardOptimizer') ? placement.flag('shardOptimizer', false) : undefined,
    recompute: placement.has('recompute') ? texts(placement, 'recompute') : undefined,
  };
  placement.finish();
  if (plan.stages.length === 0)
    throw new Error(`${placement.where}.stages: there is none; one has all layers`);
  if (plan.sideBySide !== undefined && plan.stages.length > 1)
    throw new Error(
      `${placement.where}.sideBySide is for a plan of one stage; several take sequences one after another`,
    );
  return plan;
}

function stageOf(stage: Fields): StagePlacement {
  const plan = { layers: texts(stage, 'layers'), devices: stage.integer('devices') };
  stage.finish();
  return plan;
}

const optionalText = (of: Fields, name: string): string | undefined =>
  of.has(name) ? of.text(name) : undefined;

function whole(of: Fields, name: string): number {
  const value = of.number(name);
  if (Number.isInteger(value) && value >= 0) return value;
  throw new Error(`${of.where}.${name}: expected a whole number ≥ 0, found ${value}`);
}

function texts(of: Fields, name: string): string[] {
  const value = of.value(name);
  if (Array.isArray(value) && value.length > 0 && value.every((text) => typeof text === 'string'))
    return value;
  throw new Error(
    `${of.where}.${name}: expected a list of texts, found ${JSON.stringify(value) ?? 'nothing'}`,
  );
}

/** Fields in which two logical plans differ, with both values. */
export function logicalDifferences(a: LogicalPlan, b: LogicalPlan): string[] {
  const { model, ...rest } = a;
  const { model: other, ...others } = b;
  const known = (one: LogicalPlan): boolean => one.bitsId !== undefined;
  const names = Object.keys({ ...rest, ...others }) as (keyof typeof rest)[];
  return [
    ...(model.id === other.id
      ? []
      : [`model: ${model.name} (${model.id.slice(0, 12)}) and ${other.name} (${other.id.slice(0, 12)})`]),
    ...names
      .filter((name) => rest[name] !== others[name] && (name !== 'bitsId' || (known(a) && known(b))))
      .map((name) => `${name}: ${rest[name] ?? 'the shipped one'} and ${others[name] ?? 'the shipped one'}`),
  ];
}
