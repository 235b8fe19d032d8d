import type { Tensor } from '../tensor.ts';

/** A tensor that is stored, or the partial results of a reduction in two stages. */
export type Stored = Tensor | Partials;

export interface Partials {
  readonly of: Tensor;
  readonly shape: readonly number[];
  readonly dtype: 'f32';
}

/** Whether a node has the elements of its input in their order, so that it needs no storage. */
export function isAlias(node: Tensor): boolean {
  return node.op.kernel.kind === 'view' && node.op.kernel.alias === true;
}

/** The tensor whose storage holds these elements. */
export function stored(node: Tensor): Tensor {
  return isAlias(node) ? stored(node.inputs[node.op.inputs[0]!]!) : node;
}

/** The tensor that is stored, or whose partial results are. */
export const nodeOf = (x: Stored): Tensor => ('of' in x ? x.of : x);
