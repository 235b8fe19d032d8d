import { builtPlan, inStages, type ModelPlan } from '../builder/plan.ts';
import { borzoi } from './model.ts';

/** Half of the work: all convolutions over long rows. */
const LONG = ['trunk.0', 'trunk.1', 'trunk.2.0'];

/** Borzoi as published, with the human head. */
export function borzoiPlan(): ModelPlan {
  const rest = ['trunk', 'head'];
  return builtPlan(borzoi(), {
    title: 'Borzoi',
    leaves: [1, 8, 32],
    placements: {
      1: inStages([rest, 1]),
      2: inStages([LONG, 1], [rest, 1]),
      3: inStages(
        [['trunk.0', ...[0, 1, 2].map((i) => `trunk.1.${i}`)], 1],
        [['trunk.1', ...[0, 1, 2, 3, 4].map((i) => `trunk.2.${i}`)], 1],
        [rest, 1],
      ),
      4: inStages([LONG, 2], [rest, 2]),
      6: inStages([LONG, 3], [rest, 3]),
      8: inStages([LONG, 4], [rest, 4]),
    },
  });
}
