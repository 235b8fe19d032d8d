/** Which blocks of a stage to compute again in the backward pass, so that it fits a memory ceiling at the least time. */

/** A block under either choice. */
export interface RecomputeBlock {
  /** Kept of each microbatch: everything, or if it is computed again only its input. */
  readonly keptBytes: number;
  readonly inputBytes: number;
  /** Time of computing it again. */
  readonly againMs: number;
}

export interface RecomputeChoice {
  readonly againMs: number;
  /** By block. */
  readonly again: readonly boolean[];
  /** Bytes, with room for the largest block while it is computed again. */
  readonly bytes: number;
}

/** Memory is counted in so many parts of the budget, rounded up. */
export const MEMORY_PARTS = 256;

/** The best way so far to keep at most so many parts. */
interface Best {
  readonly againMs: number;
  readonly again: boolean;
  readonly before: Best | undefined;
}

/** The fastest choice that fits when each block keeps `inFlight` microbatches; undefined where none fits. A knapsack. */
export function chooseBlocks(
  blocks: readonly RecomputeBlock[],
  inFlight: number,
  budget: number,
): RecomputeChoice | undefined {
  const all = inFlight * blocks.reduce((sum, { keptBytes }) => sum + keptBytes, 0);
  if (all <= budget) return { againMs: 0, again: blocks.map(() => false), bytes: all };
  if (leastBytes(blocks, inFlight) > budget) return undefined;
  const largest = Math.max(...blocks.map(({ keptBytes }) => keptBytes));
  const part = budget / MEMORY_PARTS / inFlight;
  const limit = Math.floor((budget - largest) / inFlight / part);
  let best: (Best | undefined)[] = [{ againMs: 0, again: false, before: undefined }];
  for (const { keptBytes, inputBytes, againMs } of blocks) {
    const next: typeof best = [];
    for (const [parts, before] of best.entries()) {
      if (before === undefined) continue;
      for (const again of [false, true]) {
        const to = parts + Math.ceil((again ? inputBytes : keptBytes) / part);
        const ms = before.againMs + (again ? againMs : 0);
        if (to <= limit && ms < (next[to]?.againMs ?? Number.POSITIVE_INFINITY))
          next[to] = { againMs: ms, again, before };
      }
    }
    best = next;
  }
  const fastest = best.reduce(
    (a, b) => (b === undefined || (a !== undefined && a.againMs <= b.againMs) ? a : b),
    undefined,
  );
  if (fastest === undefined) return undefined;
  const again: boolean[] = [];
  for (let at: Best = fastest; at.before !== undefined; at = at.before) again.unshift(at.again);
  const kept = blocks.reduce(
    (sum, { keptBytes, inputBytes }, i) => sum + (again[i] ? inputBytes : keptBytes),
    0,
  );
  return { againMs: fastest.againMs, again, bytes: inFlight * kept + largest };
}

/** With every block computed again that keeps less so. */
export function leastBytes(blocks: readonly RecomputeBlock[], inFlight: number): number {
  const least = blocks.reduce((sum, { keptBytes, inputBytes }) => sum + Math.min(keptBytes, inputBytes), 0);
  return inFlight * least + Math.max(...blocks.map(({ keptBytes }) => keptBytes));
}
