/** Shares the update of a step among ranks: each moves its own parameters, and alone has their moments. No rank assigns what another does. */

import type { Graph } from '../graph.ts';
import type { Program, UpdateShare } from '../program.ts';
import { byteLength } from '../tensor.ts';
import { Assembly } from './assembly.ts';
import { type LogicalPlan, type LogicalStep, logicalStep, type Placement, placeStep } from './build.ts';
import { dealSums } from './deal-sums.ts';
import { divideUpdate, type UpdateCut } from './pipeline/update.ts';
import type { Stage } from './split.ts';
import { leafSums } from './storage-bytes.ts';

export interface SharePlacement extends Placement {
  readonly ranks: number;
  /** Ranks of parameters, by name, that are known from another step on the same state. */
  readonly owners?: ReadonlyMap<string, number>;
}

/**
 * A program for each rank. They have the kernels of `buildProgram`, and differ in the update alone: parameters are dealt out
 * whole, by their bytes, so that no kernel's text depends on who runs it; norms over all gradients are put together on
 * every rank, from what the owners compute, in the order of one device.
 *
 * @throws as `buildProgram`.
 */
export function buildShares(graph: Graph, plan: LogicalPlan, placement: SharePlacement): Program[] {
  const step = logicalStep(graph, plan);
  const sums = leafSums(step.sharded.graph);
  const owners = dealSums(sums, placement.ranks, placement.owners);
  const ranks = Array.from({ length: placement.ranks }, (_, rank) => rank);
  const cut = divideUpdate(step.sharded.graph, {
    works: step.ordered.update === undefined ? [] : step.ordered.stages[step.ordered.update]!.once,
    count: placement.ranks,
    known: new Map(sums.map((sum, i) => [sum, [owners[i]!]])),
    assignersOf: () => [0], // running statistics, which every rank could compute: unlike devices would round them apart
    holdersOf: () => ranks,
  });
  const programs = ranks.map((rank) => programOf(step, cut, rank, placement));
  const holders = ({ name }: { readonly name: string }): number =>
    programs.filter(({ state }) => state.some((one) => one.name === name)).length;
  const parameters = [...cut.owners]
    .filter(([parameter, { length }]) => length === 1 && holders(parameter) > 1)
    .map(([parameter, [owner]]) => ({
      name: parameter.name,
      bytes: byteLength(parameter),
      owner: owner!,
    }));
  return programs.map((program, rank) => {
    const updateShare: UpdateShare = { rank, ranks: ranks.length, owners, parameters };
    return { ...program, updateShare };
  });
}

function programOf(step: LogicalStep, cut: UpdateCut, rank: number, placement: Placement): Program {
  const { graph, levels } = cut.units[rank]!;
  const update = levels.map((works, level): Stage => {
    const held = cut.handOvers[level]!.filter(({ holders }) => holders.has(rank));
    return { once: [...works], leaf: [], gather: [], keep: [], handOver: held.map(({ x }) => x) };
  });
  const before = step.ordered.stages.slice(0, step.ordered.update);
  const own = {
    ...step,
    sharded: { ...step.sharded, graph },
    ordered: { ...step.ordered, stages: [...before, ...update] },
  };
  const assembly = new Assembly(placeStep(own, leafSums(step.sharded.graph), placement));
  return {
    ...assembly.program(),
    handOvers: cut.handOvers.map((level) =>
      level.map(({ x, from, holders }) => ({
        from,
        bytes: byteLength(x),
        ...(holders.has(rank) ? { slot: assembly.slot(x) } : {}),
      })),
    ),
  };
}
