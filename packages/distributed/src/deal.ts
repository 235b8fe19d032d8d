/** Which rank works on which leaves, where no stages divide the layers. */
import { type BuildOptions, type Program, rounds, type Share } from '@cohesin/core';
import { share } from './exchange.ts';

/** How a batch is cut: into `leaves` of whole sequences, or of parts, `leavesPerSequence` of each. */
export type Cut = Pick<Program, 'leaves' | 'leavesPerSequence'>;

/** How a step's batch is cut. */
export function cutOf({ inputs, leaves = 1, leavesPerSequence = 1 }: BuildOptions): Cut {
  const [first = []] = Object.values(inputs).map((spec) => ('shape' in spec ? spec.shape : spec));
  return { leaves: leavesPerSequence > 1 ? (first[0] ?? 1) * leavesPerSequence : leaves, leavesPerSequence };
}

export interface Deal {
  /** What each rank works on, in this order. */
  readonly ranks: readonly (readonly Share[])[];
  /** Ranks that work on the leaves of a round, and so exchange what they compute. */
  readonly rounds: readonly (readonly number[])[];
}

/**
 * Deals the leaves of a step to `ranks`. Whole sequences go to all in order. Parts of sequences go in order to `replicas`
 * groups of ranks, to each by the number of its ranks, which share every sequence of the group. So one replica is sequence
 * parallelism; as many as ranks is data parallelism, each rank having all parts of its sequences; between lies both. The
 * default is the fewest replicas that give every rank a leaf: a rank then keeps the fewest parts at a time.
 *
 * Where the border of two groups lies inside a sequence, both share it, before the sequences that are theirs alone.
 *
 * @throws when a rank would have nothing to do.
 */
export function dealLeaves(cut: Cut, ranks: number, replicas?: number): Deal {
  const { count, leaves } = rounds(cut);
  checkReplicas(cut, ranks, replicas);
  const candidates = replicas === undefined ? Array.from({ length: ranks }, (_, i) => i + 1) : [replicas];
  for (const groups of candidates) {
    const dealt = dealTo(groupsOf(cut, ranks, groups), cut);
    if (dealt.some((shares) => shares.length === 0)) continue;
    const sharing = Array.from({ length: count }, (_, round) =>
      [...dealt.keys()].filter((rank) => dealt[rank]!.some((one) => one.round === round)),
    );
    return { ranks: dealt, rounds: sharing };
  }
  throw new Error(
    ranks > count * leaves
      ? `${ranks} devices but only ${count * leaves} leaves; use at most ${count * leaves} devices, a larger batch or more leaves a sequence`
      : `${ranks} devices but only ${leaves} leaves at a time: ${replicas} ${replicas === 1 ? 'replica' : 'replicas'} would leave some without any; use more replicas, up to ${ranks}, or at most ${leaves} devices for each`,
  );
}

/** Consecutive ranks that share sequences, and which of all leaves they have. */
interface Replica {
  readonly first: number;
  readonly size: number;
  readonly from: number;
  readonly to: number;
}

function groupsOf(cut: Cut, ranks: number, replicas: number): Replica[] {
  return Array.from({ length: replicas }, (_, group) => {
    const [first, end] = share(ranks, group, replicas);
    const { count, leaves } = rounds(cut);
    const [from, to] = [first, end].map((rank) => Math.floor((count * leaves * rank) / ranks));
    return { first, size: end - first, from: from!, to: to! };
  });
}

/** What each rank works on, in order. */
function dealTo(groups: readonly Replica[], cut: Cut): Share[][] {
  const { count, leaves } = rounds(cut);
  const order = roundOrder(count, leaves, groups);
  const partsOf = ({ size, from, to }: Replica, place: number, round: number): Share => {
    const [start, end] = [from, to].map((leaf) => Math.min(Math.max(leaf - round * leaves, 0), leaves));
    const [own, next] = share(end! - start!, place, size);
    return { round, leaves: Array.from({ length: next - own }, (_, i) => start! + own + i) };
  };
  return groups.flatMap((group) =>
    Array.from({ length: group.size }, (_, place) =>
      order.map((round) => partsOf(group, place, round)).filter((one) => one.leaves.length > 0),
    ),
  );
}

/** @throws unless sequences are cut into parts and each group can have a rank. */
export function checkReplicas(cut: Cut, ranks: number, replicas = 1): void {
  if (!Number.isInteger(replicas) || replicas < 1 || replicas > ranks)
    throw new Error(
      `replicas is ${replicas} but there are ${ranks} devices; choose a whole number from 1 to ${ranks}`,
    );
  if (replicas > 1 && cut.leavesPerSequence === 1)
    throw new Error(
      `replicas is ${replicas} but sequences are not cut into parts; leave replicas out: every device has whole sequences of its own`,
    );
}

/**
 * Rounds in the order in which all ranks take them, so that none waits for another in a circle: first those that two groups
 * share, every other one before the rest, so that no chain of groups waits for its first.
 */
function roundOrder(count: number, leaves: number, groups: readonly Replica[]): number[] {
  const all = Array.from({ length: count }, (_, round) => round);
  const borders = groups.map(({ from }) => from).filter((leaf) => leaf % leaves !== 0);
  const between = all.filter((round) => borders.some((leaf) => Math.floor(leaf / leaves) === round));
  const alone = all.filter((round) => !between.includes(round));
  return [...between.filter((_, i) => i % 2 === 0), ...between.filter((_, i) => i % 2 === 1), ...alone];
}
