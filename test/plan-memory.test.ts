/** What `plan` says of memory, beside programs that are built for the same placement: full-size models, shapes alone. */
import { type BuildOptions, build, stepWork, totalBytes } from '@cohesin/core';
import { ASSUMED_COSTS, modelBlocks, type Plan, predict } from '@cohesin/distributed';
import { modelPlan } from '@cohesin/models';
import { describe, expect, test } from 'vitest';

const COSTS = { ...ASSUMED_COSTS, device: { ...ASSUMED_COSTS.device, memoryGb: 1000 } };
const BATCH = 8;

describe.each([
  ['akita', 16],
  ['enformer', 8],
] as const)('memory of a device that trains %s', async (name, parts) => {
  const model = await modelPlan(name);
  const step = model.step({ group: 'sequence', sequences: 1 });
  const inputs = (batch: number): Pick<BuildOptions, 'inputs' | 'target'> => {
    return { inputs: model.inputs(batch), target: { kind: 'gpu' } };
  };
  const cuts = [1, parts].map((leavesPerSequence) =>
    modelBlocks(stepWork(step, { ...inputs(1), leavesPerSequence }), COSTS),
  );
  const plannedBytes = (devices: number, plan: Pick<Plan, 'within' | 'sideBySide'>): number => {
    const cut = cuts.find(({ leaves }) => leaves === (plan.within === 'sequence' ? parts : 1))!;
    const stages = [{ from: 0, to: cut.blocks.length, devices }];
    const rest = { name: 'one stage', schedule: '1f1b', ahead: 0, microbatches: BATCH } as const;
    return predict({ ...rest, ...plan, stages }, cut, COSTS).stages[0]!.memory.total;
  };

  test.each([
    [2, 1],
    [2, 2],
    [8, 1],
    [8, 4],
  ])('of %i, which share sequences, %i at once, is planned within 10 %', (devices, sideBySide) => {
    const leavesOnDevice = parts / devices;
    const placement = { leavesOnDevice, sequencesOnDevice: sideBySide };
    const { program } = build(step, { ...inputs(BATCH), leavesPerSequence: parts, ...placement });
    const built = totalBytes(program, leavesOnDevice * sideBySide, sideBySide);
    const ratio = plannedBytes(devices, { within: 'sequence', sideBySide }) / built;
    expect(Math.abs(ratio - 1)).toBeLessThan(0.1);
  });

  test('for whole sequences is planned within 10 %', () => {
    const { program } = build(step, { ...inputs(BATCH), leaves: BATCH, leavesOnDevice: 1 });
    const ratio = plannedBytes(1, { within: 'data' }) / totalBytes(program, 1);
    expect(Math.abs(ratio - 1)).toBeLessThan(0.1);
  });
});
