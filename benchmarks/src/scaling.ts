/** What it costs that devices train together: a batch on two coupled devices, on two that ignore each other, on one. */
import { loadavg } from 'node:os';
import type { HostTensor } from '@cohesin/core';
import { type Distributed, distribute, type Mesh, openMesh } from '@cohesin/distributed';
import { BASENJI, basenjiStep } from './networks.ts';
import { environment, median, publish, summarize, table } from './report.ts';

const BATCH = 8;
const WARM_UP = 2;
const STEPS = 12;
const BAR = 0.92;

/** One way to train on a batch. */
interface Arm {
  readonly name: string;
  step(): Promise<void>;
  readonly wallMs: number[];
  readonly cpuMs: number[];
}

/** Steps of the three ways take turns, so that other load on the machine hits all alike. */
export async function scaling(): Promise<void> {
  process.env.LP_NUM_THREADS = '1'; // a software device is one core
  const pair = await openMesh({ devices: 2 });
  const left = await openMesh({ devices: 1 });
  const right = await openMesh({ devices: 1 });
  const single = await openMesh({ devices: 1 });
  const coupled = await trainer(pair, BATCH);
  const halves = [await trainer(left, BATCH / 2), await trainer(right, BATCH / 2)];
  const alone = await trainer(single, BATCH);
  const arms = [
    arm('two devices, coupled', coupled),
    arm('two devices, uncoupled', async () => void (await Promise.all(halves.map((step) => step())))),
    arm('one device', alone),
  ];
  for (let step = 0; step < WARM_UP + STEPS; step++) {
    for (const one of step % 2 === 0 ? arms : [...arms].reverse()) await measure(one, step >= WARM_UP);
  }
  report(arms, pair);
  for (const mesh of [pair, left, right, single]) await mesh.close();
}

function arm(name: string, step: () => Promise<void>): Arm {
  return { name, step, wallMs: [], cpuMs: [] };
}

async function trainer(mesh: Mesh, batch: number): Promise<() => Promise<void>> {
  const { lengthBp, rows, crop, targets } = BASENJI;
  const outputs = rows - 2 * crop;
  const step: Distributed = await distribute(basenjiStep(), {
    mesh,
    leaves: batch,
    inputs: { x: [batch, lengthBp, 4], y: [batch, outputs, targets] },
  });
  const x = new Float32Array(batch * lengthBp * 4);
  for (let row = 0; row < batch * lengthBp; row++) x[row * 4 + (Math.imul(row, 2654435761) >>> 30)] = 1;
  const y = Float32Array.from({ length: batch * outputs * targets }, (_, i) => ((i * 31) % 7) * 0.3);
  return async () => {
    const { loss } = (await step({ x, y })) as { loss: HostTensor };
    if (!Number.isFinite(loss.data[0])) throw new Error('the loss is not finite');
  };
}

async function measure({ step, wallMs, cpuMs }: Arm, keep: boolean): Promise<void> {
  const [start, before] = [performance.now(), process.cpuUsage()];
  await step();
  const { user, system } = process.cpuUsage(before);
  if (!keep) return;
  wallMs.push(performance.now() - start);
  cpuMs.push((user + system) / 1000);
}

function report(arms: readonly Arm[], mesh: Mesh): void {
  const [coupled, uncoupled, alone] = arms as [Arm, Arm, Arm];
  const ratios = coupled.wallMs.map((ms, i) => uncoupled.wallMs[i]! / ms);
  const wall = median(uncoupled.wallMs) / median(coupled.wallMs);
  const best = Math.min(...uncoupled.wallMs) / Math.min(...coupled.wallMs);
  const cpu = median(uncoupled.cpuMs) / median(coupled.cpuMs);
  const over = median(alone.wallMs) / median(coupled.wallMs);
  const rows = arms.map(({ name, wallMs, cpuMs }) => {
    const { medianMs, bestMs, p90Ms } = summarize(wallMs);
    const times = [medianMs, bestMs, p90Ms, median(cpuMs)].map((ms) => ms.toFixed(0));
    return [name, ...times, ((1000 * BATCH) / medianMs).toFixed(2)];
  });
  const head = ['', 'wall ms a step, median', 'best', 'p90', 'CPU ms', 'sequences/s'];
  const text = [
    `A small Basenji (${BASENJI.lengthBp} bp, batch ${BATCH}) on software devices of one core each; steps of the three take turns, ${STEPS} each. Uncoupled devices train on half a batch each and exchange nothing: what coupled ones can reach.`,
    table(head, rows),
    `Coupled devices reach ${wall.toFixed(3)} of the uncoupled throughput (medians; ${median(ratios).toFixed(3)} turn by turn, ${best.toFixed(3)} by best steps, ${cpu.toFixed(3)} by CPU time; bar ${BAR}) and ${over.toFixed(2)} times one device.`,
  ].join('\n\n');
  const data = {
    batch: BATCH,
    wall,
    best,
    cpu,
    over,
    arms: arms.map(({ name, wallMs, cpuMs }) => ({ name, wallMs, cpuMs })),
  };
  publish({
    name: 'scaling',
    title: 'Two devices against one',
    environment: environment(mesh.info),
    text,
    data,
  });
  if (wall < BAR) console.log(`below the bar of ${BAR} at load ${loadavg()[0]!.toFixed(1)}`);
}
