import { defineOp, type OpCall } from '../op.ts';
import type { Tensor } from '../tensor.ts';

const op = defineOp<{ name: string }>()({
  name: 'leafSum',
  inputs: ['x'],
  infer: ({ x }) => x,
  kernel: { kind: 'exchange', exchange: 'sum' },
});

/**
 * The sum over all leaves of a gradient, added as 64-bit integers so that no order of leaves, ranks or microbatches
 * can change a bit. `name` is the parameter the gradient belongs to.
 */
export function leafSum(x: Tensor, name: string): Tensor {
  return op({ x }, { name });
}

/** The parameter whose gradient a `leafSum` adds up. */
export const parameterOf = (sum: Tensor): string => (sum.attrs as { name: string }).name;

export interface GatherAttrs {
  readonly leaves: number;
  /** Each leaf needs one of the equal parts of a leaf's piece, in their order, and no other. */
  readonly addressed?: boolean;
  /** Each leaf needs the pieces of so many leaves before and after it, and no others; of all where this is not given. */
  readonly reach?: number;
}

/** Put in by the shard pass: leaves' pieces of x gathered along the leading axis, in logical order. */
export const gatherLeaves: OpCall<readonly ['x'], GatherAttrs> = defineOp<GatherAttrs>()({
  name: 'gatherLeaves',
  inputs: ['x'],
  infer: ({ x }, { leaves }) => ({ shape: [x.shape[0]! * leaves, ...x.shape.slice(1)], dtype: x.dtype }),
  kernel: { kind: 'exchange', exchange: 'combine' },
});
