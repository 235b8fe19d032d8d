/** `node bits-run.js CELL`: trains a small model in one placement; prints each step, and at the end a JSON line. */
import type { DeviceInfo } from '@cohesin/core';
import {
  type CheckpointInfo,
  type DistributeOptions,
  distribute,
  hashState,
  hostTensors,
  loadCheckpoint,
  openMesh,
  saveCheckpoint,
} from '@cohesin/distributed';
import { batchOf, inputsOf, SMALL_MODELS } from './bits-models.ts';

/** Where and how a model is trained. */
export interface Layout
  extends Pick<
    DistributeOptions,
    'pipeline' | 'recompute' | 'replicas' | 'sequencesOnDevice' | 'shardOptimizer'
  > {
  readonly devices: number;
}

export interface Cell extends Layout {
  readonly model: string;
  readonly batch: number;
  /** Parts of a sequence; 1 for whole sequences, which are a leaf each. */
  readonly parts: number;
  readonly steps: number;
  /** Where the run is saved, at step `saveAt`, or goes on from. */
  readonly dir?: string;
  readonly saveAt?: number;
}

export interface Trained {
  readonly sha256: string;
  readonly bitsId: string;
  readonly loss: number;
  readonly seconds: number;
  readonly device: DeviceInfo;
}

const cell = JSON.parse(process.argv[2]!) as Cell;
console.log(JSON.stringify(await run(cell)));

async function run({ devices, batch, parts, steps, dir, saveAt, ...rest }: Cell): Promise<Trained> {
  const { model: named, ...layout } = rest;
  const model = SMALL_MODELS.find(({ name }) => name === named)!;
  const mesh = await openMesh({ devices, shareDevices: true });
  const options: DistributeOptions = {
    mesh,
    inputs: inputsOf(model, batch),
    seed: 7,
    ...(parts > 1 ? { leavesPerSequence: parts } : { leaves: batch }),
    ...layout,
  };
  const step = await distribute(model.step(), options);
  const { bitsId } = step.program;
  if (dir !== undefined && saveAt === undefined) {
    const saved = await loadCheckpoint(dir);
    if (saved.bitsId !== bitsId) throw new Error(`${dir} has bitsId ${saved.bitsId}, this step ${bitsId}`);
    await step.state.write(saved.state);
    step.restoreHost(saved.host);
  }
  const start = performance.now();
  let loss = Number.NaN;
  while (step.host.step < steps) {
    const { host } = step;
    loss = (await step(batchOf(model, batch, host.step))).loss!.data[0] as number;
    console.log(`step ${step.host.step}`);
    if (step.host.step !== saveAt) continue;
    const info: CheckpointInfo = {
      host: step.host,
      seed: 7,
      bitsId,
      plan: { batch, leaves: batch, parts, batchNorm: 'sequence', precision: 'f32' },
      model: { name: model.name, id: model.name, params: {} },
      position: {},
      validations: { unimproved: 0, patience: 1 },
      device: mesh.info,
    };
    await saveCheckpoint(dir!, info, await step.state.read());
  }
  await step.state.checkEqual();
  const seconds = (performance.now() - start) / 1000;
  const sha256 = hashState(new Map([...(await step.state.read()), ...hostTensors(step.host)]));
  await step.close();
  await mesh.close();
  return { sha256, bitsId, loss, seconds, device: mesh.info };
}
