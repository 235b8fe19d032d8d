/** `node full-step-run.js MODEL DEVICES PARTS`: one training step at full size; its result is the last line, as JSON. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type DeviceInfo, elementCount, type InputSpec, programBytes, rounds } from '@cohesin/core';
import { distribute, hashState, openMesh } from '@cohesin/distributed';
import { SUBJECTS } from './published.ts';

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
  /** How much the process grew over what it took with kernels compiled and nothing run. */
  readonly grownBytes: number;
  readonly windows: number;
  readonly device: DeviceInfo;
}

const [name, deviceCount, parts] = process.argv.slice(2);
const subject = SUBJECTS.find((one) => one.name.toLowerCase() === name)!;
const devices = Number(deviceCount);
console.log(JSON.stringify(await run()));

async function run(): Promise<FullStep> {
  const { step, inputs } = subject;
  const values = Object.fromEntries(
    Object.entries(inputs).map(([input, spec]) => [input, input === 'x' ? bases(spec) : targets(spec)]),
  );
  const mesh = await openMesh({ devices, shareDevices: true, deadlineMs: 12 * 3_600_000 });
  const leaves = Number(parts) > 1 ? { leavesPerSequence: Number(parts) } : {};
  const trained = await distribute(step, { mesh, inputs, seed: 1, ...leaves });
  console.error(trained.program.memory());
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
  const grownBytes = peak - before;
  peak = Number.NEGATIVE_INFINITY;
  const { program, state } = trained;
  const each = Math.ceil(rounds(program).leaves / devices);
  const onDevice = Object.values(programBytes(program, each)).reduce((sum, bytes) => sum + bytes, 0);
  const result = {
    seconds,
    cpuSeconds: (user + system) / 1e6,
    loss: loss!.data[0] as number,
    sha256: hashState(await state.read()),
    bitsId: program.bitsId,
    plannedBytes: devices * onDevice + trained.hostBytes,
    grownBytes,
    windows: program.segments
      .flatMap(({ once, leaf }) => [...once, ...leaf])
      .filter(({ window }) => window !== undefined).length,
    device: mesh.info,
  };
  await trained.close();
  await mesh.close();
  return result;
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
