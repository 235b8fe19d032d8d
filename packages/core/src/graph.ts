import type { Parameter } from './parameter.ts';
import type { Tensor } from './tensor.ts';

/** New state: after the step, `parameter` holds `value`. */
export interface Assignment {
  readonly parameter: Parameter;
  readonly value: Tensor;
}

/** Everything a function computes: its named outputs and the state it changes. */
export interface Graph {
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly assignments: readonly Assignment[];
}

/** The tensors a graph must produce: outputs, then assigned values. */
export function roots({ outputs, assignments }: Graph): Tensor[] {
  return [...Object.values(outputs), ...assignments.map(({ value }) => value)];
}

/**
 * All nodes behind `ends`, each after its inputs, in the order they were created: forward layer by layer, then backward
 * with each weight gradient right where its cotangent is known, so that little has to be kept alive.
 */
export function topologicalOrder(ends: readonly Tensor[]): Tensor[] {
  const found = new Set<Tensor>(ends);
  for (const node of found) for (const source of Object.values(node.inputs)) found.add(source);
  return [...found].sort((a, b) => a.id - b.id);
}

/** The readers of every node behind `ends`. */
export function readers(order: readonly Tensor[]): Map<Tensor, Tensor[]> {
  const found = new Map<Tensor, Tensor[]>(order.map((node) => [node, []]));
  for (const node of order)
    for (const source of new Set(Object.values(node.inputs))) found.get(source)!.push(node);
  return found;
}

/** A graph of the same form whose nodes are replaced one by one, inputs first. */
export function rewrite(
  graph: Graph,
  replace: (node: Tensor, inputs: Readonly<Record<string, Tensor>>) => Tensor,
): Graph {
  const replaced = new Map<Tensor, Tensor>();
  for (const node of topologicalOrder(roots(graph))) {
    const inputs = Object.fromEntries(
      Object.entries(node.inputs).map(([name, t]) => [name, replaced.get(t)!]),
    );
    replaced.set(node, replace(node, inputs));
  }
  return {
    outputs: Object.fromEntries(Object.entries(graph.outputs).map(([name, t]) => [name, replaced.get(t)!])),
    assignments: graph.assignments.map(({ parameter, value }) => ({
      parameter,
      value: replaced.get(value)!,
    })),
  };
}
