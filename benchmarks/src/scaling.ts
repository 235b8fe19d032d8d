/** What it costs that devices train together, in each way, and how near the simulator comes to it. */
import type { HostTensor } from '@cohesin/core';
import { type DistributeOptions, distribute, type Mesh, openMesh } from '@cohesin/distributed';
import { BASENJI, basenjiStep } from './networks.ts';
import {
  AHEAD,
  bestSplit,
  type Calibration,
  calibrate,
  calibrated,
  type Way as Foretold,
  foretold,
} from './predict.ts';
import { environment, median, publish, summarize, table } from './report.ts';

const BATCH = 8;
const PARTS = 2;
const SIDE_BY_SIDE = 8;
const WARM_UP = 2;
/** On a busy machine turns differ by a fifth: of so many the median is known to some hundredths. */
const STEPS = 30;
const FORETOLD_WITHIN = 0.1;

type Cut = Pick<DistributeOptions, 'leaves' | 'leavesPerSequence' | 'sequencesOnDevice' | 'pipeline'>;

/** One way to train on a batch. */
interface Arm {
  readonly name: string;
  step(): Promise<unknown>;
  readonly wallMs: number[];
  readonly cpuMs: number[];
}

/** A way on two devices, on two that know nothing of each other with half of the batch each, and on one. */
interface Way {
  readonly coupled: Arm;
  readonly uncoupled: Arm;
  readonly alone: Arm;
  readonly simulated: Foretold;
  /** Of what uncoupled devices reach. */
  readonly bar: number;
}

/** Steps of all ways take turns, so that other load on the machine hits all alike. */
export async function scaling(): Promise<void> {
  process.env.LP_NUM_THREADS = '1'; // a software device is one core
  const calibration = await calibrate(PARTS);
  const pair = await openMesh({ devices: 2 });
  const singles = [await openMesh({ devices: 1 }), await openMesh({ devices: 1 })] as const;
  const whole = (leaves: number): Cut => ({ leaves });
  const parts = (): Cut => ({ leavesPerSequence: PARTS });
  const [wholes, inParts] = [await references(singles, whole), await references(singles, parts)];
  const train = async (name: string, cut: Cut): Promise<Arm> => arm(name, await trainer(pair, BATCH, cut));
  const data = await train('data parallel', whole(BATCH));
  const sequence = await train('sequence parallel', { ...parts(), sequencesOnDevice: SIDE_BY_SIDE });
  const split = bestSplit(calibration, BATCH);
  const pipeline = { stages: ['stem', split], ahead: AHEAD };
  const stages = await train(`two stages, the second from ${split}`, { ...whole(BATCH), pipeline });
  const simulated = { devices: 2, within: 'data', microbatches: BATCH } as const;
  const inTwo = { ...simulated, within: 'sequence', sideBySide: SIDE_BY_SIDE } as const;
  const ways: readonly Way[] = [
    { coupled: data, ...wholes, simulated, bar: 0.95 },
    { coupled: sequence, ...inParts, simulated: inTwo, bar: 0.9 },
    { coupled: stages, ...wholes, simulated: { ...simulated, split }, bar: 0.8 },
  ];
  await takeTurns(ways.flatMap(({ coupled, uncoupled, alone }) => [coupled, uncoupled, alone]));
  report(ways, calibration, pair);
  for (const mesh of [pair, ...singles]) await mesh.close();
}

function arm(name: string, step: () => Promise<unknown>): Arm {
  return { name, step, wallMs: [], cpuMs: [] };
}

async function references(
  meshes: readonly [Mesh, Mesh],
  cut: (leaves: number) => Cut,
): Promise<Pick<Way, 'uncoupled' | 'alone'>> {
  const alone = await trainer(meshes[0], BATCH, cut(BATCH));
  const halves: (() => Promise<unknown>)[] = [];
  for (const mesh of meshes) halves.push(await trainer(mesh, BATCH / 2, cut(BATCH / 2)));
  const uncoupled = arm('two devices, uncoupled', () => Promise.all(halves.map((step) => step())));
  return { uncoupled, alone: arm('one device', alone) };
}

async function trainer(mesh: Mesh, batch: number, cut: Cut): Promise<() => Promise<unknown>> {
  const { lengthBp, rows, crop, targets } = BASENJI;
  const outputs = rows - 2 * crop;
  const inputs = { x: [batch, lengthBp, 4], y: [batch, outputs, targets] };
  const options: DistributeOptions = { mesh, inputs, ...cut };
  const step = await distribute(basenjiStep(), options);
  const x = new Float32Array(batch * lengthBp * 4);
  for (let row = 0; row < batch * lengthBp; row++) x[row * 4 + (Math.imul(row, 2654435761) >>> 30)] = 1;
  const y = Float32Array.from({ length: batch * outputs * targets }, (_, i) => ((i * 31) % 7) * 0.3);
  return async () => {
    const { loss } = (await step({ x, y })) as { loss: HostTensor };
    if (!Number.isFinite(loss.data[0])) throw new Error('the loss is not finite');
  };
}

async function takeTurns(all: readonly Arm[]): Promise<void> {
  const arms = [...new Set(all)];
  for (let turn = 0; turn < WARM_UP + STEPS; turn++)
    for (const one of turn % 2 === 0 ? arms : [...arms].reverse()) await measure(one, turn >= WARM_UP);
}

async function measure({ step, wallMs, cpuMs }: Arm, keep: boolean): Promise<void> {
  const [start, before] = [performance.now(), process.cpuUsage()];
  await step();
  const { user, system } = process.cpuUsage(before);
  if (!keep) return;
  wallMs.push(performance.now() - start);
  cpuMs.push((user + system) / 1000);
}

