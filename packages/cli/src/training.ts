import { createHash } from 'node:crypto';
import {
  afterValidation,
  globPattern,
  type HostTensor,
  nn,
  RATE_FACTOR,
  type TypedArray,
} from '@cohesin/core';
import {
  type Checkpoint,
  type CheckpointInfo,
  type Distributed,
  type DistributedState,
  distribute,
  type HostState,
  hashState,
  hostTensors,
  type Inspected,
  type Inspection,
  type Level,
  type Mesh,
  openMesh,
  saveBestCheckpoint,
  saveCheckpoint,
  type Validations,
} from '@cohesin/distributed';
import type { SequenceRecord } from '@cohesin/io';
import { optimizerOf } from '@cohesin/models';
import { genomeAt } from './alternation.ts';
import { drawAugmentation, drawJitter, packRecords, trainingInputs } from './batch.ts';
import { validated } from './early-stopping.ts';
import { leavesOfPlan, type RunPlan } from './run-plan.ts';
import { type SourcePosition, sourceBatches } from './source.ts';
import type { Study } from './study.ts';
import type { Task } from './task.ts';

/** A batch of one genome. */
export interface TrainingBatch {
  readonly task: Task;
  readonly records: readonly SequenceRecord[];
  /** Where the data of all genomes go on after it. */
  readonly positions: Positions;
}

/** By the genome's place among the tasks. */
type Positions = readonly (SourcePosition | undefined)[];

/** A model in training on a mesh, fed from its data sets. */
export interface Training {
  readonly study: Study;
  readonly plan: RunPlan;
  readonly mesh: Mesh;
  /** `L2` if any step of the run so far, or the next, is on devices that differ. */
  readonly level: Level;
  readonly host: HostState;
  /** Hash of all that decides the bits of its steps. */
  readonly bitsId: string;
  /** Parameters, running statistics and moments, shared by the steps of all genomes. */
  readonly weights: DistributedState;
  /** What the first genome's step takes, in words. */
  memory(): string;
  /** Batches from where the run stands, without end. */
  batches(): AsyncGenerator<TrainingBatch>;
  /** One step on a batch; gives the loss. */
  train(batch: TrainingBatch): Promise<number>;
  /** One step on a batch, kernel by kernel; gives what each rank wrote. */
  inspect(batch: TrainingBatch, inspection?: Inspection): Promise<Inspected['written']>;
  /** Puts back what `state` and `host` were. */
  restore(state: ReadonlyMap<string, HostTensor>, host: HostState): Promise<void>;
  /** Writes a checkpoint; gives its folder. */
  save(out: string): Promise<string>;
  readonly validations: Validations;
  /** What validation has multiplied the learning rate by so far. */
  readonly rateFactor: number;
  /**
   * Counts a validation of the state as it is, which may lower the learning rate. If none was better, the state is written
   * to `out/best`; then gives true.
   */
  validated(value: number, better: 'higher' | 'lower', out: string): Promise<boolean>;
  /** SHA-256 over parameters, running statistics, moments and counters, in name order. */
  hash(): Promise<string>;
  state(): Promise<Map<string, HostTensor>>;
  close(): Promise<void>;
}

/** Where a run begins: with drawn weights unless told otherwise. */
export interface Start {
  /** The checkpoint it goes on from. */
  readonly resumed?: Checkpoint | undefined;
  /** Weights of some or all layers, by dotted path; drawn ones elsewhere. */
  readonly weights?: ReadonlyMap<string, HostTensor> | undefined;
}

/** Starts the devices, compiles the step of each genome and puts the state where the run begins or goes on. */
export async function openTraining(
  study: Study,
  plan: RunPlan,
  { resumed, weights }: Start,
): Promise<Training> {
  const mesh = await openMesh({ devices: plan.devices, shareDevices: plan.shareDevices });
  try {
    const steps = await compileSteps(study, plan, mesh);
    const bitsId = bitsIdOf([...steps.values()]);
    const [first] = steps.values();
    if (weights !== undefined) await first!.state.write(weights);
    if (resumed !== undefined) await restore(first!.state, bitsId, resumed);
    return training({ study, plan, mesh, steps, bitsId }, resumed);
  } catch (error) {
    await mesh.close();
    throw error;
  }
}

