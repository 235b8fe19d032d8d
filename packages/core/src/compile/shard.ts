import { axesOf } from '../axes.ts';
import { type Graph, rewrite } from '../graph.ts';
import { gatherLeaves } from '../ops/leaf-sum.ts';
import { Parameter } from '../parameter.ts';
import { withScope } from '../scope.ts';
import { Tensor } from '../tensor.ts';
import { checkAddends, type Layout, onInputs, type Sharded } from './layout.ts';

/**
 * Splits the leading axis of every input into `leaves` and rebuilds the graph for one leaf. Where an op folds the
 * leaves themselves, an exchange that gathers them in logical order is put in before it.
 *
 * @throws when a batch does not divide by the leaves, or an unfinished sum is used by an op that is not linear.
 */
export function shard(graph: Graph, leaves: number): Sharded {
  const layouts = new Map<Tensor, Layout>();
  const sharded = rewrite(graph, (node, inputs) => {
    const { tensor, layout } = shardNode(node, inputs, layouts, leaves);
    layouts.set(tensor, layout);
    return tensor;
  });
  return { graph: sharded, layouts, parts: new Map(), rounds: { count: 1, leaves } };
}

type Shard = { readonly tensor: Tensor; readonly layout: Layout };

function shardNode(
  node: Tensor,
  inputs: Readonly<Record<string, Tensor>>,
  layouts: Map<Tensor, Layout>,
  leaves: number,
): Shard {
  if (node.op.name === 'input') return shardInput(node, leaves);
  if (node.op.kernel.kind === 'source' || node instanceof Parameter) return { tensor: node, layout: 'whole' };
  const layout = outputLayout(node, inputs, layouts);
  if (node.op.combine !== true || layout === 'whole') return { tensor: onInputs(node, inputs), layout };
  const gathered = Object.fromEntries(
    Object.entries(inputs).map(([name, x]) => {
      if (layouts.get(x) !== 'batch') return [name, x];
      const all = withScope(node, () => gatherLeaves({ x }, { leaves }));
      layouts.set(all, 'whole');
      return [name, all];
    }),
  );
  return { tensor: onInputs(node, gathered), layout: 'whole' };
}

function shardInput(node: Tensor, leaves: number): Shard {
  const [batch = 1, ...rest] = node.shape;
  if (batch % leaves !== 0) {
    const { name } = node.attrs as { name: string };
    throw new Error(
      `input ${name}: a batch of ${batch} does not divide into ${leaves} leaves; choose a multiple of ${leaves}`,
    );
  }
  const spec = { shape: [batch / leaves, ...rest], dtype: node.dtype };
  return {
    tensor: new Tensor(node.op, {}, { ...(node.attrs as object), spec }, spec, node),
    layout: 'batch',
  };
}

function outputLayout(
  node: Tensor,
  inputs: Readonly<Record<string, Tensor>>,
  layouts: ReadonlyMap<Tensor, Layout>,
): Layout {
  const held = Object.entries(inputs).map(([name, source]) => [name, layouts.get(source)!] as const);
  const split = held.filter(([, layout]) => layout === 'batch').map(([name]) => name);
  const sums = held.filter(([, layout]) => layout === 'partial');
  if (sums.length > 0 || node.op.name === 'leafSum') checkAddends(node, held);
  if (node.op.kernel.kind === 'exchange') return 'whole';
  if (sums.length > 0) return 'partial';
  if (split.length === 0) return 'whole';
  if (node.op.kernel.kind === 'map' && node.op.axes === undefined) return 'batch';
  const axes = axesOf(node);
  const leading = new Set(split.map((name) => axes.inputs[name]![0]?.name));
  if (leading.size !== 1)
    throw new Error(`${node}: its inputs are split along different axes (${[...leading].join(', ')})`);
  const [axis] = leading;
  if (axis === '_') {
    throw new Error(
      `${node}: works along the batch axis, which leaves split; put another axis first, or work along that`,
    );
  }
  if (axes.output[0]?.name === axis) return 'batch';
  if (axes.output.some(({ name }) => name === axis))
    throw new Error(`${node}: moves the batch axis; keep it leading`);
  return 'partial';
}
