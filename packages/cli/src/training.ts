import { type HostTensor, type nn, type TypedArray, trainStep } from '@cohesin/core';
import {
  type Checkpoint,
  type CheckpointInfo,
  type Distributed,
  distribute,
  hashState,
  hostTensors,
  type Mesh,
  openMesh,
  saveBestCheckpoint,
  saveCheckpoint,
  type Validations,
} from '@cohesin/distributed';
import type { RecordBatch, StreamPosition } from '@cohesin/io';
import { lossOf, optimizerOf } from '@cohesin/models';
import { drawAugmentation, packRecords, prepareTraining, trainingInputs } from './batch.ts';
import { validated } from './early-stopping.ts';
import { leavesOfPlan, type RunPlan } from './run-plan.ts';
import type { Task } from './task.ts';

/** A model in training on a mesh, fed from its data set. */
export interface Training {
  readonly task: Task;
  readonly plan: RunPlan;
  readonly mesh: Mesh;
  readonly step: Distributed;
  /** Batches from where the run stands, without end. */
  batches(): AsyncGenerator<RecordBatch>;
  /** One step on a batch; gives the loss. */
  train(batch: RecordBatch): Promise<number>;
  /** Writes a checkpoint; gives its folder. */
  save(out: string): Promise<string>;
  readonly validations: Validations;
  /** Counts a validation of the state as it is. If none was higher, the state is written to `out/best`; then gives true. */
  validated(value: number, out: string): Promise<boolean>;
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

/** Starts the devices, compiles the step and puts the state where the run begins or goes on. */
export async function openTraining(
  task: Task,
  plan: RunPlan,
  { resumed, weights }: Start,
): Promise<Training> {
  const mesh = await openMesh({ devices: plan.devices, shareDevices: plan.shareDevices });
  try {
    const step = await compileStep(task, plan, mesh);
    if (weights !== undefined) await step.state.write(weights);
    if (resumed !== undefined) await restore(step, resumed);
    return training(task, plan, mesh, step, resumed);
  } catch (error) {
    await mesh.close();
    throw error;
  }
}

async function compileStep(task: Task, plan: RunPlan, mesh: Mesh): Promise<Distributed> {
  const { model, train } = task.built;
  const step = trainStep({
    model,
    trained: model,
    loss: lossOf(train),
    frozen: plan.frozen,
    optimizer: optimizerOf(plan.train, plan),
    batchNorm: { group: plan.batchNorm, sequences: plan.batch / plan.leaves } satisfies nn.BatchNormGroup,
    prepare: prepareTraining(task.view),
  });
  return distribute(step, {
    mesh,
    ...leavesOfPlan(plan),
    seed: plan.seed,
    precision: plan.precision,
    ...(plan.kernelTable === undefined ? {} : { kernelTable: plan.kernelTable }),
    inputs: trainingInputs(plan.batch, task.shapes),
    ...(plan.pipeline === undefined ? {} : { pipeline: plan.pipeline }),
  });
}

/** @throws when the checkpoint was made by other kernels or another plan, or holds other tensors. */
async function restore(step: Distributed, { bitsId, state, host, dir }: Checkpoint): Promise<void> {
  if (bitsId !== step.program.bitsId) {
    throw new Error(
      `${dir}: made with other kernels or another plan (${bitsId.slice(0, 12)}, now ${step.program.bitsId.slice(0, 12)}), so the bits would differ; resume with the version of cohesin that wrote it`,
    );
  }
  const missing = step.state.names.filter((name) => !state.has(name));
  if (missing.length > 0) throw new Error(`${dir}: lacks ${missing.join(', ')}`);
  await step.state.write(state);
  step.restoreHost(host);
}

function training(
  task: Task,
  plan: RunPlan,
  mesh: Mesh,
  step: Distributed,
  resumed: Checkpoint | undefined,
): Training {
  const from = resumed?.position as StreamPosition | undefined;
  const { patience } = plan.stopping;
  let position = from;
  let validations: Validations = { ...(resumed?.validations ?? { unimproved: 0 }), patience };
  const state = (): Promise<Map<string, HostTensor>> => step.state.read();
  const info = (): CheckpointInfo => ({
    host: step.host,
    seed: plan.seed,
    bitsId: step.program.bitsId,
    plan: savedPlan(plan),
    model: { name: task.name, id: task.id, params: task.params },
    position,
    validations,
    device: mesh.info,
  });
  return {
    task,
    plan,
    mesh,
    step,
    batches: () => batches(task, plan, from),
    train: async (batch) => {
      const { loss } = await step(inputsOf(task, plan, batch, step.host.step));
      position = batch.position;
      return loss!.data[0] as number;
    },
    save: async (out) => {
      await step.state.checkEqual();
      return saveCheckpoint(out, info(), await state());
    },
    get validations() {
      return validations;
    },
    validated: async (value, out) => {
      validations = validated(validations, step.host.step, value);
      if (validations.unimproved > 0) return false;
      await step.state.checkEqual();
      await saveBestCheckpoint(out, info(), await state());
      return true;
    },
    hash: async () => hashState(new Map([...(await state()), ...hostTensors(step.host)])),
    state,
    close: () => mesh.close(),
  };
}

function batches(
  { dataset }: Task,
  { batch, seed, shuffleBuffer }: RunPlan,
  position: StreamPosition | undefined,
): AsyncGenerator<RecordBatch> {
  const shuffle = { seed, buffer: shuffleBuffer };
  return dataset.batches('train', {
    batch,
    shuffle,
    repeat: true,
    ...(position === undefined ? {} : { position }),
  });
}

function inputsOf(
  task: Task,
  { batch, seed }: RunPlan,
  { records }: RecordBatch,
  step: number,
): Record<string, TypedArray> {
  const augment = drawAugmentation(task.augment, seed, step * batch, batch);
  return { ...packRecords(records, batch, task.shapes), augment };
}

/** What decides the bits, for the checkpoint. */
function savedPlan(plan: RunPlan): CheckpointInfo['plan'] {
  const { batch, leaves, parts, batchNorm, precision, frozen, rateFactors, kernelTable } = plan;
  return { batch, leaves, parts, batchNorm, precision, frozen, rateFactors, kernelTable };
}
