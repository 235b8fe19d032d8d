/** Deals the parameters of an update to the ranks that share it. */

import { parameterOf } from '../ops/leaf-sum.ts';
import { byteLength, type Tensor } from '../tensor.ts';

/** The rank of each gradient sum: that of its name in `known`, or else the largest first, each to the rank that has the fewest bytes so far. */
export function dealSums(
  sums: readonly Tensor[],
  ranks: number,
  known: ReadonlyMap<string, number> = new Map(),
): number[] {
  const loads: number[] = Array(ranks).fill(0);
  const owners: number[] = [];
  const assign = (index: number, rank: number): void => {
    owners[index] = rank;
    loads[rank]! += byteLength(sums[index]!);
  };
  for (const [i, sum] of sums.entries()) {
    const rank = known.get(parameterOf(sum));
    if (rank !== undefined) assign(i, rank);
  }
  const open = [...sums.keys()].filter((i) => owners[i] === undefined);
  for (const i of open.sort((a, b) => byteLength(sums[b]!) - byteLength(sums[a]!) || a - b))
    assign(i, loads.indexOf(Math.min(...loads)));
  return owners;
}
