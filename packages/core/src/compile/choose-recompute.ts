/** What to compute again: by layer, or as much as a budget of memory asks for. Decided by shapes, never by the clock. */

import { byteLength } from '../tensor.ts';
import { layerPattern } from './layer-pattern.ts';
import type { Sharded } from './layout.ts';
import { lightTensors } from './light.ts';
import { liveRanges, pieceOutputs, type Storage, touched } from './lives.ts';
import type { Lowered } from './lower.ts';
import { assignSlots, type Live, lifeOf, liveBytes, pieces, slotBytes } from './memory.ts';
import { multiplyAdds } from './multiply-adds.ts';
import { computedBy, type Forward, forwardPass, recompute, withOwnInputs } from './recompute.ts';
import type { Stages } from './split.ts';
import { nodeOf, type Stored, stored } from './stored.ts';

export interface MemoryOptions {
  /**
   * Layers whose inner tensors are computed again in the backward pass; what they hand to other layers is kept. A `*`
   * stands for one name: `tower.*` keeps the tensors between `tower.0`, `tower.1`, …, `tower` none inside the tower.
   *
   * What is large and cheap is computed again in any case: element-wise results and row norms of 8 MiB and more in one
   * leaf, made of tensors that are kept. `false` keeps those too.
   */
  readonly recompute?: readonly string[] | false;
  /** Bytes of device memory for state, sums and all tensors; more is computed again until they fit. */
  readonly memoryBudget?: number;
}

/** What has to fit where. */
export interface Planned {
  readonly sharded: Sharded;
  readonly stages: Stages;
  readonly bytes: (x: Storage) => number;
  readonly leavesOnDevice: number;
  /** In stages that work on parts of sequences: how many of these are on their way. */
  readonly sequencesOnDevice?: number | undefined;
}

/**
 * The stages with what `options` ask for computed again.
 *
 * @throws when a pattern matches no layer, or no choice fits the budget.
 */
export function chooseRecompute(
  planned: Planned,
  { recompute: layers = [], memoryBudget }: MemoryOptions,
): Stages {
  const forward = forwardPass(planned.stages);
  const patterns = layers === false ? [] : layers;
  const dropped = new Set(patterns.flatMap((pattern) => insideLayers(pattern, planned, forward)));
  if (layers !== false) for (const x of lightTensors(planned.stages, forward)) dropped.add(x);
  if (memoryBudget !== undefined) new Search(planned, forward, dropped, memoryBudget).run();
  return recompute(planned.stages, dropped, forward);
}

/** Tensors of the layers that match, without those that the forward pass of other layers or an exchange reads. */
function insideLayers(pattern: string, { sharded, stages }: Planned, { producers }: Forward): Stored[] {
  const layer = layerPattern(pattern);
  const layerOf = (x: Stored): string | undefined => layer.exec(nodeOf(x).path)?.[0];
  const inside = new Set([...producers.keys()].filter((x) => layerOf(x) !== undefined));
  if (inside.size === 0) {
    const layers = new Set([...producers.keys()].map((x) => nodeOf(x).path));
    throw new Error(
      `recompute: no layer matches '${pattern}'; there are ${[...layers].slice(0, 20).join(', ')}`,
    );
  }
  for (const stage of stages.stages) {
    for (const node of [...stage.gather, ...stage.keep]) inside.delete(stored(node.inputs.x!));
    for (const { value } of pieceOutputs(sharded, stages, stage)) inside.delete(stored(value));
    for (const work of [...stage.once, ...stage.leaf]) {
      const [reads, writes] = touched(work);
      if (writes === undefined || !producers.has(writes)) continue;
      for (const x of reads) if (layerOf(x) !== layerOf(writes)) inside.delete(x);
    }
  }
  return [...inside];
}

/** Where no tensor helps towards the budget, a lower aim is tried: some only help together. */
const AIM_STEP = 0.1;
const LOWEST_AIM = 0.3;

/**
 * Greedy: as long as the plan does not fit, what lowers the excess over the budget most for the work it costs is
 * computed again too. The excess is added up over positions, so that several equal peaks are lowered one by one.
 */
class Search {
  private readonly planned: Planned;
  private readonly forward: Forward;
  private readonly dropped: Set<Stored>;
  private readonly budget: number;
  private readonly candidates: readonly Candidate[];