type Steps = ReadonlyMap<Task, Distributed>;

/**
 * A step for each genome on one state. Parameters that a step does not know, the heads of other genomes, keep their values
 * and moments; counters, which Adam's corrections come of, count the steps of all. So do Sonnet's and Keras' optimizers.
 */
async function compileSteps({ tasks }: Study, plan: RunPlan, mesh: Mesh): Promise<Steps> {
  const batchNorm: nn.BatchNormGroup = { group: plan.batchNorm, sequences: plan.batch / plan.leaves };
  const steps = new Map<Task, Distributed>();
  let state: DistributedState | undefined;
  for (const task of tasks) {
    const has = (pattern: string): boolean =>
      [...nn.parameters(task.model).keys()].some((name) => globPattern(pattern).test(name));
    const rateFactors = Object.fromEntries(
      Object.entries(plan.rateFactors).filter(([pattern]) => has(pattern)),
    );
    const optimizer = optimizerOf(plan.train, {
      rateFactors,
      genomes: tasks.length,
      stepsPerEpoch: plan.stepsPerEpoch,
    });
    const frozen = plan.frozen.filter(has);
    const step = await distribute(task.trainStep({ optimizer, frozen, batchNorm }), {
      mesh,
      ...leavesOfPlan(plan),
      seed: plan.seed,
      precision: plan.precision,
      ...(plan.kernelTable && { kernelTable: plan.kernelTable }),
      inputs: trainingInputs(plan.batch, task),
      ...(plan.replicas !== undefined && { replicas: plan.replicas }),
      ...(plan.pipeline && { pipeline: plan.pipeline }),
      ...(plan.recompute && { recompute: plan.recompute }),
      ...(plan.sideBySide !== undefined && { sequencesOnDevice: plan.sideBySide }),
      shardOptimizer: plan.shardOptimizer,
      ...(state && { state }),
    });
    state = step.state;
    steps.set(task, step);
  }
  return steps;
}

/** What decides the bits of all steps together. */
function bitsIdOf(steps: readonly Distributed[]): string {
  const ids = steps.map(({ program }) => program.bitsId);
  return ids.length === 1 ? ids[0]! : createHash('sha256').update(ids.join('\n')).digest('hex');
}

/** @throws when the checkpoint was made by other kernels or another plan, or holds other tensors. */
async function restore(
  weights: DistributedState,
  expected: string,
  { bitsId, state, dir }: Checkpoint,
): Promise<void> {
  if (bitsId !== expected) {
    throw new Error(
      `${dir}: made with other kernels or another plan (${bitsId.slice(0, 12)}, now ${expected.slice(0, 12)}), so the bits would differ; resume with the version of cohesin that wrote it`,
    );
  }
  const missing = weights.names.filter((name) => !state.has(name));
  if (missing.length > 0) throw new Error(`${dir}: lacks ${missing.join(', ')}`);
  await weights.write(state);
}

type RunStep<T> = (step: Distributed, inputs: Record<string, TypedArray>) => Promise<T>;

interface Opened {
  readonly study: Study;
  readonly plan: RunPlan;
  readonly mesh: Mesh;
  readonly steps: Steps;
  readonly bitsId: string;
}

