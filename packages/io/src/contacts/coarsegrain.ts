/** Smoothing of contact maps where few contacts were counted: adaptive_coarsegrain of cooltools. */

const CUTOFF = 2; // reads, akita_data_read.py
const MAX_LEVELS = 8;
const LEAST_BINS = 8; // a coarser map than this is not made

/** A map at one resolution: sums over the fine map's valid elements, the reads in them, and how many they are. */
interface Level {
  readonly bins: number;
  readonly values: Float64Array;
  readonly reads: Float64Array;
  readonly valid: Float64Array;
}

/**
 * Each 2 × 2 block with an element of fewer than two reads gets the mean of its block at the coarser level, from the
 * coarsest down; missing elements (NaN) count as 0 reads and stay missing. `[bins, bins]`
 */
export function coarsegrain(map: Float64Array, counts: ArrayLike<number>, bins: number): Float64Array {
  const levels = [finest(map, counts, bins)];
  while (levels.length <= MAX_LEVELS && levels.at(-1)!.bins > LEAST_BINS)
    levels.push(coarser(levels.at(-1)!));
  let current = levels.pop()!;
  for (let fine = levels.pop(); fine; fine = levels.pop()) current = refined(fine, current);
  const padded = current.bins;
  return map.map((_, i) => {
    const at = Math.floor(i / bins) * padded + (i % bins);
    return current.valid[at] === 0 ? Number.NaN : current.values[at]!;
  });
}

/** Padded with missing elements to a power of two. */
function finest(map: Float64Array, counts: ArrayLike<number>, bins: number): Level {
  const padded = 2 ** Math.ceil(Math.log2(bins));
  const level = empty(padded);
  for (let row = 0; row < bins; row++) {
    for (let column = 0; column < bins; column++) {
      const [from, to] = [row * bins + column, row * padded + column];
      if (!Number.isFinite(map[from])) continue;
      level.values[to] = map[from]!;
      level.reads[to] = counts[from]!;
      level.valid[to] = 1;
    }
  }
  return level;
}

function empty(bins: number): Level {
  const plane = (): Float64Array => new Float64Array(bins * bins);
  return { bins, values: plane(), reads: plane(), valid: plane() };
}

function coarser(fine: Level): Level {
  const coarse = empty(fine.bins / 2);
  for (let i = 0; i < fine.values.length; i++) {
    const to = parent(i, fine.bins);
    coarse.values[to]! += fine.values[i]!;
    coarse.reads[to]! += fine.reads[i]!;
    coarse.valid[to]! += fine.valid[i]!;
  }
  return coarse;
}

/** The index of the coarser element that holds an element. */
function parent(i: number, bins: number): number {
  return (Math.floor(i / bins) >> 1) * (bins / 2) + ((i % bins) >> 1);
}

function refined(fine: Level, coarse: Level): Level {
  const least = new Float64Array(coarse.values.length).fill(Number.POSITIVE_INFINITY);
  for (let i = 0; i < fine.reads.length; i++) {
    const to = parent(i, fine.bins);
    least[to] = Math.min(least[to]!, fine.reads[i]!);
  }
  const values = fine.values.map((value, i) => {
    const from = parent(i, fine.bins);
    if (fine.valid[i] === 0) return 0;
    return least[from]! < CUTOFF ? (coarse.values[from]! / coarse.valid[from]!) * fine.valid[i]! : value;
  });
  return { ...fine, values };
}
