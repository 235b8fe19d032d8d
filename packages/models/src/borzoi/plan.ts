import { builtPlan, type ModelPlan } from '../builder/plan.ts';
import { borzoi } from './model.ts';

export function borzoiPlan(): ModelPlan {
  return builtPlan(borzoi(), { title: 'Borzoi', leaves: [1, 8, 16, 32], placements: {} });
}
