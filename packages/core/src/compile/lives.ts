import { type Graph, roots, topologicalOrder } from '../graph.ts';
import { Parameter } from '../parameter.ts';
import type { SlotScope } from '../program.ts';
import type { Tensor } from '../tensor.ts';
import { isShared, type Sharded } from './layout.ts';
import type { Stages, Work } from './split.ts';
import { type Stored, stored } from './stored.ts';

/** What takes memory: a stored tensor or, by name, the gradient sums and leaves' outputs. */
export type Storage = Stored | string;

/** First and last position of a piece of storage, and where it lives. */
export interface Range {
  scope: SlotScope;
  first: number;
  last: number;
}

/**
 * Live ranges of everything stored, in positions of the program: the work of a stage in order, first what runs once,
 * then what runs for a leaf.
 */
export function liveRanges(sharded: Sharded, stages: Stages): Map<Storage, Range> {
  return new Lives(sharded, stages).measure();
}

/** Outputs of which a stage computes a piece: a leaf's, or where leaves share it a sequence's. */
export function pieceOutputs(
  { graph, layouts }: Sharded,
  stages: Stages,
  stage: Stages['stages'][number],
): { readonly value: Tensor; readonly key: string; readonly shared: boolean }[] {
  const index = stages.stages.indexOf(stage);
  return Object.entries(graph.outputs)
    .filter(([, value]) => layouts.get(value) !== 'whole' && stages.stageOf(stored(value)) === index)
    .map(([name, value]) => ({ value, key: `output ${name}`, shared: isShared(layouts.get(value)) }));
}

class Lives {
  private readonly sharded: Sharded;
  private readonly stages: Stages;
  private readonly assigned: ReadonlySet<Tensor>;
  private readonly ranges = new Map<Storage, Range>();

  constructor(sharded: Sharded, stages: Stages) {
    this.sharded = sharded;
    this.stages = stages;
    this.assigned = new Set(sharded.graph.assignments.map(({ value }) => value));
  }

  measure(): Map<Storage, Range> {
    const { graph, layouts } = this.sharded;
    let position = 0;
    const order = orderOf(graph);
    for (const node of order) {
      if (node.op.name === 'input')
        this.touch(node, layouts.get(node) === 'batch' ? 'leaf' : 'shared', 0).last =
          Number.POSITIVE_INFINITY;
      if (node instanceof Parameter) this.touch(node, 'state', 0);
    }
    for (const { parameter } of graph.assignments) this.touch(parameter, 'state', 0);
    if (order.some((node) => node.op.name === 'leafSum'))
      for (const key of ['sums', 'peaks', 'scales'])
        this.touch(key, 'shared', 0).last = Number.POSITIVE_INFINITY;
    for (const stage of this.stages.stages) {
      for (const work of stage.once) this.visit(work, 'shared', ++position, position);
      const start = position + 1;
      const end = position + stage.leaf.length + 1;
      for (const work of stage.leaf) this.visit(work, 'scratch', ++position, end);
      for (const node of stage.gather) {
        this.touch(stored(node.inputs.x!), 'scratch', end);
        this.touch(node, 'shared', start).last = end;
      }
      for (const node of stage.keep) {
        this.touch(stored(node.inputs.x!), 'shared', start);
        this.touch(node, 'shared', 0); // round after round adds to it
      }
      for (const { value, key, shared } of pieceOutputs(this.sharded, this.stages, stage)) {
        this.touch(stored(value), shared ? 'shared' : 'scratch', end);
        this.touch(key, 'shared', 0).last = Number.POSITIVE_INFINITY;
      }
      position = end;
    }
    for (const value of Object.values(graph.outputs)) {
      if (layouts.get(value) === 'whole')
        this.touch(stored(value), 'shared', position).last = Number.POSITIVE_INFINITY;
    }
    this.keepAcrossStages();
    return this.ranges;
  }

  private visit(work: Work, scope: SlotScope, position: number, sharedUntil: number): void {
    const [reads, writes] = touched(work);
    for (const x of reads) {
      const range = this.touch(x, scope, position);
      if (range.scope === 'shared') range.last = Math.max(range.last, sharedUntil);
    }
    if (writes !== undefined) this.touch(writes, scope, position);
  }

  private touch(x: Storage, scope: SlotScope, position: number): Range {
    const known = this.ranges.get(x);
    if (known !== undefined) {
      known.last = Math.max(known.last, position);
      return known;
    }
    const isNext = typeof x !== 'string' && !('of' in x) && this.assigned.has(x);
    const range = { scope: isNext ? ('next' as const) : scope, first: position, last: position };
    this.ranges.set(x, range);
    return range;
  }

  /** A leaf's tensor that is read in a later stage is kept for each leaf; one that is not is scratch. */
  private keepAcrossStages(): void {
    let position = 0;
    for (const stage of this.stages.stages) {
      const end = position + stage.once.length + stage.leaf.length + 1;
      for (const range of this.ranges.values()) {
        if (range.scope === 'scratch' && range.first > position && range.first <= end && range.last > end)
          range.scope = 'leaf';
      }
      position = end;
    }
  }
}

const orders = new WeakMap<Graph, readonly Tensor[]>();

/** The order of a graph, found once: plans are measured hundreds of times while one is chosen. */
function orderOf(graph: Graph): readonly Tensor[] {
  const order = orders.get(graph) ?? topologicalOrder(roots(graph));
  orders.set(graph, order);
  return order;
}

/** What work reads and writes. */
export function touched(work: Work): readonly [reads: readonly Stored[], writes: Stored | undefined] {
  if (work.kind === 'kernel') return [work.kernel.reads, work.kernel.writes];
  return work.kind === 'accumulate' ? [[stored(work.sum.inputs.x!)], undefined] : [[], work.sum];
}
