import { type Graph, roots, topologicalOrder } from '../graph.ts';
import { elementCount } from '../host-tensor.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { partsOf, type Sharded } from './layout.ts';
import type { Storage } from './lives.ts';
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

export function layOutSums(sums: readonly Tensor[]): SumLayout {
  let total = 0;
  const offsets = sums.map((sum) => {
    const offset = total;
    total += Math.ceil(elementCount(sum.shape) / SUM_ALIGNMENT) * SUM_ALIGNMENT;
    return offset;
  });
  return { sums, offsets, total };
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
