import { roots, topologicalOrder } from '../graph.ts';
import type { KernelTarget } from '../kernel.ts';
import { parameterOf } from '../ops/leaf-sum.ts';
import type { Tensor } from '../tensor.ts';
import type { Fused } from './fuse.ts';
import { isShared, type Sharded } from './layout.ts';
import { type Lowered, lower } from './lower.ts';
import { type Stored, stored } from './stored.ts';

/** A kernel, or the addition of a leaf's gradient to the sums over leaves, or the end of those sums. */
export type Work =
  | { readonly kind: 'kernel'; readonly kernel: Lowered }
  | { readonly kind: 'accumulate' | 'finish'; readonly sum: Tensor; readonly ordinal?: number };

/** What the addition of a gradient, or the end of its sum, is called. */
export function sumLabel(kind: 'accumulate' | 'finish', sum: Tensor): string {
  return `${parameterOf(sum)}: ${kind === 'accumulate' ? 'add gradient' : 'gradient sum'}`;
}

/** Work between two exchanges. */
export interface Stage {
  readonly once: Work[];
  readonly leaf: Work[];
  /** Exchanges that gather leaves' pieces at the end of the stage. */
  readonly gather: Tensor[];
  /** Values of one sequence that are kept for the update, one of each sequence of the step. */
  readonly keep: Tensor[];
  /** Of a stage of a pipeline: what other stages hand to it before its work on a leaf, and it to them after. */
  readonly receive?: readonly Stored[];
  readonly send?: readonly Stored[];
  /** What stages hand to each other after this part of the update. */
  readonly handOver?: readonly Stored[];
}

export interface Stages {
  readonly stages: readonly Stage[];
  /** Index of the stage that starts with finished gradient sums. */
  readonly update: number | undefined;
  /** The stage in which a leaf tensor is computed. */
  readonly stageOf: (node: Tensor) => number;
  readonly microbatches?: Microbatches;
  /** Whether several sequences in parts go through the stages before the update side by side. */
  readonly sideBySide?: boolean;
}

/** Of a stage of a pipeline: what runs for one microbatch after another. */
export interface Microbatches {
  /** First and last stage of each action on a microbatch. Actions on several take turns. */
  readonly actions: readonly (readonly [first: number, last: number])[];
  /** Whether a microbatch is a sequence in parts, which meet between the stages of an action; else it is one leaf. */
  readonly inParts: boolean;
}

/**
 * Cuts the kernels at the exchanges. An exchange is as late as its first reader allows: what only the update needs is
 * gathered together with the gradient sums, in one exchange.
 */
export function split(
  { graph, layouts, parts }: Sharded,
  fused: Fused,
  scalars: readonly string[],
  target: KernelTarget,
): Stages {
  const order = topologicalOrder(roots(graph));
  const sums = order.filter((node) => node.op.name === 'leafSum');
  const { level, update } = levels(order, sums);
  const last = Math.max(...[...level.values()], update ?? 0);
  const stages: Stage[] = Array.from({ length: last + 1 }, () => ({
    once: [],
    leaf: [],
    gather: [],
    keep: [],
  }));
  const groups = new Map(fused.groups.map((group) => [group.root, group]));
  for (const node of order) {
    const stage = stages[level.get(node)!]!;
    const group = groups.get(node);
    if (group !== undefined) {
      const own = parts.has(node) ? { parts: parts.get(node)! } : {};
      const work = lower(group, fused, scalars, target).map(
        (kernel): Work => ({ kind: 'kernel', kernel: { ...kernel, ...own } }),
      );
      (isShared(layouts.get(node)) ? stage.once : stage.leaf).push(...work);
    }
    if (node.op.name === 'leafSum') {
      const x = stored(node.inputs.x!);
      stages[level.get(x)!]!.leaf.push({ kind: 'accumulate', sum: node });
      stages[update!]!.once.push({ kind: 'finish', sum: node });
    }
    if (node.op.name === 'gatherLeaves') stages[level.get(node)! - 1]!.gather.push(node);
    if (node.op.name === 'gatherSequences') stages[level.get(stored(node.inputs.x!))!]!.keep.push(node);
  }
  return { stages, update, stageOf: (node) => level.get(node)! };
}

/** How many exchanges come before a node; gradient sums come after all leaf work. */
function levels(
  order: readonly Tensor[],
  sums: readonly Tensor[],
): { level: Map<Tensor, number>; update: number | undefined } {
  const level = new Map<Tensor, number>();
  const afterSums = new Set<Tensor>();
  const of = (node: Tensor): number =>
    Math.max(0, ...Object.values(node.inputs).map((source) => level.get(source)!));
  let leafEnd = 0;
  for (const node of order) {
    const isLate = node.op.name === 'leafSum' || node.op.name === 'gatherSequences';
    if (isLate || Object.values(node.inputs).some((source) => afterSums.has(source))) {
      afterSums.add(node);
      level.set(node, of(node));
      continue;
    }
    level.set(node, of(node) + (node.op.name === 'gatherLeaves' ? 1 : 0));
    if (node.phase !== 'U')
      leafEnd = Math.max(leafEnd, level.get(node)! - (node.op.name === 'gatherLeaves' ? 1 : 0));
  }
  if (sums.length === 0 && afterSums.size === 0) return { level, update: undefined };
  const update = leafEnd + 1;
  for (const node of afterSums) level.set(node, update);
  return { level, update };
}

export type { Stored };
