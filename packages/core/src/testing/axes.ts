import { parseAxes } from '../axes.ts';
import { elementCount } from '../host-tensor.ts';
import type { AnyOp } from '../op.ts';
import type { Spec } from '../tensor.ts';

/** Of partial sums (an output axis called `+`, always the first) only the total is defined. */
export function total(
  op: AnyOp,
  attrs: unknown,
  { shape }: Spec,
  values: Float32Array | Float64Array,
): Float64Array {
  if (!hasPartialSums(op, attrs)) return Float64Array.from(values);
  const totals = new Float64Array(elementCount(shape.slice(1)));
  for (let i = 0; i < values.length; i++) totals[i % totals.length]! += values[i]!;
  return totals;
}

export function hasPartialSums(op: AnyOp, attrs: unknown): boolean {
  return op.axes !== undefined && parseAxes(op, attrs).output[0]?.name === '+';
}
