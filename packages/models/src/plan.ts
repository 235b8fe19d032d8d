import { akitaPlan } from './akita/plan.ts';
import { basenji2Plan } from './basenji/plan.ts';
import { borzoiPlan } from './borzoi/plan.ts';
import { builtPlan, type ModelPlan } from './builder/plan.ts';
import { enformerPlan } from './enformer/plan.ts';
import { namedModel } from './model.ts';

const PLANS: Readonly<Record<string, () => ModelPlan>> = {
  enformer: enformerPlan,
  akita: akitaPlan,
  basenji2: basenji2Plan,
  borzoi: borzoiPlan,
};

/** The plan of a published model, or of any that `namedModel` builds. @throws as it does. */
export async function modelPlan(nameOrPath: string): Promise<ModelPlan> {
  const known = Object.hasOwn(PLANS, nameOrPath) ? PLANS[nameOrPath] : undefined;
  if (known !== undefined) return known();
  return builtPlan(await namedModel(nameOrPath), { title: nameOrPath, leaves: [1, 8], placements: {} });
}
