/** The axes an op declares, read for its tests. */
import { elementCount } from '../host-tensor.ts';
import type { AnyOp } from '../op.ts';
import type { Spec } from '../tensor.ts';

export interface Axis {
  readonly name: string;
  /** Marked `~`: a window slides along it. */
  readonly window: boolean;
}

export interface Axes {
  readonly inputs: Readonly<Record<string, readonly Axis[]>>;
  readonly output: readonly Axis[];
}

export function parseAxes(op: AnyOp, attrs: unknown): Axes {
  const text = typeof op.axes === 'function' ? op.axes(attrs) : (op.axes ?? '');
  const [left = '', right = ''] = text.split('->');
  const list = (part: string): Axis[] =>
    [...part.matchAll(/([^\s~]+)(~?)/g)].map(([, name, mark]) => ({ name: name!, window: mark === '~' }));
  const parts = left.split(',');
  return {
    inputs: Object.fromEntries(op.inputs.map((name, i) => [name, list(parts[i] ?? '')])),
    output: list(right),
  };
}

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
