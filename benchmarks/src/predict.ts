/** What the simulator says of steps on two devices, from what was measured of one and of a meeting. */
import { type BuildOptions, stepWork } from '@cohesin/core';
import { type Blocks, type Costs, measureCosts, modelBlocks, type Plan, predict } from '@cohesin/distributed';
import { BASENJI, basenjiStep } from './networks.ts';

/** A way to train on two devices. */
export interface Way {
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
  return { costs, parts };
}

/** Milliseconds of a step on two devices. */
export function foretold({ costs, parts }: Calibration, way: Way): number {
  const { within, split, sideBySide = 1, microbatches } = way;
  const blocks = blocksOf(costs, within === 'sequence' ? parts : 1);
  const names = blocks.blocks.map(({ name }) => name);
  const bounds = [0, ...(split === undefined ? [] : [names.indexOf(split)]), names.length];
  const devices = split === undefined ? 2 : 1;
  const plan: Plan = {
    name: within,
    stages: bounds.slice(1).map((to, i) => ({ from: bounds[i]!, to, devices })),
    within,
    schedule: '1f1b',
    ahead: split === undefined ? 0 : AHEAD,
    microbatches,
  };
  const link = { ...costs.link, latencyMs: costs.link.latencyMs / sideBySide };
  return predict(plan, blocks, { ...costs, link }).stepMs;
}

/** Where to begin the second of two stages, so that the step is shortest. */
export function bestSplit(calibration: Calibration, microbatches: number): string {
  const names = blocksOf(calibration.costs, 1).blocks.map(({ name }) => name);
  const ms = (split: string): number => foretold(calibration, { within: 'data', split, microbatches });
  return names.slice(1).reduce((best, name) => (ms(name) < ms(best) ? name : best));
}

function blocksOf(costs: Costs, leavesPerSequence: number): Blocks {
  return modelBlocks(stepWork(basenjiStep(), optionsOf(leavesPerSequence)), costs);
}
