import { type Graph, roots, topologicalOrder } from '../graph.ts';
import { elementCount } from '../host-tensor.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { partsOf, type Sharded } from './layout.ts';
import type { Storage } from './lives.ts';
import type { Stages } from './split.ts';
import { stored } from './stored.ts';

/** Where each tensor's gradient starts among the accumulators, in values. */
export interface SumLayout {
  readonly sums: readonly Tensor[];
  readonly offsets: readonly number[];
  readonly total: number;
}

const SUM_ALIGNMENT = 32; // gradients of 8 bytes a value: 256 bytes, WebGPU's default offset alignment

/** The gradient sums of a graph, in the order of their making. */
export function leafSums(graph: Graph): Tensor[] {
  return topologicalOrder(roots(graph)).filter((node) => node.op.name === 'leafSum');
}

/** They lie in the order in which a leaf's gradients are added to them: those that are finished first, first. */
export function layOutSums(sums: readonly Tensor[], { stages }: Pick<Stages, 'stages'>): SumLayout {
  const added = stages.flatMap(({ leaf }) =>
    leaf.flatMap((work) => (work.kind === 'accumulate' ? work.sum : [])),
  );
  const starts = new Map<Tensor, number>();
  let total = 0;
  for (const sum of added) {
    starts.set(sum, total);
    total += Math.ceil(elementCount(sum.shape) / SUM_ALIGNMENT) * SUM_ALIGNMENT;
  }
  return { sums, offsets: sums.map((sum) => starts.get(sum)!), total };
}

/** Bytes of every piece of storage. */
export function storageBytes(sharded: Sharded, layout: SumLayout): (x: Storage) => number {
  return (x) => {
    if (typeof x !== 'string') return byteLength(x);
    if (x === 'sums') return 8 * layout.total;
    if (x === 'peaks' || x === 'scales') return 4 * layout.sums.length;
    const value = sharded.graph.outputs[x.slice('output '.length)]!;
    const [from, to] = partsOf(sharded, stored(value));
    return byteLength(value) * sharded.rounds.count * (to - from);
  };
}