  constructor(planned: Planned, forward: Forward, dropped: Set<Stored>, budget: number) {
    this.planned = planned;
    this.forward = forward;
    this.dropped = dropped;
    this.budget = budget;
    this.candidates = [...forward.saved].map((x) => ({ x, score: Number.POSITIVE_INFINITY }));
  }

  /** Adds to `dropped`. */
  run(): void {
    for (let aim = 1; ; ) {
      const { peak, total } = this.needs();
      if (total <= this.budget) return;
      const target = aim * this.budget - (total - peak); // slots need more than what is live
      const best = this.best(target);
      if (best !== undefined) for (const x of withOwnInputs([best], this.forward)) this.dropped.add(x);
      else if (aim < LOWEST_AIM) throw this.tooLittle(total);
      else {
        aim -= AIM_STEP;
        for (const candidate of this.candidates) candidate.score = Number.POSITIVE_INFINITY;
      }
    }
  }

  private tooLittle(total: number): Error {
    return new Error(
      `memoryBudget: ${this.budget} bytes are too few: with all computed again that helps, the step needs ${total}. Raise the budget, or use more devices or smaller leaves`,
    );
  }

  /** Most bytes live at once, and bytes of all slots; slots are only assigned once the former fit. */
  private needs(): { readonly peak: number; readonly total: number } {
    const { leavesOnDevice, sequencesOnDevice } = this.planned;
    const lives = this.lives(this.dropped);
    const peak = Math.max(...liveBytes(lives, leavesOnDevice, sequencesOnDevice));
    const total =
      peak > this.budget ? peak : slotBytes(assignSlots(lives).slots, leavesOnDevice, sequencesOnDevice);
    return { peak, total };
  }

  /** The tensor with the highest score. Scores of earlier rounds are bounds: a choice rarely makes others better. */
  private best(target: number): Stored | undefined {
    const excess = this.excess(this.dropped, target);
    const fresh = new Set<Candidate>();
    for (;;) {
      const [first] = this.candidates
        .filter(({ x }) => !this.dropped.has(x))
        .sort((a, b) => b.score - a.score);
      if (first === undefined) return undefined;
      if (fresh.has(first)) return first.score > 0 ? first.x : undefined;
      first.score = this.score(first.x, excess, target);
      fresh.add(first);
    }
  }

  /** Excess that goes away for each unit of work. */
  private score(x: Stored, excess: number, target: number): number {
    const added = [...withOwnInputs([x], this.forward)].filter((y) => !this.dropped.has(y));
    const cost = added.reduce((total, y) => total + tensorCost(y, this.forward), 0);
    return (excess - this.excess(new Set([...this.dropped, ...added]), target)) / cost;
  }

  private excess(dropped: ReadonlySet<Stored>, target: number): number {
    const { sharded, bytes, leavesOnDevice, sequencesOnDevice } = this.planned;
    const ranges = liveRanges(sharded, recompute(this.planned.stages, dropped, this.forward));
    const live = liveBytes(
      Array.from(ranges, ([x, range]) => Object.assign(lifeOf(range), { bytes: bytes(x) })),
      leavesOnDevice,
      sequencesOnDevice,
    );
    return live.reduce((total, bytes) => total + Math.max(0, bytes - target), 0);
  }

  private lives(dropped: ReadonlySet<Stored>): Live[] {
    const { sharded, bytes } = this.planned;
    const stages = recompute(this.planned.stages, dropped, this.forward);
    return [...pieces(liveRanges(sharded, stages), { sharded, stages, bytes }).values()];
  }
}

interface Candidate {
  readonly x: Stored;
  score: number;
}

const MACS_PER_BYTE = 2; // multiply-adds in the time of moving a byte: 15 TFLOP/s beside 3 TB/s, 100 GFLOP/s beside 20 GB/s

/** Estimated work of computing a tensor again, in bytes moved. */
function tensorCost(x: Stored, forward: Forward): number {
  const { kernels } = forward.producers.get(x)!;
  return kernels.reduce((total, kernel) => total + kernelCost(kernel, forward), 0);
}

function kernelCost(kernel: Lowered, forward: Forward): number {
  const moved = [...kernel.reads, kernel.writes].reduce((total, x) => total + byteLength(x), 0);
  return [...computedBy(kernel, forward)].reduce(
    (total, node) => total + multiplyAdds(node) / MACS_PER_BYTE,
    moved,
  );
}