/** Throughput as a fraction of the other's, turn by turn; and that of the fastest steps, which other load hit least. */
function fractions({ wallMs }: Arm, of: Arm): { quartiles: [number, number, number]; fastest: number } {
  const turns = of.wallMs.map((ms, i) => ms / wallMs[i]!);
  const middle = median(turns);
  const quartile = (side: (value: number) => boolean): number => median(turns.filter(side));
  const quartiles: [number, number, number] = [
    quartile((value) => value <= middle),
    middle,
    quartile((value) => value >= middle),
  ];
  return { quartiles, fastest: Math.min(...of.wallMs) / Math.min(...wallMs) };
}

function report(ways: readonly Way[], profiled: Calibration, mesh: Mesh): void {
  const [whole, inParts] = (['data', 'sequence'] as const).map((within) =>
    median(ways.find(({ simulated }) => simulated.within === within)!.alone.wallMs),
  );
  const calibration = calibrated(profiled, { data: whole!, sequence: inParts! }, BATCH);
  const both = (way: Foretold): { profiledMs: number; simulatedMs: number } => ({
    profiledMs: foretold(profiled, way),
    simulatedMs: foretold(calibration, way),
  });
  const arms = [...new Set(ways.flatMap(({ coupled, uncoupled, alone }) => [coupled, uncoupled, alone]))];
  const rows = arms.map(({ name, wallMs, cpuMs }) => {
    const { medianMs, bestMs, p90Ms } = summarize(wallMs);
    const times = [medianMs, bestMs, p90Ms, median(cpuMs)].map((ms) => ms.toFixed(0));
    return [name, ...times, ((1000 * BATCH) / medianMs).toFixed(2)];
  });
  const results = ways.map(({ coupled, uncoupled, alone, simulated, bar }) => {
    const measuredMs = median(coupled.wallMs);
    const work = median(coupled.cpuMs) / median(alone.cpuMs);
    const { quartiles, fastest } = fractions(coupled, uncoupled);
    const half = { devices: 1, within: simulated.within, microbatches: BATCH / 2 };
    const simulatedOfUncoupled = foretold(calibration, half) / foretold(calibration, simulated);
    return {
      name: coupled.name,
      ofUncoupled: quartiles[1],
      quartiles,
      fastest,
      simulatedOfUncoupled,
      bar,
      work,
      measuredMs,
      ...both(simulated),
    };
  });
  const summary = results.map(({ name, quartiles, fastest, simulatedOfUncoupled, bar, work }) => [
    name,
    quartiles[1].toFixed(3),
    `${quartiles[0].toFixed(2)} to ${quartiles[2].toFixed(2)}`,
    fastest.toFixed(3),
    simulatedOfUncoupled.toFixed(3),
    `${bar}`,
    work.toFixed(3),
  ]);
  const host = (['data', 'sequence'] as const).flatMap((within) => {
    const { alone, uncoupled } = ways.find(({ simulated }) => simulated.within === within)!;
    const one = { devices: 1, within, microbatches: BATCH };
    const [name, half] = [within === 'data' ? 'whole' : 'in parts', { ...one, microbatches: BATCH / 2 }];
    return [
      { name: `one device, ${name}`, measuredMs: median(alone.wallMs), ...both(one) },
      { name: `two uncoupled devices, ${name}`, measuredMs: median(uncoupled.wallMs), ...both(half) },
    ];
  });
  const simulations = [...host, ...results].map(({ name, measuredMs, profiledMs, simulatedMs }) => [
    name,
    measuredMs.toFixed(0),
    ...[profiledMs, simulatedMs].map(
      (ms) => `${ms.toFixed(0)} (${(100 * (ms / measuredMs - 1)).toFixed(1)} %)`,
    ),
  ]);
  const { latencyMs, gigabytes } = profiled.costs.link;
  const head = ['', 'wall ms a step, median', 'best', 'p90', 'CPU ms', 'sequences/s'];
  const text = [
    `A small Basenji (${BASENJI.lengthBp} bp, batch ${BATCH}) on software devices of one core each; all take turns, ${STEPS} steps each. Uncoupled devices train on half a batch each and exchange nothing: what coupled ones can reach. Sequence parallel, and what it is compared with, cuts each sequence into ${PARTS} parts and takes ${SIDE_BY_SIDE} sequences side by side.`,
    table(
      ['', 'of uncoupled', 'quartiles', 'fastest steps', 'simulated', 'bar', 'CPU time of one device'],
      summary,
    ),
    `Fractions are medians of ${STEPS} turns, and that of the fastest step of each. A pipeline of two stages and ${BATCH} microbatches fills and drains: at best ${(BATCH / (BATCH + 1)).toFixed(2)}.`,
    table(head, rows),
    '## The simulator',
    `It has the time of each kernel from a profile of one sequence on one device before these steps; the latency of a meeting (${latencyMs.toFixed(2)} ms) and the rate of a link (${gigabytes.toFixed(2)} GB/s) from small steps on one device and two. In the last column kernels keep their shares of the profile, but all take as long as in the measured steps of one device: times ${calibration.factors.data.toFixed(3)} whole, ${calibration.factors.sequence.toFixed(3)} in parts. It is to be within ${100 * FORETOLD_WITHIN} % there. Uncoupled devices exchange nothing: their error is what two devices at work slow each other down.`,
    table(
      ['', 'measured ms a step', 'simulated from the profile (error)', 'from one device (error)'],
      simulations,
    ),
  ].join('\n\n');
  publish({
    name: 'scaling',
    title: 'Two devices against one',
    environment: environment(mesh.info),
    text,
    data: {
      batch: BATCH,
      factors: calibration.factors,
      results,
      arms: arms.map(({ name, wallMs, cpuMs }) => ({ name, wallMs, cpuMs })),
    },
  });
}
