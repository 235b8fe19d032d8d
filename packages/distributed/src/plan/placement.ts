/** A plan as it is written to a file: layers by name, so that it fits any model that has them. */
import { SCHEDULES, type ScheduleName } from '../schedule/generate.ts';
import type { Blocks } from './blocks.ts';
import type { Plan } from './predict.ts';

export interface Placement {
  /** Leaves of a sequence, which decide bits; 1 for whole sequences. */
  readonly leavesPerSequence: number;
  readonly stages: readonly {
    /** Layer paths, in order; a path stands for all layers inside it. */
    readonly layers: readonly string[];
    readonly devices: number;
    /** Layers that are computed again in the backward pass. */
    readonly recompute?: readonly string[];
  }[];
  readonly within: 'sequence' | 'data';
  readonly schedule: ScheduleName;
  readonly ahead: number;
}

/**
 * The plan of a placement for a model's blocks.
 *
 * @throws when stages leave out a block, name a layer that is no run of blocks, or come in another order than the model's.
 */
export function planOf(placement: Placement, { blocks }: Blocks, microbatches: number, name: string): Plan {
  const { within, schedule, ahead } = placement;
  if (!SCHEDULES.includes(schedule))
    throw new Error(`schedule is '${schedule}'; choose ${SCHEDULES.join(', ')}`);
  let from = 0;
  const stages = placement.stages.map(({ layers, devices }, index) => {
    const inside = (block: string): boolean =>
      layers.some((layer) => block === layer || block.startsWith(`${layer}.`));
    let to = from;
    while (to < blocks.length && inside(blocks[to]!.name)) to++;
    if (to === from)
      throw new Error(
        `stage ${index} (${layers.join(', ')}) should begin with ${blocks[from]?.name ?? 'nothing: all blocks are in stages before it'}`,
      );
    const stage = { from, to, devices };
    from = to;
    return stage;
  });
  if (from < blocks.length) throw new Error(`no stage has ${blocks[from]!.name}; add it to the last one`);
  return { name, stages, within, schedule, ahead, microbatches };
}

/** The reverse: blocks as the fewest layer paths. */
export function placementOf(
  plan: Plan,
  { blocks, leaves }: Blocks,
  recompute: readonly (readonly string[])[],
): Placement {
  const { within, schedule, ahead } = plan;
  const stages = plan.stages.map(({ from, to, devices }, index) => ({
    layers: shortest(
      blocks.slice(from, to).map(({ name }) => name),
      blocks.map(({ name }) => name),
    ),
    devices,
    ...(recompute[index]!.length === 0 ? {} : { recompute: recompute[index]! }),
  }));
  return { leavesPerSequence: leaves, stages, within, schedule, ahead };
}

/** `a.0, a.1, b.x` → `a, b.x` where `a` has no other blocks. */
function shortest(own: readonly string[], all: readonly string[]): string[] {
  const layers = own.map((name) => {
    const names = name.split('.');
    const prefixes = names.map((_, i) => names.slice(0, i + 1).join('.'));
    return prefixes.find((prefix) => all.every((other) => !isInside(other, prefix) || own.includes(other)))!;
  });
  return [...new Set(layers)];
}

const isInside = (name: string, layer: string): boolean => name === layer || name.startsWith(`${layer}.`);
