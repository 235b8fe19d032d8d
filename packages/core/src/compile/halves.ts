/**
 * Mixed precision: what matrix products and convolutions read and give of a batch is stored as f16, half the bytes.
 * Everything is computed in f32; weights, their gradients, statistics, losses, outputs and optimizer state stay f32.
 */

import { rewrite, roots, topologicalOrder } from '../graph.ts';
import type { Range } from '../op.ts';
import { Tensor } from '../tensor.ts';
import type { Fused } from './fuse.ts';
import type { Layout, Sharded } from './layout.ts';
import { stored } from './stored.ts';

/** The same graph, in which tensors that are stored as f16 say so. */
export function storeHalves(sharded: Sharded, fused: Fused): Sharded {
  const halves = chooseHalves(sharded, fused);
  const layouts = new Map<Tensor, Layout>();
  const parts = new Map<Tensor, Range>();
  const graph = rewrite(sharded.graph, (node, inputs) => {
    const spec = { shape: node.shape, dtype: halves.has(node) ? ('f16' as const) : node.dtype };
    const isSource = node.op.kernel.kind === 'source';
    const next = isSource ? node : new Tensor(node.op, inputs, node.attrs, spec, node);
    layouts.set(next, sharded.layouts.get(node)!);
    const held = sharded.parts.get(node);
    if (held !== undefined) parts.set(next, held);
    return next;
  });
  return { ...sharded, graph, layouts, parts };
}

const ACTIVATIONS: ReadonlySet<Layout> = new Set(['batch', 'rows', 'sequence']);

function chooseHalves({ graph, layouts }: Sharded, { groups }: Fused): ReadonlySet<Tensor> {
  const order = topologicalOrder(roots(graph));
  const inputsOf = (nodes: readonly Tensor[]): Set<Tensor> =>
    new Set(nodes.flatMap(({ inputs }) => Object.values(inputs).map(stored)));
  const multiplied = inputsOf(order.filter(({ op }) => op.product === true));
  const exchanged = inputsOf(order.filter(({ op }) => op.kernel.kind === 'exchange'));
  const kept = new Set(roots(graph).map(stored));
  const chosen = groups.filter(
    ({ root, core }) =>
      (core?.op.product === true || multiplied.has(root)) &&
      core?.op.kernel.kind !== 'reduce' && // its stages may go through its result
      ACTIVATIONS.has(layouts.get(root)!) &&
      root.phase !== 'W' &&
      root.dtype === 'f32' &&
      !exchanged.has(root) &&
      !kept.has(root),
  );
  return new Set(chosen.map(({ root }) => root));
}
