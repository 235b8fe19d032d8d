/** Plans for Enformer on devices that are not here: simulated, from the work and memory of the traced step. */
import { stepWork } from '@cohesin/core';
import {
  ASSUMED_COSTS as COSTS,
  type Compared,
  comparePlans,
  devicesText,
  modelBlocks,
  type Prediction,
  sequencesText,
} from '@cohesin/distributed';
import { modelPlan } from '@cohesin/models';
import { environment, publish, table } from './report.ts';

const DEVICES = [2, 4, 8];
const BATCHES = [64, 16]; // 64 as published
/** GB of a device, and batches for it. */
const MEMORIES = [
  [24, BATCHES],
  [8, [64]],
] as const;

/** torchgpipe, ResNet-101 with recomputation, speed-ups over one device (its documentation). */
const TORCHGPIPE: Readonly<Record<number, number>> = { 2: 1.35, 4: 2.29, 8: 3.11 };

interface Row {
  readonly batch: number;
  readonly devices: number;
  readonly plan: string;
  readonly placed: string;
  readonly sequences: string;
  readonly schedule: string;
  readonly stepMs: number;
  readonly efficiency: number;
  readonly parts: Prediction['parts'];
  readonly memoryGb: number;
  readonly usedGb: number;
}

export async function plan(): Promise<void> {
  const { step, inputs, leaves } = await modelPlan('enformer');
  const traced = leaves.map((leavesPerSequence) =>
    stepWork(step({ group: 'sequence', sequences: 1 }), { inputs: inputs(1), leavesPerSequence }),
  );
  const rows: Row[] = [];
  for (const [memoryGb, batches] of MEMORIES) {
    const costs = { ...COSTS, device: { ...COSTS.device, memoryGb } };
    const blocks = traced.map((work) => modelBlocks(work, costs));
    for (const microbatches of batches)
      for (const devices of DEVICES)
        rows.push(
          ...rowsOf(comparePlans({ blocks, devices, microbatches, costs }), microbatches, devices, memoryGb),
        );
  }
  const text = [
    `**Simulated, not measured**, on assumed devices of ${COSTS.device.gigaMultiplyAdds / 500} TFLOP/s, ${COSTS.device.gigabytes} GB/s and ${COSTS.device.launchMs} ms a kernel, links of ${COSTS.link.gigabytes} GB/s and ${COSTS.link.latencyMs} ms, gradient sums of ${COSTS.sum.gigabytes} GB/s. Enformer, 196,608 bp, human head, f32, statistics of each sequence alone; kernels, bytes and memory are those of the traced step. Efficiency is the time on one device divided by devices and time. A sequence is whole or in ${leaves.slice(1).join(' or ')} leaves; leaves are not divided. Lost: meetings of devices that share sequences, gradient sums (those of whole sequences are added while the last sequence of a device goes backward, others after it), idle devices, and more work than on one device.`,
    ...MEMORIES.flatMap(([memoryGb]) =>
      BATCHES.filter((batch) => rows.some((row) => row.batch === batch && row.memoryGb === memoryGb)).map(
        (batch) =>
          section(
            batch,
            memoryGb,
            rows.filter((row) => row.batch === batch && row.memoryGb === memoryGb),
          ),
      ),
    ),
    `## Published\n\ntorchgpipe, ResNet-101, pipelines of 2, 4 and 8 devices: ${Object.entries(TORCHGPIPE)
      .map(
        ([devices, speedUp]) =>
          `${speedUp} times one device (${((100 * speedUp) / Number(devices)).toFixed(0)} %)`,
      )
      .join(', ')}. Measured there on GPUs with direct links; another model and batch.`,
  ].join('\n\n');
  const where = environment({ device: 'none', description: 'steps are simulated' });
  publish({
    name: 'plan',
    title: 'Enformer on several devices, simulated',
    environment: where,
    text,
    data: { costs: COSTS, rows },
  });
}

function rowsOf(
  { oneDeviceMs, plans, refused }: Compared,
  batch: number,
  devices: number,
  memoryGb: number,
): Row[] {
  for (const { name, reason } of refused)
    console.log(`${devices} devices, batch ${batch}, ${memoryGb} GB: ${name} refused: ${reason}`);
  return plans.map(({ plan: shown, leaves, stages, stepMs, parts }) => ({
    batch,
    devices,
    plan: shown.name,
    placed: devicesText(shown),
    sequences: sequencesText(shown, leaves),
    schedule: stages.length === 1 ? '–' : `${shown.schedule}${shown.ahead > 0 ? ', 1 ahead' : ''}`,
    stepMs,
    efficiency: oneDeviceMs / devices / stepMs,
    parts,
    memoryGb,
    usedGb: Math.max(...stages.map(({ memory }) => memory.total)) / 1e9,
  }));
}

function section(batch: number, memoryGb: number, rows: readonly Row[]): string {
  const most = Math.max(...DEVICES);
  const [best, ...others] = rows.filter(({ devices }) => devices === most); // fastest first
  const losses = lossesOf(best!).sort((a, b) => b[1] - a[1]);
  const pure = others.filter(({ plan: name }) =>
    ['data parallel', 'sequence parallel', 'pipeline'].includes(name),
  );
  const shown = pure.map(({ plan: name, efficiency }) => `${name} ${percent(efficiency)}`).join(', ');
  return [
    `## Batch ${batch}, ${memoryGb} GB a device`,
    `On ${most} devices the fastest is ${best!.plan}, ${best!.placed}: ${percent(best!.efficiency)}, bound by ${losses[0]![0]} (${percent(losses[0]![1])}); beside it ${shown}.`,
    planTable(rows),
  ].join('\n\n');
}

const percent = (share: number): string => `${Math.abs(100 * share).toFixed(0)} %`; // rounded differences may be −0

/** Parts of the devices' time that one device does not spend. */
function lossesOf({ parts, efficiency }: Row): [string, number][] {
  return [
    ['meetings', parts.meetings],
    ['gradient sums', parts.sums],
    ['idle devices', parts.idle],
    ['more work', parts.kernels + parts.update - efficiency],
  ];
}

function planTable(rows: readonly Row[]): string {
  return table(
    [
      'plan',
      'devices',
      'sequences',
      'schedule',
      'GB',
      'step s',
      'efficiency',
      'meetings',
      'sums',
      'idle',
      'more work',
    ],
    rows.map((row) => [
      row.plan,
      row.placed,
      row.sequences,
      row.schedule,
      row.usedGb.toFixed(1),
      (row.stepMs / 1000).toFixed(2),
      percent(row.efficiency),
      ...lossesOf(row).map(([, share]) => percent(share)),
    ]),
  );
}
