import { builtPlan, type ModelPlan } from '../builder/plan.ts';
import { basenji2 } from './model.ts';

/** Basenji2 with the human tracks, as published. */
export function basenji2Plan(): ModelPlan {
  return builtPlan(basenji2(), { title: 'Basenji2', leaves: [1, 8], placements: {} });
}
