import type { Tensor } from '../tensor.ts';
import type { Fused } from './fuse.ts';
import type { Sharded } from './layout.ts';
import { touched } from './lives.ts';
import { type Lowered, lowerInPlace } from './lower.ts';
import type { Stages, Work } from './split.ts';
import { type Stored, stored } from './stored.ts';

/**
 * Writes new weights and moments over the old ones. Only in the update, which begins when it is decided that the step
 * commits: so all state still changes or none does. A parameter qualifies when its kernel computes it element by element
 * and no later kernel reads the old value; others, such as statistics assigned before the decision, have a second buffer.
 */
export function updateInPlace(
  stages: Stages,
  { graph }: Sharded,
  fused: Fused,
  scalars: readonly string[],
): Stages {
  const { update } = stages;
  if (update === undefined) return stages;
  const order = stages.stages.flatMap(({ once, leaf }) => [...once, ...leaf]);
  const inUpdate = new Set(stages.stages.slice(update).flatMap(({ once }) => once));
  const outputs = Object.values(graph.outputs).map(stored);
  const values = graph.assignments.map(({ value }) => stored(value));
  const overwritten = new Map<Stored, Tensor>();
  const kernels = new Map<Work, Lowered>();
  for (const { parameter, value } of graph.assignments) {
    const at = order.findIndex((work) => touched(work)[1] === value);
    const group = fused.groups.find(({ root }) => root === value);
    if (group === undefined || !inUpdate.has(order[at]!)) continue;
    if (outputs.includes(parameter) || outputs.includes(value) || values.includes(parameter)) continue;
    if (values.indexOf(value) !== values.lastIndexOf(value)) continue;
    if (order.slice(at + 1).some((work) => touched(work)[0].includes(parameter))) continue;
    const kernel = lowerInPlace(group, fused, scalars, parameter);
    if (kernel === undefined) continue;
    kernels.set(order[at]!, kernel);
    overwritten.set(value, parameter);
  }
  const current = (work: Work): Work => {
    if (work.kind !== 'kernel') return work;
    const kernel = kernels.get(work) ?? work.kernel;
    return { kind: 'kernel', kernel: { ...kernel, reads: kernel.reads.map((x) => overwritten.get(x) ?? x) } };
  };
  return {
    ...stages,
    stages: stages.stages.map((stage) => ({
      ...stage,
      once: stage.once.map(current),
      leaf: stage.leaf.map(current),
    })),
  };
}
