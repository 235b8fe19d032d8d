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
const PHASES = ['F', 'I', 'W'] as const satisfies readonly Phase[];
type Timed = Partial<Record<(typeof PHASES)[number], number[]>>;

/** Peak arithmetic in GFLOP/s and memory traffic in GB/s of the device, as our own kernels reach them. */
interface Roof {
  readonly gflops: number;
  readonly gbytes: number;
}

/** Kernels take turns, so that other load hits all alike; times are the device's own. */
export async function roofline(): Promise<void> {
  await using device = await Device.open();
  const times = new Map<string, Timed>();
  const roofs: Roof[] = [];
  const limits = await compileRoof(device);
  const kernels: Compiled[] = [];
  for (const one of SHAPES) kernels.push(await compileCase(device, one));
  for (let round = 0; round < ROUNDS; round++) {
    roofs.push(await measureRoof(limits));
    for (const [i, { name }] of SHAPES.entries()) addTimes(times, name, await phaseTimes(kernels[i]!));
    console.log(`round ${round + 1} of ${ROUNDS}`);
  }
  for (const compiled of [limits, ...kernels]) {
    compiled.close();
    compiled.state.close();
  }
  const roof = { gflops: best(roofs.map((one) => one.gflops)), gbytes: best(roofs.map((one) => one.gbytes)) };
  const rows = SHAPES.flatMap((one) => kernelRows(one, times.get(one.name)!, roof));
  const transfers = await measureTransfers(device);
  const text = [
    `Time on the device by its own clock, ${ROUNDS} rounds in turn. F is the forward pass, I the gradient of what comes in, W that of weights, with all kernels they take. The roof of a kernel is the least of the device's arithmetic, ${roof.gflops.toFixed(0)} GFLOP/s in fused multiply-adds on registers, and its traffic, ${roof.gbytes.toFixed(1)} GB/s in copying 64 MiB, for the bytes of operands and result (each moved once); both are the best of the same run.`,
    table(['kernel', 'phase', 'median ms', 'best', 'GFLOP/s', 'GB/s', 'of the roof'], rows),
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

async function phaseTimes(compiled: Compiled): Promise<Record<(typeof PHASES)[number], number>> {
  const { steps } = await profile(compiled, {}, { runs: 1 });
  const of = (phase: Phase): number =>
    steps.filter((step) => step.phase === phase).reduce((ms, step) => ms + step.ms, 0);
  return { F: of('F'), I: of('I'), W: of('W') };
}

function addTimes(
  times: Map<string, Timed>,
  name: string,
  found: Record<(typeof PHASES)[number], number>,
): void {
  const own = times.get(name) ?? {};
  for (const phase of PHASES) if (found[phase] > 0) own[phase] = [...(own[phase] ?? []), found[phase]];
  times.set(name, own);
}

function kernelRows({ name, flops, operands, forward }: ShapeCase, times: Timed, roof: Roof): string[][] {
  const bytes =
    4 * [...Object.values(operands), forward(operands)].reduce((sum, x) => sum + elementCount(x.shape), 0);
  return PHASES.filter((phase) => times[phase] !== undefined).map((phase) => {
    const ms = median(times[phase]!);
    const least = Math.max(flops / roof.gflops, bytes / roof.gbytes) / 1e6;
    return [
      name,
      phase,
      ms.toFixed(2),
      Math.min(...times[phase]!).toFixed(2),
      flops === 0 ? '' : (flops / ms / 1e6).toFixed(1),
      (bytes / ms / 1e6).toFixed(1),
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
