/** Which places become sequences, and in which order. */
import { mix } from '@cohesin/core';
import type { IntervalSet } from '../intervals.ts';
import { splitRank } from './contigs.ts';
import { ChosenCores, type Core, type Cores } from './cores.ts';
import type { PrepareOptions } from './options.ts';
import { unmappableBins } from './sequences.ts';

/** A sequence to be written. */
export interface PlannedSequence extends Core {
  /** 1 for each bin that cannot be mapped to. */
  readonly unmappable?: Uint8Array;
}

/** The sequences of a plan, split by split in the order they are written. What is said of each is worked out when asked for. */
export interface PlannedSequences extends Iterable<PlannedSequence> {
  readonly length: number;
  /** In the order of the splits. */
  readonly splits: readonly SplitCount[];
  /** What they take in memory. */
  readonly bytes: number;
  at(i: number): PlannedSequence;
  slice(from: number, to: number): PlannedSequence[];
}

export interface SplitCount {
  readonly split: string;
  readonly from: number;
  readonly count: number;
}

/** Why a place is no sequence. */
export type Dropped = Readonly<Record<'unmappable' | 'filtered' | 'sampled', number>>;

/**
 * Drops what cannot be mapped to and what `isFiltered` says, groups the rest by split, shuffles each split and keeps its
 * share.
 */
export function selectSequences(
  cores: Cores,
  unmappable: IntervalSet,
  isFiltered: (core: Core) => boolean,
  options: PrepareOptions,
): { sequences: PlannedSequences; dropped: Dropped } {
  const describe = marker(unmappable, options);
  const splitOf = new Int32Array(cores.length).fill(-1);
  const names: string[] = [];
  const dropped = { unmappable: 0, filtered: 0, sampled: 0 };
  for (let i = 0; i < cores.length; i++) {
    const core = cores.at(i);
    const { unmappable: bins } = describe(core);
    if (bins && mean(bins) >= options.unmappableLimit) dropped.unmappable++;
    else if (isFiltered(core)) dropped.filtered++;
    else splitOf[i] = names.includes(core.split) ? names.indexOf(core.split) : names.push(core.split) - 1;
  }
  const ranked = names.toSorted((a, b) => splitRank(a) - splitRank(b));
  const order = new Uint32Array(cores.length - dropped.unmappable - dropped.filtered);
  const splits: SplitCount[] = [];
  let end = 0;
  for (const [i, split] of ranked.entries()) {
    const from = end;
    const number = names.indexOf(split);
    for (const [core, own] of splitOf.entries()) if (own === number) order[end++] = core;
    const own = order.subarray(from, end);
    if (options.shuffle) shuffleInPlace(own, randomNumbers(options.seed, i + 1));
    const count = Math.ceil(options.sample * own.length);
    dropped.sampled += own.length - count;
    end = from + count;
    splits.push({ split, from, count });
  }
  return { sequences: planned(new ChosenCores(cores, order.slice(0, end)), splits, describe), dropped };
}

function planned(
  chosen: ChosenCores,
  splits: readonly SplitCount[],
  describe: (core: Core) => PlannedSequence,
): PlannedSequences {
  const at = (i: number): PlannedSequence => describe(chosen.at(i));
  return {
    length: chosen.length,
    splits,
    bytes: Math.ceil(chosen.length * chosen.bytesEach),
    at,
    slice: (from, to) =>
      Array.from({ length: Math.max(0, Math.min(to, chosen.length) - from) }, (_, i) => at(from + i)),
    *[Symbol.iterator]() {
      for (let i = 0; i < chosen.length; i++) yield at(i);
    },
  };
}

function marker(unmappable: IntervalSet, options: PrepareOptions): (core: Core) => PlannedSequence {
  if (options.unmappable === undefined) return (core) => core;
  return (core) => ({ ...core, unmappable: unmappableBins(core, unmappable, options.poolWidthBp) });
}

function mean(bins: Uint8Array): number {
  return bins.reduce((sum, bin) => sum + bin, 0) / bins.length;
}

function shuffleInPlace(items: Uint32Array, draw: () => number): void {
  for (let last = items.length - 1; last > 0; last--) {
    const chosen = Math.floor(draw() * (last + 1));
    [items[last], items[chosen]] = [items[chosen]!, items[last]!];
  }
}

/** Numbers in [0, 1) that depend on the seed and the stream only. */
export function randomNumbers(seed: number, stream: number): () => number {
  let counter = 0;
  return () => mix(mix(seed, stream), counter++) / 2 ** 32;
}
