/** Which genome each step trains on. */
import { mix } from '@cohesin/core';

export interface Alternation {
  readonly batchesPerEpoch: readonly number[];
  readonly seed: number;
  readonly alternation: 'turns' | 'shuffled';
}

/**
 * The place of the genome of a step. In turns: one batch of each after the other, as Enformer was trained. Shuffled: each
 * epoch has as many batches of a genome as its data make, in an order drawn anew, as `fit2` of Basenji and baskerville.
 */
export function genomeAt(step: number, { batchesPerEpoch, seed, alternation }: Alternation): number {
  const genomes = batchesPerEpoch.length;
  if (genomes === 1) return 0;
  if (alternation === 'turns') return step % genomes;
  const total = batchesPerEpoch.reduce((a, b) => a + b, 0);
  const order = epochGenomes(batchesPerEpoch, mix(mix(seed, GENOMES), Math.floor(step / total)));
  return order[step % total]!;
}

/** The genome of each step of an epoch: Fisher and Yates' shuffle. */
function epochGenomes(batchesPerEpoch: readonly number[], seed: number): number[] {
  const order = batchesPerEpoch.flatMap((count, genome) => new Array<number>(count).fill(genome));
  for (let last = order.length - 1; last > 0; last--) {
    const chosen = mix(seed, last) % (last + 1);
    [order[last], order[chosen]] = [order[chosen]!, order[last]!];
  }
  return order;
}

const GENOMES = 0x6e0a_3d51; // any constant of its own keeps these draws apart from others of the same seed
