/** Kernels at models' shapes beside what the device can do at most, and transfers between host and device. */
import {
  type Compiled,
  compile,
  constant,
  Device,
  defineOp,
  elementCount,
  gradients,
  hostTensor,
  multiply,
  type Phase,
  parameter,
  profile,
  type Tensor,
} from '@cohesin/core';
import { det } from './cases.ts';
import { environment, median, publish, table } from './report.ts';
import { SHAPES, type ShapeCase } from './shapes.ts';

const ROUNDS = 5;
type Pass = 'forward' | 'backward';
type Timed = Readonly<Record<Pass, number[]>>;

/** Peak arithmetic in GFLOP/s and memory traffic in GB/s of the device, as our own kernels reach them. */
interface Roof {
  readonly gflops: number;
  readonly gbytes: number;
}

/** Kernels take turns, so that other load hits all alike; times are the device's own. */
export async function roofline(): Promise<void> {
  await using device = await Device.open();
  const times = SHAPES.map((): Timed => ({ forward: [], backward: [] }));
  const roofs: Roof[] = [];
  const limits = await compileRoof(device);
  const kernels: Compiled[] = [];
  for (const one of SHAPES) kernels.push(await compileCase(device, one));
  for (let round = 0; round < ROUNDS; round++) {
    roofs.push(await measureRoof(limits));
    for (const [i, { forward, backward }] of times.entries()) {
      const found = await passTimes(kernels[i]!);
      forward.push(found.forward);
      backward.push(found.backward);
    }
    console.log(`round ${round + 1} of ${ROUNDS}`);
  }
  for (const compiled of [limits, ...kernels]) {
    compiled.close();
    compiled.state.close();
  }
  const roof = { gflops: best(roofs.map((one) => one.gflops)), gbytes: best(roofs.map((one) => one.gbytes)) };
  const rows = SHAPES.flatMap((one, i) => kernelRows(one, times[i]!, roof));
  const transfers = await measureTransfers(device);
  const text = [
    `Time on the device by its own clock, ${ROUNDS} rounds in turn. The backward pass is the gradients of all operands, with all kernels they take; of a product it is counted as twice the forward work. The roof of a kernel is the least of the device's arithmetic, ${roof.gflops.toFixed(0)} GFLOP/s in fused multiply-adds on registers, and its traffic, ${roof.gbytes.toFixed(1)} GB/s in copying 64 MiB, for the bytes of operands and result (each moved once); both are the best of the same run.`,
    table(['kernel', 'pass', 'median ms', 'best', 'GFLOP/s', 'GB/s', 'of the roof'], rows),
    'Host and device, medians of 7:',
    table(['MiB', 'to the device, GB/s', 'back, GB/s'], transfers),
  ].join('\n\n');
  publish({
    name: 'roofline',
    title: 'Kernels at models’ shapes against the roof of the device',
    environment: environment(device.info),
    text,
    data: { roof, rows, transfers },
  });
}

const best = (rates: readonly number[]): number => Math.max(...rates);

function compileCase(device: Device, { name, operands, forward }: ShapeCase): Promise<Compiled> {
  const step = (): Record<string, Tensor> => {
    const y = forward(operands);
    const dy = parameter(y.shape, { name: `${name}.dy`, init: () => det(elementCount(y.shape), 9) });
    const slopes = gradients(y, dy, Object.values(operands));
    return { y, ...Object.fromEntries(slopes.map((slope, i) => [`slope${i}`, slope])) };
  };
  return compile(step, { device, inputs: {} });
}

async function passTimes(compiled: Compiled): Promise<Readonly<Record<Pass, number>>> {
  const { steps } = await profile(compiled, {}, { runs: 1 });
  const of = (...phases: Phase[]): number =>
    steps.filter(({ phase }) => phases.includes(phase as Phase)).reduce((ms, step) => ms + step.ms, 0);
  return { forward: of('F'), backward: of('I', 'W') };
}