function training(opened: Opened, resumed: Checkpoint | undefined): Training {
  const { study, plan, mesh, steps, bitsId } = opened;
  const [{ state: weights, program }] = [...steps.values()] as [Distributed];
  const from = (resumed?.position ?? study.tasks.map(() => undefined)) as Positions;
  const { patience } = plan.stopping;
  const level = resumed?.level === 'L2' ? 'L2' : mesh.level; // such steps stay in the weights
  let positions = from;
  let host = resumed?.host ?? freshHost([...steps.values()]);
  let validations: Validations = { ...(resumed?.validations ?? { unimproved: 0 }), patience };
  const state = (): Promise<Map<string, HostTensor>> => weights.read();
  const advance = async <T>(batch: TrainingBatch, run: RunStep<T>): Promise<T> => {
    const step = steps.get(batch.task)!;
    step.restoreHost(host);
    const result = await run(step, inputsOf(batch, plan, host.step));
    host = { ...step.host, q: { ...host.q, ...step.host.q } }; // scales of the other genomes' heads too
    positions = batch.positions;
    return result;
  };
  const info = (): CheckpointInfo => ({
    host,
    seed: plan.seed,
    bitsId,
    plan: savedPlan(plan),
    model: {
      name: study.name,
      id: study.id,
      params: study.params,
      ...(study.heads && { heads: study.heads }),
    },
    position: positions,
    validations,
    device: mesh.info,
    level,
    ...(mesh.level === 'L2' && { devices: mesh.infos }),
  });
  return {
    study,
    plan,
    mesh,
    level,
    weights,
    bitsId,
    get host() {
      return host;
    },
    memory: () => program.memory(),
    batches: () => batches(study, plan, host.step, from),
    train: async (batch) => {
      const { loss } = await advance(batch, (step, inputs) => step(inputs));
      return loss!.data[0] as number;
    },
    inspect: async (batch, inspection) => {
      const { written } = await advance(batch, (step, inputs) => step.inspect(inputs, inspection));
      return written;
    },
    restore: async (values, saved) => {
      await weights.write(values);
      host = saved;
    },
    save: async (out) => {
      await weights.checkEqual();
      return saveCheckpoint(out, info(), await state());
    },
    get validations() {
      return validations;
    },
    get rateFactor() {
      return host.counters[RATE_FACTOR] ?? 1;
    },
    validated: async (value, better, out) => {
      validations = validated(validations, host.step, value, better);
      const { plateau } = plan.train;
      if (plateau !== undefined)
        host = { ...host, counters: afterValidation(host.counters, value, better, plateau) };
      if (validations.unimproved > 0) return false;
      await weights.checkEqual();
      await saveBestCheckpoint(out, info(), await state());
      return true;
    },
    hash: async () => hashState(new Map([...(await state()), ...hostTensors(host)])),
    state,
    close: () => mesh.close(),
  };
}

function freshHost(steps: readonly Distributed[]): HostState {
  return { ...steps[0]!.host, q: Object.assign({}, ...steps.map(({ host }) => host.q)) };
}

async function* batches(
  { tasks }: Study,
  plan: RunPlan,
  from: number,
  start: Positions,
): AsyncGenerator<TrainingBatch> {
  const { batch, seed, shuffleBuffer, batchesPerEpoch, train } = plan;
  const alternation = { batchesPerEpoch, seed, alternation: train.alternation };
  const shuffle = { seed, buffer: shuffleBuffer };
  const positions = [...start];
  const streams = tasks.map((task, i) => sourceBatches(task, { batch, shuffle, position: positions[i] }));
  try {
    for (let step = from; ; step++) {
      const i = genomeAt(step, alternation);
      const { value } = await streams[i]!.next();
      const { records, position } = value!;
      positions[i] = position;
      yield { task: tasks[i]!, records, positions: [...positions] };
    }
  } finally {
    for (const stream of streams) await stream.return(undefined); // ends threads that decode
  }
}

function inputsOf(
  { task, records }: TrainingBatch,
  { batch, seed }: RunPlan,
  step: number,
): Record<string, TypedArray> {
  const { inputs, targets, augment, sequenceLengthBp } = task;
  const first = step * batch;
  const jitter = (record: number, most: number): number =>
    drawJitter(Math.min(augment.jitterBp, most), seed, first + record);
  return {
    ...packRecords(records, batch, { ...inputs, ...targets }, sequenceLengthBp, jitter),
    augment: drawAugmentation(augment, seed, first, batch),
  };
}

/** What decides the bits, for the checkpoint. */
function savedPlan(plan: RunPlan): CheckpointInfo['plan'] {
  const { batch, leaves, parts, batchNorm, precision, frozen, rateFactors, kernelTable } = plan;
  return { batch, leaves, parts, batchNorm, precision, frozen, rateFactors, kernelTable };
}
