/** What the simulator says of steps on one device and two, from what was measured of one and of a meeting. */
import { type BuildOptions, stepWork } from '@cohesin/core';
import { type Blocks, type Costs, measureCosts, modelBlocks, type Plan, predict } from '@cohesin/distributed';
import { BASENJI, basenjiStep } from './networks.ts';

/** A way to train. */
export interface Way {
  readonly devices: number;
  readonly within: Plan['within'];
  /** Where the second of two stages begins. */
  readonly split?: string;
  /** Sequences that meet at once, where they are cut into parts. */
  readonly sideBySide?: number;
  readonly microbatches: number;
}

export interface Calibration {
  readonly costs: Costs;
  /** Parts of a sequence under sequence parallelism. */
  readonly parts: number;
  /** What kernels take in a step, of what they take in a profile: of whole sequences, and of those in parts. */
  readonly factors: { readonly data: number; readonly sequence: number };
}

/** Further microbatches in flight, so that a stage need not wait for messages. */
export const AHEAD = 1;

const optionsOf = (leavesPerSequence: number): BuildOptions => ({
  inputs: {
    x: [1, BASENJI.lengthBp, 4],
    y: [1, BASENJI.rows - 2 * BASENJI.crop, BASENJI.targets],
  },
  leavesPerSequence,
});

export async function calibrate(parts: number): Promise<Calibration> {
  const costs = await measureCosts(basenjiStep(), [optionsOf(1), optionsOf(parts)], { devices: 2, runs: 9 });
  return { costs, parts, factors: { data: 1, sequence: 1 } };
}

/** With kernels that take as long as in measured steps of one device, whole and in parts. */
export function calibrated(
  calibration: Calibration,
  measuredMs: Calibration['factors'],
  microbatches: number,
): Calibration {
  const factor = (within: Plan['within']): number =>
    measuredMs[within] / foretold(calibration, { devices: 1, within, microbatches });
  return { ...calibration, factors: { data: factor('data'), sequence: factor('sequence') } };
}

/** Milliseconds of a step. */
export function foretold({ costs, parts, factors }: Calibration, way: Way): number {
  const { devices, within, split, sideBySide = 1, microbatches } = way;
  const { gigaMultiplyAdds, gigabytes, launchMs, ...device } = costs.device;
  const factor = factors[within];
  const kernels = Object.entries(costs.kernels!).map(([label, ms]) => [label, ms * factor]);
  const rates = {
    gigaMultiplyAdds: gigaMultiplyAdds / factor,
    gigabytes: gigabytes / factor,
    launchMs: launchMs * factor,
  };
  const scaled: Costs = {
    ...costs,
    device: { ...device, ...rates },
    kernels: Object.fromEntries(kernels),
  };
  const blocks = blocksOf(scaled, within === 'sequence' ? parts : 1);
  const names = blocks.blocks.map(({ name }) => name);
  const bounds = [0, ...(split === undefined ? [] : [names.indexOf(split)]), names.length];
  const plan: Plan = {
    name: within,
    stages: bounds.slice(1).map((to, i) => ({
      from: bounds[i]!,
      to,
      devices: devices / (bounds.length - 1),
    })),
    within,
    sideBySide,
    schedule: '1f1b',
    ahead: split === undefined ? 0 : AHEAD,
    microbatches,
  };
  return predict(plan, blocks, scaled).stepMs;
}

/** Where to begin the second of two stages, so that the step is shortest. */
export function bestSplit(calibration: Calibration, microbatches: number): string {
  const names = blocksOf(calibration.costs, 1).blocks.map(({ name }) => name);
  const ms = (split: string): number =>
    foretold(calibration, { devices: 2, within: 'data', split, microbatches });
  return names.slice(1).reduce((best, name) => (ms(name) < ms(best) ? name : best));
}

function blocksOf(costs: Costs, leavesPerSequence: number): Blocks {
  return modelBlocks(stepWork(basenjiStep(), optionsOf(leavesPerSequence)), costs);
}
