/**
 * `node full-step-run.js MODEL DEVICES PARTS [sharded]`: one training step at full size; its result is the last line, as
 * JSON. `FULL_STEP_BP=24576` shortens Enformer, and narrows it, to see that all of it runs.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type DeviceInfo, elementCount, type InputSpec } from '@cohesin/core';

import { distribute, hashRanks, openMesh } from '@cohesin/distributed';
import type { EnformerOptions } from '@cohesin/models';
import { enformerBothHeads, SUBJECTS } from './published.ts';

/** What one process measured. */
export interface FullStep {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** As stored, so that runs can be compared in every bit. */
  readonly loss: number;
  /** Of weights, moments and statistics after the step. */
  readonly sha256: string;
  readonly bitsId: string;
  /** Bytes on all devices, and of the host for inputs, outputs and exchanges: planned before anything is allocated. */
  readonly plannedBytes: number;
  readonly deviceBytes: readonly number[];
  /** How much the process grew over what it took with kernels compiled and nothing written but the state, which counts. */
  readonly grownBytes: number;
  /** The most it took. */
  readonly residentBytes: number;
  readonly windows: number;
  readonly device: DeviceInfo;
}

const [name, deviceCount, parts, sharded] = process.argv.slice(2);
const subject =
  name === 'enformer'
    ? enformerBothHeads(shortened())
    : SUBJECTS.find((one) => one.name.toLowerCase() === name)!;
const devices = Number(deviceCount);
console.log(JSON.stringify(await run()));

async function run(): Promise<FullStep> {
  const { step, inputs } = subject;
  const values = Object.fromEntries(
    Object.entries(inputs).map(([input, spec]) => [input, input === 'x' ? bases(spec) : targets(spec)]),
  );
  const mesh = await openMesh({ devices, shareDevices: true, deadlineMs: 12 * 3_600_000 });
  const leaves = Number(parts) > 1 ? { leavesPerSequence: Number(parts) } : {};
  const shardOptimizer = sharded === 'sharded';
  const trained = await distribute(step, { mesh, inputs, seed: 1, shardOptimizer, ...leaves });
  const { program, state } = trained;
  console.error(program.memory());
  const before = process.memoryUsage.rss();
  let peak = 0;
  const watch = async (): Promise<void> => {
    while (peak >= 0) {
      peak = Math.max(peak, process.memoryUsage.rss());
      await sleep(100);
    }
  };
  void watch();
  const [start, cpu] = [performance.now(), process.cpuUsage()];
  const { loss } = await trained(values);
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const [residentBytes, grownBytes] = [peak, peak - before + state.bytes];
  peak = Number.NEGATIVE_INFINITY;
  const result = {
    seconds,
    cpuSeconds: (user + system) / 1e6,
    loss: loss!.data[0] as number,
    sha256: await hashRanks(state),
    bitsId: program.bitsId,
    plannedBytes: trained.deviceBytes.reduce((sum, bytes) => sum + bytes, trained.hostBytes),
    deviceBytes: trained.deviceBytes,
    grownBytes,
    residentBytes,
    windows: program.segments
      .flatMap(({ once, leaf }) => [...once, ...leaf])
      .filter(({ window }) => window !== undefined).length,
    device: mesh.info,
  };
  await trained.close();
  await mesh.close();
  return result;
}

/** Enformer as published, or what `FULL_STEP_BP` leaves of it. */
function shortened(): EnformerOptions {
  const lengthBp = Number(process.env.FULL_STEP_BP ?? 196_608);
  if (lengthBp === 196_608) return {};
  const bins = lengthBp / 128;
  const targetBins = bins - 2 * Math.round((bins * 320) / 1_536);
  return {
    lengthBp,
    targetBins,
    channels: 384,
    keySize: 16,
    transformerBlocks: 2,
    tracks: { human: 531, mouse: 164 },
  };
}

/** One-hot bases, seeded by position. */
function bases(spec: InputSpec): Float32Array {
  const x = new Float32Array(elementCount(shapeOf(spec)));
  for (let row = 0; row < x.length / 4; row++)
    x[row * 4 + (Math.imul(row ^ (row >> 3), 2_654_435_761) >>> 30)] = 1;
  return x;
}

function targets(spec: InputSpec): Float32Array {
  return Float32Array.from({ length: elementCount(shapeOf(spec)) }, (_, i) => ((i * 31) % 17) * 0.1);
}

function shapeOf(spec: InputSpec): readonly number[] {
  return 'shape' in spec ? spec.shape : spec;
}
