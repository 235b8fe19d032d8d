/** Which ranks work on what, and who hands what to whom at the border of two stages. */
import { share } from '../exchange.ts';
import type { Compute, Pipeline, Transfer } from './action.ts';

/** Ranks of all stages together. */
export function rankCount({ stages }: Pipeline): number {
  return stages.reduce((total, ranks) => total + ranks.length, 0);
}

/** The stage of each rank. @throws unless the stages have the ranks 0, 1, … once each. */
export function stageOfRanks({ stages }: Pipeline): number[] {
  const owners: number[] = [];
  for (const [stage, ranks] of stages.entries()) {
    if (ranks.length === 0) throw new Error(`stage ${stage} has no rank; give every stage at least one`);
    for (const rank of ranks) {
      if (owners[rank] !== undefined)
        throw new Error(`rank ${rank} is in stages ${owners[rank]} and ${stage}; a rank works on one stage`);
      owners[rank] = stage;
    }
  }
  for (let rank = 0; rank < owners.length; rank++)
    if (owners[rank] === undefined)
      throw new Error(`no stage has rank ${rank}; number ranks 0 to ${owners.length - 1} without gaps`);
  return owners;
}

/** Groups of a stage's ranks that work on microbatches of their own. */
export function groupCount(pipeline: Pipeline, stage: number): number {
  return groupsOf(pipeline.stages[stage]!.length, pipeline);
}

/** Groups that so many ranks of a stage form. */
export function groupsOf(
  ranks: number,
  { within, replicas = 1 }: Pick<Pipeline, 'within' | 'replicas'>,
): number {
  return within === 'sequence' ? Math.min(replicas, ranks) : ranks;
}

/** Ranks of a stage that work on a microbatch. */
export function ranksOn(pipeline: Pipeline, stage: number, microbatch: number): readonly number[] {
  const ranks = pipeline.stages[stage]!;
  const groups = groupCount(pipeline, stage);
  return ranks.slice(...share(ranks.length, microbatch % groups, groups));
}

/** What a rank receives before a computation and sends after it, a value for each peer. */
export function transfersAround(
  pipeline: Pipeline,
  rank: number,
  action: Compute,
): { readonly before: readonly Transfer[]; readonly after: readonly Transfer[] } {
  const { kind, stage, microbatch } = action;
  if (kind === 'weightGradient') return { before: [], after: [] };
  const [source, target] = kind === 'forward' ? [stage - 1, stage + 1] : [stage + 1, stage - 1];
  const value = kind === 'forward' ? 'activation' : 'gradient';
  const peers = (other: number): number[] =>
    pipeline.stages[other] === undefined ? [] : peersOf(pipeline, rank, action, other);
  return {
    before: peers(source).map((peer) => ({ kind: 'receive', value, stage: source, microbatch, peer })),
    after: peers(target).map((peer) => ({ kind: 'send', value, stage, microbatch, peer })),
  };
}

/** Ranks of a neighbouring stage with which a rank shares the border of a microbatch: those that hold some of its rows. */
function peersOf(pipeline: Pipeline, rank: number, { stage, microbatch }: Compute, other: number): number[] {
  const [from, to] = rows(pipeline, rank, stage, microbatch);
  return ranksOn(pipeline, other, microbatch).filter((peer) => {
    const [start, end] = rows(pipeline, peer, other, microbatch);
    return start < to && from < end;
  });
}

/** The part of a microbatch that a rank holds, between 0 and 1. */
function rows(
  pipeline: Pipeline,
  rank: number,
  stage: number,
  microbatch: number,
): [from: number, to: number] {
  const ranks = ranksOn(pipeline, stage, microbatch);
  const leaves = pipeline.within === 'data' ? 1 : (pipeline.leaves?.[stage] ?? ranks.length);
  const [from, to] = share(leaves, ranks.indexOf(rank), ranks.length);
  return [from / leaves, to / leaves];
}
