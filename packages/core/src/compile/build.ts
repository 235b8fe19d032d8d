import { type Graph, roots, topologicalOrder } from '../graph.ts';
import { elementCount } from '../host-tensor.ts';
import type { KernelTarget } from '../kernel.ts';
import type { Program, ProgramInput } from '../program.ts';
import type { Precision } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { Assembly, inputSpec, type Parts } from './assembly.ts';
import { bitsId } from './bits-id.ts';
import { chooseRecompute, type MemoryOptions } from './choose-recompute.ts';
import { fuse } from './fuse.ts';
import { storeHalves } from './halves.ts';
import { updateInPlace } from './in-place.ts';
import type { Sharded } from './layout.ts';
import { numbered, shortenLives } from './order.ts';
import { shard } from './shard.ts';
import { shardRows } from './shard-rows.ts';
import { simplify } from './simplify.ts';
import { type Stages, split } from './split.ts';
import { layOutSums, leafSums, storageBytes } from './storage-bytes.ts';

/** How a program is fitted to a device: decides memory and speed, never the bits. */
export interface Placement extends MemoryOptions {
  /** Leaves that one device works on; all by default. */
  readonly leavesOnDevice?: number;
  /** Sequences in parts that it works on side by side, so that their parts meet at once; 1 by default. */
  readonly sequencesOnDevice?: number;
  /**
   * Bytes the device binds at once: kernels that touch larger tensors run in windows. No limit by default; `compile` and
   * `distribute` take that of their devices.
   */
  readonly bindingLimit?: number;
}

/** What decides the bits besides the graph: how the batch is cut into leaves, and what kernels are written for. */
export interface LogicalPlan {
  /** Leaves of the batch, where they are whole sequences. */
  readonly leaves: number;
  /** Parts into which each sequence is cut along its rows; 1 for leaves of whole sequences. */
  readonly leavesPerSequence: number;
  readonly target: KernelTarget;
  readonly precision: Precision;
  /** Whether nodes share kernels. */
  readonly fuse: boolean;
}

/**
 * Compiles a traced graph to a program, without a device: simplify, shard, fuse, lower, split, order, recompute, assign memory.
 *
 * Kernels that touch a tensor of more than `bindingLimit` bytes are dispatched in windows, which changes neither the bits
 * nor the `bitsId`: it hashes the kernels as they are without.
 *
 * @throws when the batch does not divide by the leaves, a parameter has no name, a tensor has 2³² elements or more, or the
 *   step does not fit the memory budget.
 */
export function buildProgram(graph: Graph, plan: LogicalPlan, placement: Placement): Program {
  return new Assembly(planParts(graph, plan, placement)).program();
}

/** All of `buildProgram` but the assignment of memory. */
export function planParts(graph: Graph, plan: LogicalPlan, placement: Placement): Parts {
  const step = logicalStep(graph, plan);
  return placeStep(step, leafSums(step.sharded.graph), placement);
}

/** Fits a step to a device: what it computes again, and when. `sums` are those that the device adds to. */
export function placeStep(step: LogicalStep, sums: readonly Tensor[], placement: Placement): Parts {
  const { sharded, facts } = step;
  const { bindingLimit = Number.POSITIVE_INFINITY } = placement;
  const sequencesOnDevice = facts.leavesPerSequence > 1 ? (placement.sequencesOnDevice ?? 1) : 1;
  const leavesOnDevice = (placement.leavesOnDevice ?? sharded.rounds.leaves) * sequencesOnDevice;
  const ordered = { ...step.ordered, sideBySide: sequencesOnDevice > 1 };
  const sumLayout = layOutSums(sums, ordered);
  const bytes = storageBytes(sharded, sumLayout);
  const held = { leavesOnDevice, sequencesOnDevice };
  const stages = chooseRecompute({ sharded, stages: ordered, bytes, ...held }, placement);
  return { ...step, ordered, stages, ...held, sumLayout, bytes, bindingLimit };
}

/** A step whose bits are decided. */
export interface LogicalStep extends Pick<Parts, 'sharded' | 'facts' | 'outputShapes'> {
  readonly inputs: readonly Pick<ProgramInput, 'name' | 'shape' | 'dtype'>[];
  /** Its kernels in the order they run. */
  readonly ordered: Stages;
}

/** Everything that decides the bits, for any placement. */
export function logicalStep(graph: Graph, plan: LogicalPlan): LogicalStep {
  const { leaves, leavesPerSequence } = plan;
  if (leaves > 1 && leavesPerSequence > 1)
    throw new Error(`${leaves} leaves of the batch and ${leavesPerSequence} of each sequence; choose one`);
  const sharded = shardedGraph(simplify(graph), plan);
  checkSizes(sharded.graph);
  const scalars = scalarNames(sharded.graph);
  const fused = fuse(sharded.graph, plan.fuse);
  const stages = updateInPlace(split(sharded, fused, scalars, plan.target), sharded, fused, scalars);
  const order = topologicalOrder(roots(sharded.graph));
  const inputs = order.filter(({ op }) => op.name === 'input').map((node) => inputSpec(node, sharded));
  const { count } = sharded.rounds;
  return {
    sharded,
    inputs,
    facts: {
      leaves: count * sharded.rounds.leaves,
      sequences: inputs[0]?.shape[0] ?? count,
      leavesPerSequence,
      scalars,
      bitsId: bitsId({ plan, scalars, inputs, stages }),
    },
    outputShapes: Object.fromEntries(Object.entries(graph.outputs).map(([name, { shape }]) => [name, shape])),
    ordered: numbered(shortenLives(stages, sharded)),
  };
}

/** Kernels index elements with u32. */
function checkSizes(graph: Graph): void {
  const large = topologicalOrder(roots(graph)).find(({ shape }) => elementCount(shape) >= 2 ** 32);
  if (large === undefined) return;
  throw new Error(
    `${large}: ${elementCount(large.shape)} elements in one leaf, but a tensor holds fewer than ${2 ** 32}; use more leaves or a shorter input`,
  );
}

function shardedGraph(graph: Graph, plan: LogicalPlan): Sharded {
  const { leaves, leavesPerSequence, precision } = plan;
  const sharded = leavesPerSequence === 1 ? shard(graph, leaves) : shardRows(graph, leavesPerSequence);
  return precision === 'f32' ? sharded : storeHalves(sharded, fuse(sharded.graph, plan.fuse));
}

/** Per-step numbers in order of first use; eight fit beside the other immediates. */
function scalarNames(graph: Graph): string[] {
  const nodes = topologicalOrder(roots(graph)).filter((node) => node.op.name === 'scalar');
  const names = [...new Set(nodes.map((node) => (node.attrs as { name: string }).name))];
  if (names.length > 8)
    throw new Error(`${names.length} per-step scalars (${names.join(', ')}); at most 8 fit in immediates`);
  return names;
}
