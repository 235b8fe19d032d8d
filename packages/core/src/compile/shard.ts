import { type Graph, rewrite } from '../graph.ts';
import { gatherLeaves } from '../ops/leaf-sum.ts';
import { Parameter } from '../parameter.ts';
import { withScope } from '../scope.ts';
import { shapeText, Tensor } from '../tensor.ts';

/**
 * What a rank holds of a tensor while it works on one leaf:
 * `batch`, its own rows of the leading axis; `partial`, its addend of a sum over leaves; `whole`, all of it.
 */
export type Layout = 'batch' | 'partial' | 'whole';

export interface Sharded {
  readonly graph: Graph;
  readonly layouts: ReadonlyMap<Tensor, Layout>;
}

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
  return { graph: sharded, layouts };
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

/** The node on leaf inputs; inputs that only gave a shape are dropped, their work is done. */
function onInputs(node: Tensor, inputs: Readonly<Record<string, Tensor>>): Tensor {
  const used = Object.entries(inputs).filter(([name]) => node.op.shapeOnly?.includes(name) !== true);
  return new Tensor(node.op, Object.fromEntries(used), node.attrs, node.op.infer(inputs, node.attrs), node);
}

function outputLayout(
  node: Tensor,
  inputs: Readonly<Record<string, Tensor>>,
  layouts: ReadonlyMap<Tensor, Layout>,
): Layout {
  const held = Object.entries(inputs).map(([name, source]) => [name, layouts.get(source)!] as const);
  const split = held.filter(([, layout]) => layout === 'batch').map(([name]) => name);
  const sums = held.filter(([, layout]) => layout === 'partial');
  if (node.op.name === 'leafSum' && sums.length === 0) {
    throw new Error(
      `${node}: this gradient is not a sum over sequences (it depends on no input); regularise in the optimizer instead`,
    );
  }
  if (node.op.kernel.kind === 'exchange') return 'whole';
  if (sums.length > 0) return unfinishedSum(node, split, held);
  if (split.length === 0) return 'whole';
  if (node.op.kernel.kind === 'map' && node.op.axes === undefined) return 'batch';
  const axes = parseAxes(node);
  const leading = new Set(split.map((name) => axes.inputs.get(name)![0]));
  if (leading.size !== 1)
    throw new Error(`${node}: its inputs are split along different axes (${[...leading].join(', ')})`);
  const [axis] = leading;
  if (axes.output[0] === axis) return 'batch';
  if (axes.output.includes(axis!)) throw new Error(`${node}: moves the batch axis; keep it leading`);
  return 'partial';
}

function unfinishedSum(
  node: Tensor,
  split: readonly string[],
  held: readonly (readonly [string, Layout])[],
): Layout {
  const whole = held.filter(([, layout]) => layout === 'whole').map(([name]) => name);
  const additive = node.op.name === 'add' || node.op.name === 'subtract';
  const sums = held.length - whole.length;
  const adds = additive ? whole.length === 0 : sums === 1; // Σa · Σb is no sum over sequences
  if (node.op.linear === true && split.length === 0 && adds) return 'partial';
  throw new Error(
    `${node}: uses a sum over sequences (${held.map(([name, l]) => `${name} is ${l}`).join(', ')}) before the leaves are added up; only linear ops may, and nothing that is not such a sum may be added to it`,
  );
}

/** The axes declaration of a node, as lists of names without the `~` marks. */
export function parseAxes(node: Tensor): { inputs: Map<string, string[]>; output: string[] } {
  const { axes } = node.op;
  if (axes === undefined) {
    throw new Error(
      `op '${node.op.name}' declares no axes, so ${shapeText(node.shape)} cannot be split over leaves; add 'axes'`,
    );
  }
  const text = typeof axes === 'function' ? axes(node.attrs) : axes;
  const [left = '', right = ''] = text.split('->');
  const list = (part: string): string[] =>
    part
      .trim()
      .replaceAll('~', '')
      .split(/\s+/)
      .filter((name) => name !== '');
  const parts = left.split(',');
  return {
    inputs: new Map(node.op.inputs.map((name, i) => [name, list(parts[i] ?? '')])),
    output: list(right),
  };
}