function kernelRows({ name, flops, operands, forward }: ShapeCase, times: Timed, roof: Roof): string[][] {
  const count = (tensors: readonly Tensor[]): number =>
    tensors.reduce((sum, x) => sum + elementCount(x.shape), 0);
  const [given, made] = [count(Object.values(operands)), count([forward(operands)])];
  const work = {
    forward: { flops, bytes: 4 * (given + made) },
    backward: { flops: 2 * flops, bytes: 4 * (2 * given + made) },
  };
  return (['forward', 'backward'] as const).map((pass) => {
    const own = work[pass];
    const ms = median(times[pass]);
    const least = Math.max(own.flops / roof.gflops, own.bytes / roof.gbytes) / 1e6;
    return [
      name,
      pass,
      ms.toFixed(2),
      Math.min(...times[pass]).toFixed(2),
      flops === 0 ? '' : (own.flops / ms / 1e6).toFixed(1),
      (own.bytes / ms / 1e6).toFixed(1),
      `${((100 * least) / ms).toFixed(0)} %`,
    ];
  });
}

const LANES = 65_536;
const TURNS = 4_096;
const CHAINS = 8;

/** Fused multiply-adds on registers, independent in groups of eight: nothing but arithmetic. */
const multiplyAdds = defineOp<Record<never, never>>()({
  name: 'multiplyAdds',
  inputs: ['x'],
  infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
  kernel: {
    kind: 'shader',
    body: () => ({
      workgroupSize: 64,
      workgroups: LANES / 64,
      body: `
        let i = wg * 64u + lane;
        let x = load_x(i);
        ${each((k) => `var s${k} = x + ${k}.0;`)}
        for (var turn = 0u; turn < ${TURNS}u; turn++) { ${each((k) => `s${k} = fma(s${k}, 0.5, x);`)} }
        store(i, ${Array.from({ length: CHAINS }, (_, k) => `s${k}`).join(' + ')});`,
    }),
  },
});

function each(line: (k: number) => string): string {
  return Array.from({ length: CHAINS }, (_, k) => line(k)).join(' ');
}

const COPY_BYTES = 2 ** 26;

function compileRoof(device: Device): Promise<Compiled> {
  const x = parameter([LANES], { name: 'x', init: () => det(LANES, 1) });
  const big = parameter([COPY_BYTES / 4], { name: 'big', init: () => det(COPY_BYTES / 4, 1) });
  const step = (): Record<string, Tensor> => ({
    sums: multiplyAdds({ x }, {}),
    copy: multiply(big, constant(2)),
  });
  return compile(step, { device, inputs: {} });
}

async function measureRoof(compiled: Compiled): Promise<Roof> {
  const { steps } = await profile(compiled, {}, { runs: 1 });
  const ms = (kernel: string): number => steps.find((step) => step.kernel.includes(kernel))!.ms;
  return {
    gflops: (2 * LANES * TURNS * CHAINS) / ms('multiplyAdds') / 1e6,
    gbytes: (2 * COPY_BYTES) / ms('multiply [') / 1e6,
  };
}

/** Rows of MiB and GB/s each way. */
async function measureTransfers(device: Device): Promise<string[][]> {
  const rows: string[][] = [];
  for (const mebibytes of [1 / 16, 1, 16, 128]) {
    const bytes = mebibytes * 2 ** 20;
    const host = new Uint8Array(hostTensor([bytes / 4], det(bytes / 4, 1)).data.buffer);
    const buffer = device.createBuffer(bytes, 'transfer');
    const to: number[] = [];
    const back: number[] = [];
    for (let run = 0; run < 8; run++) {
      const start = performance.now();
      device.write(buffer, 0, host as Uint8Array<ArrayBuffer>);
      await device.queue.onSubmittedWorkDone();
      const middle = performance.now();
      await device.read([{ buffer, bytes }]);
      if (run > 0) {
        to.push(middle - start);
        back.push(performance.now() - middle);
      }
    }
    device.destroyBuffer(buffer);
    const rate = (times: readonly number[]): string => (bytes / median(times) / 1e6).toFixed(2);
    rows.push([`${mebibytes}`, rate(to), rate(back)]);
  }
  return rows;
}
