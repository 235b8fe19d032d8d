/**
 * The order of records in an epoch, as tf.data makes it: shards permuted, four of them interleaved record by
 * record, then a bounded shuffle buffer. It depends on nothing but the record counts, the seed and the epoch.
 */

export interface Shuffle {
  /** Any integer ≥ 0. */
  readonly seed: number;
  /** Records held to choose from; basenji uses 128. */
  readonly buffer: number;
}

/** Records are named by their index in natural file order. Both lists hold each record once. */
export interface EpochOrder {
  /** The order in which records are read from their shards. */
  readonly arrival: Uint32Array;
  /** The order in which they are handed out: never more than the buffer ahead of their arrival. */
  readonly emission: Uint32Array;
}

const CYCLE_LENGTH = 4; // shards open at once, as basenji/dataset.py

/** The order of one epoch over shards of these record counts; file order without `shuffle`. */
export function epochOrder(recordsPerShard: readonly number[], epoch: number, shuffle?: Shuffle): EpochOrder {
  if (!shuffle) {
    const arrival = Uint32Array.from({ length: sum(recordsPerShard) }, (_, id) => id);
    return { arrival, emission: arrival };
  }
  const { seed, buffer } = shuffle;
  if (!Number.isSafeInteger(seed) || seed < 0 || !Number.isSafeInteger(buffer) || buffer < 1) {
    throw new Error(`shuffle: seed should be an integer >= 0 and buffer >= 1, found ${seed} and ${buffer}`);
  }
  const shards = permutation(recordsPerShard.length, (count) => randomBelow(count, seed, epoch, 0, count));
  const arrival = interleave(recordsPerShard, shards);
  const emission = throughBuffer(arrival, buffer, (count, step) => randomBelow(count, seed, epoch, 1, step));
  return { arrival, emission };
}

/** The index of each shard's first record, and the total at the end. */
export function shardStarts(recordsPerShard: readonly number[]): readonly number[] {
  const starts = [0];
  for (const records of recordsPerShard) starts.push(starts.at(-1)! + records);
  return starts;
}

/** Fisher-Yates. */
function permutation(length: number, below: (count: number) => number): number[] {
  const items = Array.from({ length }, (_, i) => i);
  for (let last = length - 1; last > 0; last--) {
    const chosen = below(last + 1);
    [items[last], items[chosen]] = [items[chosen]!, items[last]!];
  }
  return items;
}

/** One record from each open shard in turn; a shard that ends makes place for the next. */
function interleave(recordsPerShard: readonly number[], shards: readonly number[]): Uint32Array {
  const starts = shardStarts(recordsPerShard);
  const arrival = new Uint32Array(starts.at(-1)!);
  const waiting = shards.filter((shard) => recordsPerShard[shard]! > 0);
  const open = waiting
    .splice(0, CYCLE_LENGTH)
    .map((shard) => ({ next: starts[shard]!, end: starts[shard + 1]! }));
  for (let i = 0, slot = 0; i < arrival.length; i++) {
    slot %= open.length;
    const shard = open[slot]!;
    arrival[i] = shard.next++;
    if (shard.next < shard.end) {
      slot++;
      continue;
    }
    const next = waiting.shift();
    if (next === undefined) open.splice(slot, 1);
    else open[slot++] = { next: starts[next]!, end: starts[next + 1]! };
  }
  return arrival;
}

/** Holds `capacity` records; each step hands out one at random and takes the next in its place. */
function throughBuffer(
  arrival: Uint32Array,
  capacity: number,
  below: (count: number, step: number) => number,
): Uint32Array {
  const held = [...arrival.subarray(0, capacity)];
  const emission = new Uint32Array(arrival.length);
  let next = held.length;
  for (let step = 0; step < arrival.length; step++) {
    const chosen = below(held.length, step);
    emission[step] = held[chosen]!;
    if (next < arrival.length) {
      held[chosen] = arrival[next++]!;
    } else {
      held[chosen] = held.at(-1)!;
      held.pop();
    }
  }
  return emission;
}

/** A number in [0, count) that is a function of its arguments only. */
function randomBelow(count: number, seed: number, epoch: number, stream: number, counter: number): number {
  const words = [seed % 2 ** 32, Math.floor(seed / 2 ** 32), epoch, stream, counter];
  return Math.floor((hash32(words) / 2 ** 32) * count);
}

/** MurmurHash3 (x86, 32 bits; A. Appleby) of 32-bit words. */
function hash32(words: readonly number[]): number {
  let hash = 0;
  for (const word of words) {
    let mixed = Math.imul(word, 0xcc9e2d51);
    mixed = Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
    hash ^= mixed;
    hash = (Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64) | 0;
  }
  hash ^= words.length * 4;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
