import { type Graph, rewrite } from '../graph.ts';
import { Parameter } from '../parameter.ts';
import { Tensor } from '../tensor.ts';

/**
 * Merges nodes that compute the same thing: equal op, inputs, attributes, layer path and phase. Dead nodes need no pass,
 * since only what outputs and assignments reach is ever visited.
 */
export function simplify(graph: Graph): Graph {
  const ids = new Map<Tensor, number>();
  const seen = new Map<string, Tensor>();
  const id = (node: Tensor): number => {
    if (!ids.has(node)) ids.set(node, ids.size);
    return ids.get(node)!;
  };
  return rewrite(graph, (node, inputs) => {
    if (node instanceof Parameter) return node;
    const sources = Object.entries(inputs).map(([name, source]) => `${name}:${id(source)}`);
    const key = [
      node.op.name,
      node.path,
      node.phase,
      JSON.stringify(node.attrs),
      node.dtype,
      ...sources,
    ].join('|');
    const same = seen.get(key);
    if (same !== undefined) return same;
    const kept = node.op.kernel.kind === 'source' ? node : rebuilt(node, inputs);
    seen.set(key, kept);
    return kept;
  });
}

/** The node on other inputs of the same shapes. */
function rebuilt(node: Tensor, inputs: Readonly<Record<string, Tensor>>): Tensor {
  return new Tensor(node.op, inputs, node.attrs, node, node);
}
