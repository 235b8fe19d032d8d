/** Who moves which parameters in the update of a pipeline. */

import type { Tensor } from '../../tensor.ts';
import { dealSums } from '../deal-sums.ts';
import type { Piece } from './place.ts';

/** Ranks that share the updates of their stages. */
export interface SharedUpdate {
  /** Of each stage. */
  readonly ranks: readonly number[];
  /** Ranks of parameters, by name, counted over all stages, that are known from another step on the same state. */
  readonly owners?: ReadonlyMap<string, number>;
}

/** What divides the update: stages, or where their ranks share it, all ranks, stage after stage. */
export interface UpdateUnits {
  /** The stage of each unit. */
  readonly stages: readonly number[];
  /** The unit that finishes each gradient sum. */
  readonly owners: ReadonlyMap<Tensor, number>;
}

export function updateUnits(
  stageOf: ReadonlyMap<Piece, number>,
  count: number,
  { ranks = Array(count).fill(1), owners: known = new Map() }: Partial<SharedUpdate> = {},
): UpdateUnits {
  const stages = ranks.flatMap((size, stage): number[] => Array(size).fill(stage));
  const owners = new Map<Tensor, number>();
  for (const [stage, size] of ranks.entries()) {
    const sums = [...stageOf].flatMap(([piece, of]) =>
      piece.kind === 'accumulate' && of === stage ? piece.sum : [],
    );
    const first = stages.indexOf(stage);
    const places = [...known].map(([name, unit]) => [name, unit - first] as const);
    const own = new Map(places.filter(([, place]) => place >= 0 && place < size));
    for (const [i, rank] of dealSums(sums, size, own).entries()) owners.set(sums[i]!, first + rank);
  }
  return { stages, owners };
}

export function unitsOf({ stages }: UpdateUnits, stage: number): number[] {
  return [...stages.keys()].filter((unit) => stages[unit] === stage);
}
