/** How well the simulator foretells steps of two devices, calibrated on one device and on an exchange. */
import { adam, type BuildOptions, nn, stepWork, type Traceable, trainStep } from '@cohesin/core';
import {
  type Costs,
  distribute,
  type Mesh,
  modelBlocks,
  openMesh,
  type Plan,
  predict,
} from '@cohesin/distributed';
import { BASENJI, basenjiStep } from './networks.ts';
import { environment, median, publish, table } from './report.ts';

const BATCH = 4;
const PARTS = 2;
const WARM_UP = 2;
const STEPS = 8;
const BAR = 0.1;

/** Ratio of the two rates, of this repository's kernels on the software driver; only their common scale is fitted. */
const RATES = { gigaMultiplyAdds: 9.6, gigabytes: 2.7 }; // kernels.md: conv_fwd 19.3 GFLOP/s, layernorm 2.7 GB/s
const LINK_GIGABYTES = 4.4; // GPU to GPU through shared memory, 16 MB

interface Network {
  readonly step: Traceable;
  readonly inputs: (sequences: number) => BuildOptions['inputs'];
}

const NETWORK: Network = {
  step: basenjiStep(),
  inputs: (sequences) => ({
    x: [sequences, BASENJI.lengthBp, 4],
    y: [sequences, BASENJI.rows - 2 * BASENJI.crop, BASENJI.targets],
  }),
};

/** Nine small convolutions after norms: little to compute, much to meet for. */
const CHAIN: Network = {
  step: trainStep({
    model: nn.sequential(
      Array.from({ length: 9 }, (_, i) =>
        nn.sequential({
          conv: nn.conv1d({ inputs: i === 0 ? 4 : 8, outputs: 8, size: 5 }),
          norm: nn.batchNorm({ channels: 8 }),
        }),
      ),
    ),
    loss: nn.mseLoss,
    optimizer: adam({ learningRate: 1e-3 }),
  }),
  inputs: (sequences) => ({ x: [sequences, 4096, 4], y: [sequences, 4096, 8] }),
};

interface Arm {
  readonly name: string;
  readonly run: () => Promise<unknown>;
  readonly wallMs: number[];
}

/** Runs take turns, so that other load hits all alike. */
export async function prediction(): Promise<void> {
  process.env.LP_NUM_THREADS = '1'; // a software device is one core
  const [one, two] = [await openMesh({ devices: 1 }), await openMesh({ devices: 2 })];
  const whole = { leaves: BATCH };
  const parts = { leavesPerSequence: PARTS };
  const arms = {
    one: await arm('one device', one, NETWORK, BATCH, whole),
    data: await arm('data parallel', two, NETWORK, BATCH, whole),
    oneParts: await arm('one device, parts', one, NETWORK, BATCH, parts),
    sequence: await arm('sequence parallel', two, NETWORK, BATCH, parts),
    chainOne: await arm('chain, one device', one, CHAIN, 1, parts),
    chainTwo: await arm('chain, two devices', two, CHAIN, 1, parts),
  };
  const all = Object.values(arms);
  for (let step = 0; step < WARM_UP + STEPS; step++)
    for (const { run, wallMs } of step % 2 === 0 ? all : [...all].reverse()) {
      const start = performance.now();
      await run();
      if (step >= WARM_UP) wallMs.push(performance.now() - start);
    }
  const measured = Object.fromEntries(
    Object.entries(arms).map(([name, { wallMs }]) => [name, median(wallMs)]),
  );
  report(measured as Record<keyof typeof arms, number>, two);
  for (const mesh of [one, two]) await mesh.close();
}

