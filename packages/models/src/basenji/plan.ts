import { builtPlan, inStages, type ModelPlan } from '../builder/plan.ts';
import { basenji2 } from './model.ts';

/** The tower takes most of the time, the first convolution over all of the sequence and three more of them half. */
const towerTo = (last: number): string[] => [
  'trunk.0',
  ...Array.from({ length: last + 1 }, (_, i) => `trunk.1.${i}`),
];

/** Basenji2 with the human tracks, as published. */
export function basenji2Plan(): ModelPlan {
  const rest = ['trunk', 'head'];
  return builtPlan(basenji2(), {
    title: 'Basenji2',
    leaves: [1, 8],
    placements: {
      1: inStages([rest, 1]),
      2: inStages([towerTo(1), 1], [rest, 1]),
      3: inStages([towerTo(0), 1], [rest, 2]),
      4: inStages([towerTo(4), 3], [rest, 1]),
      6: inStages([towerTo(3), 4], [['trunk.1', ...[0, 1, 2, 3].map((i) => `trunk.2.${i}`)], 1], [rest, 1]),
      8: inStages([towerTo(4), 6], [rest, 2]),
    },
  });
}
