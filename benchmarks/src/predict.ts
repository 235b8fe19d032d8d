/** What the simulator says of steps on two devices, from what was measured of one and of a meeting. */
import { type BuildOptions, stepWork } from '@cohesin/core';
import { type Blocks, type Costs, measureCosts, modelBlocks, type Plan, predict } from '@cohesin/distributed';
import { BASENJI, basenjiStep } from './networks.ts';

/** Where the second of two stages begins. */
export const SPLIT = 'tower';

export interface Calibration {
  readonly costs: Costs;
  /** Parts of a sequence under sequence parallelism. */
  readonly parts: number;
}

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
export function foretold(
  { costs, parts }: Calibration,
  { within, stages, microbatches }: { within: Plan['within']; stages: number; microbatches: number },
): number {
  const options = optionsOf(within === 'sequence' ? parts : 1);
  const blocks = modelBlocks(stepWork(basenjiStep(), options), costs);
  const bounds = [0, ...(stages === 1 ? [] : [splitOf(blocks)]), blocks.blocks.length];
  const plan: Plan = {
    name: within,
    stages: bounds.slice(1).map((to, i) => ({ from: bounds[i]!, to, devices: 2 / stages })),
    within,
    schedule: '1f1b',
    ahead: 0,
    microbatches,
  };
  return predict(plan, blocks, costs).stepMs;
}

function splitOf({ blocks }: Blocks): number {
  return blocks.findIndex(({ name }) => name === SPLIT || name.startsWith(`${SPLIT}.`));
}
