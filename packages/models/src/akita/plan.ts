import { builtPlan, inStages, type ModelPlan } from '../builder/plan.ts';
import { akita } from './model.ts';

/** Half of the time goes into the convolutions over all of the sequence, a fourth of it and an eighth. */
const LONG = ['trunk.0', 'trunk.1.0', 'trunk.1.1'];

/** Akita as published, whose leaves are rows of the sequence, then of the map. */
export function akitaPlan(): ModelPlan {
  const rest = ['trunk', 'head'];
  return builtPlan(akita(), {
    title: 'Akita',
    leaves: [1, 16],
    placements: {
      1: inStages([rest, 1]),
      2: inStages([LONG, 1], [rest, 1]),
      3: inStages([['trunk'], 2], [['head'], 1]),
      4: inStages([LONG, 2], [rest, 2]),
      6: inStages([LONG, 3], [rest, 3]),
      8: inStages([['trunk.0', 'trunk.1.0'], 3], [[1, 2, 3, 4].map((i) => `trunk.1.${i}`), 2], [rest, 3]),
    },
  });
}