async function arm(
  name: string,
  mesh: Mesh,
  { step, inputs }: Network,
  batch: number,
  cut: Partial<BuildOptions>,
): Promise<Arm> {
  const shapes = inputs(batch) as Record<'x' | 'y', readonly number[]>;
  const run = await distribute(step, { mesh, inputs: shapes, ...cut });
  const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
  const x = new Float32Array(size(shapes.x));
  for (let row = 0; row < x.length / 4; row++) x[row * 4 + (Math.imul(row, 2654435761) >>> 30)] = 1;
  const y = Float32Array.from({ length: size(shapes.y) }, (_, i) => ((i * 31) % 7) * 0.3);
  return { name, run: () => run({ x, y }), wallMs: [] };
}

function report(measured: Readonly<Record<string, number>>, mesh: Mesh): void {
  const costs = calibrated(measured);
  const rows = [
    ['one device', measured.one!, foretold(NETWORK, costs, 1, 'data')],
    ['data parallel, two devices', measured.data!, foretold(NETWORK, costs, 2, 'data')],
    [`one device, ${PARTS} parts a sequence`, measured.oneParts!, foretold(NETWORK, costs, 1, 'sequence')],
    [
      `sequence parallel, two devices, ${PARTS} parts`,
      measured.sequence!,
      foretold(NETWORK, costs, 2, 'sequence'),
    ],
  ] as const;
  const error = (real: number, ms: number): number => ms / real - 1;
  const worst = Math.max(...rows.slice(1).map(([, real, ms]) => Math.abs(error(real, ms))));
  const text = [
    `A small Basenji (${BASENJI.lengthBp} bp, batch ${BATCH}) on software devices of one core each; all runs take turns, ${STEPS} steps each, medians. Rates of kernels are scaled so that the step of one device is right; the latency of a meeting (${costs.link.latencyMs.toFixed(2)} ms) is that of a chain of nine small convolutions on one and on two devices.`,
    table(
      ['', 'measured ms', 'simulated ms', 'error'],
      rows.map(([name, real, ms]) => [
        name,
        real.toFixed(0),
        ms.toFixed(0),
        `${(100 * error(real, ms)).toFixed(1)} %`,
      ]),
    ),
    `Largest error ${(100 * worst).toFixed(1)} % (bar ${100 * BAR} %).`,
  ].join('\n\n');
  publish({
    name: 'prediction',
    title: 'Simulated steps against measured ones',
    environment: environment(mesh.info),
    text,
    data: { measured, costs, rows },
  });
}

/** Rates from the step of one device, latency from the chain. */
function calibrated(measured: Readonly<Record<string, number>>): Costs {
  const costs: Costs = {
    name: 'software devices',
    device: { ...RATES, launchMs: 1e-6, memoryGb: 1000 },
    link: { latencyMs: 1e-6, gigabytes: LINK_GIGABYTES, overlap: false },
    sum: { gigabytes: LINK_GIGABYTES },
  };
  const scale = foretold(NETWORK, costs, 1, 'data') / measured.one!;
  const device = {
    ...costs.device,
    gigaMultiplyAdds: RATES.gigaMultiplyAdds * scale,
    gigabytes: RATES.gigabytes * scale,
  };
  const { gathers } = stepWork(CHAIN.step, { inputs: CHAIN.inputs(1), leavesPerSequence: PARTS });
  const meetings = new Set(gathers.map(({ segment }) => segment)).size + 2; // and two of the gradient sum
  const latencyMs = Math.max(1e-6, (measured.chainTwo! - measured.chainOne! / 2) / meetings);
  return { ...costs, device, link: { ...costs.link, latencyMs } };
}

/** A step as the simulator has it. */
function foretold({ step, inputs }: Network, costs: Costs, devices: number, within: Plan['within']): number {
  const cut = within === 'data' ? {} : { leavesPerSequence: PARTS };
  const blocks = modelBlocks(stepWork(step, { inputs: inputs(1), ...cut }), costs);
  const stages = [{ from: 0, to: blocks.blocks.length, devices }];
  const plan: Plan = { name: within, stages, within, schedule: '1f1b', ahead: 0, microbatches: BATCH };
  return predict(plan, blocks, costs).stepMs;
}
