/** Shares the update of a step among ranks: each moves its own parameters, and alone has their moments. No rank assigns what another does. */

import type { Graph } from '../graph.ts';
import type { Program, UpdateShare } from '../program.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { Assembly } from './assembly.ts';
import { type LogicalPlan, type LogicalStep, logicalStep, type Placement, placeStep } from './build.ts';
import { touched } from './lives.ts';
import { divideUpdate, type UpdateCut } from './pipeline/update.ts';
import type { Stage, Work } from './split.ts';
import { leafSums } from './storage-bytes.ts';
import type { Stored } from './stored.ts';

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
  const owners = deal(sums, placement);
  const ranks = Array.from({ length: placement.ranks }, (_, rank) => rank);
  const cut = divideUpdate(step.sharded.graph, {
    works: step.ordered.update === undefined ? [] : step.ordered.stages[step.ordered.update]!.once,
    count: placement.ranks,
    known: new Map(sums.map((sum, i) => [sum, owners[i]!])),
    choose: largestRead,
    assignersOf: () => [0], // running statistics, which every rank could compute: unlike devices would round them apart
    holdersOf: () => ranks,
  });
  const programs = ranks.map((rank) => programOf(step, cut, rank, placement));
  const holders = ({ name }: { readonly name: string }): number =>
    programs.filter(({ program }) => program.state.some((one) => one.name === name)).length;
  const parameters = [...cut.owners]
    .filter(([parameter, { length }]) => length === 1 && holders(parameter) > 1)
    .map(([parameter, [owner]]) => ({
      name: parameter.name,
      bytes: byteLength(parameter),
      owner: owner!,
    }));
  return programs.map(({ program, handOvers }, rank) => {
    const updateShare: UpdateShare = { rank, ranks: ranks.length, owners, handOvers, parameters };
    return { ...program, updateShare };
  });
}

/** The rank of each gradient sum: the largest first, each to the rank that has the fewest bytes so far. */
function deal(sums: readonly Tensor[], { ranks, owners: known }: SharePlacement): number[] {
  const loads: number[] = Array(ranks).fill(0);
  const owners: number[] = [];
  const assign = (index: number, rank: number): void => {
    owners[index] = rank;
    loads[rank]! += byteLength(sums[index]!);
  };
  for (const [i, sum] of sums.entries()) {
    const rank = known?.get(nameOf(sum));
    if (rank !== undefined) assign(i, rank);
  }
  const open = [...sums.keys()].filter((i) => owners[i] === undefined);
  for (const i of open.sort((a, b) => byteLength(sums[b]!) - byteLength(sums[a]!) || a - b))
    assign(i, loads.indexOf(Math.min(...loads)));
  return owners;
}

/** Who has the largest tensor that work reads, so that norms go to gradients; nobody where several have one as large. */
function largestRead(work: Work, homeOf: (x: Stored) => number | undefined): number | undefined {
  const read = touched(work)[0].filter((x) => homeOf(x) !== undefined);
  const most = Math.max(...read.map(byteLength));
  const homes = new Set(read.filter((x) => byteLength(x) === most).map(homeOf));
  return homes.size === 1 ? [...homes][0] : undefined;
}

const nameOf = (sum: Tensor): string => (sum.attrs as { name: string }).name;

function programOf(
  step: LogicalStep,
  cut: UpdateCut,
  rank: number,
  placement: Placement,
): { readonly program: Program } & Pick<UpdateShare, 'handOvers'> {
  const { graph, levels } = cut.stages[rank]!;
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
    program: assembly.program(),
    handOvers: cut.handOvers.map((level) =>
      level.map(({ x, from, holders }) => ({
        from,
        bytes: byteLength(x),
        ...(holders.has(rank) ? { slot: assembly.slot(x) } : {}),
      })),
    ),
  };
}
