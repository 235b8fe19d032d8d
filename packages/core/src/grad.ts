import { topologicalOrder } from './graph.ts';
import { add } from './ops/arithmetic.ts';
import { Parameter } from './parameter.ts';
import { withScope } from './scope.ts';
import type { Tensor } from './tensor.ts';

/**
 * Gradients of `sum(seed · output)` with respect to each target, as more graph.
 * Gradients of parameters are recorded in phase W, all others in phase I, under the layer path of the forward node.
 *
 * @throws when an op on the way has no gradient rule, or a target does not influence the output.
 */
export function gradients(output: Tensor, seed: Tensor, targets: readonly Tensor[]): Tensor[] {
  const order = topologicalOrder([output]);
  const onPath = influencedBy(order, new Set(targets));
  const cotangents = new Map<Tensor, Tensor>([[output, seed]]);
  for (const node of order.toReversed()) {
    const dy = cotangents.get(node);
    if (dy === undefined || !onPath.has(node) || Object.keys(node.inputs).length === 0) continue;
    for (const [source, dx] of inputGradients(node, dy, onPath)) {
      const sum = cotangents.get(source);
      const { path } = source;
      cotangents.set(source, sum === undefined ? dx : withScope({ path, phase: 'I' }, () => add(sum, dx)));
    }
  }
  return targets.map((target) => {
    const dx = cotangents.get(target);
    if (dx === undefined) {
      const name = target instanceof Parameter ? target.name : String(target);
      throw new Error(`${name} does not influence ${output}, so it has no gradient; freeze it or remove it`);
    }
    return dx;
  });
}

function inputGradients(node: Tensor, dy: Tensor, onPath: ReadonlySet<Tensor>): [Tensor, Tensor][] {
  if (node.op.gradient === undefined) {
    throw new Error(`${node} has no gradient rule; add 'gradient' to the op or stop the gradient before it`);
  }
  const rules = withScope({ path: node.path, phase: 'I' }, () =>
    node.op.gradient!(dy, node.inputs, node.attrs, node),
  );
  return Object.entries(node.inputs).flatMap(([name, source]): [Tensor, Tensor][] => {
    const rule = rules[name];
    if (rule === undefined || !onPath.has(source)) return [];
    const phase = source instanceof Parameter ? 'W' : 'I';
    return [[source, withScope({ path: node.path, phase }, rule)]];
  });
}

/** The nodes that depend on any of the targets, and the targets. */
function influencedBy(order: readonly Tensor[], targets: ReadonlySet<Tensor>): ReadonlySet<Tensor> {
  const found = new Set<Tensor>();
  for (const node of order) {
    if (targets.has(node) || Object.values(node.inputs).some((source) => found.has(source))) found.add(node);
  }
  return found;
}
