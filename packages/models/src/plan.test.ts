import { stepWork } from '@cohesin/core';
import { ASSUMED_COSTS as COSTS, modelBlocks, planOf, predict } from '@cohesin/distributed';
import { expect, test } from 'vitest';
import { modelPlan } from './plan.ts';

test.each(['enformer', 'akita', 'basenji2', 'borzoi'])(
  'each placement of %s has all layers, fits and gains from its devices',
  async (name) => {
    const { step, inputs, placements } = await modelPlan(name);
    const work = stepWork(step({ group: 'sequence', sequences: 1 }), { inputs: inputs(1) });
    const blocks = modelBlocks(work, COSTS);
    expect(Object.keys(placements)).toEqual(['1', '2', '3', '4', '6', '8']);
    const times = Object.entries(placements).map(([devices, placement]) => {
      const plan = planOf(placement, blocks, 48, `on ${devices}`);
      expect(plan.stages.reduce((sum, stage) => sum + stage.devices, 0)).toBe(Number(devices));
      return predict(plan, blocks, COSTS).stepMs;
    });
    expect(times).toEqual([...times].sort((a, b) => b - a));
  },
);
