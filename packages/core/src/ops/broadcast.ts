import { elementCount } from '../host-tensor.ts';
import type { Named, Reference } from '../op.ts';
import { type DType, type Spec, shapeText, type Tensor } from '../tensor.ts';
import { sum } from './reduce.ts';
import { reshape } from './shape.ts';

/** The NumPy broadcast of shapes. @throws naming both shapes when an axis differs and neither is 1. */
export function broadcastShapes(name: string, a: readonly number[], b: readonly number[]): readonly number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const x = a[axis - rank + a.length] ?? 1;
    const y = b[axis - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new Error(
        `${name}: a is ${shapeText(a)} but b is ${shapeText(b)}; axis ${axis} must be ${x}, ${y} or 1 in both`,
      );
    }
    return x === 1 ? y : x;
  });
}

/** `infer` of an element-by-element op of any inputs. */
export function broadcastSpec(
  name: string,
  inputs: Readonly<Record<string, Spec>>,
  dtype: DType = 'f32',
): Spec {
  const shape = Object.values(inputs).reduce<readonly number[]>(
    (out, { shape }) => broadcastShapes(name, out, shape),
    [],
  );
  return { shape, dtype };
}

/** Flat index into an input of shape `x` behind flat output index `i` of shape `y`. */
export function broadcastIndex(x: readonly number[], y: readonly number[], i: number): number {
  let index = 0;
  let stride = 1;
  let rest = i;
  for (let axis = y.length - 1; axis >= 0; axis--) {
    const position = rest % y[axis]!;
    rest = Math.floor(rest / y[axis]!);
    const size = x[axis - y.length + x.length] ?? 1;
    if (size !== 1) index += position * stride;
    stride *= size;
  }
  return index;
}

/** The float64 reference of an element-by-element op. */
export function mapReference<N extends readonly string[]>(
  value: (x: Named<N, number>) => number,
): (inputs: Named<N, Reference>) => Float64Array {
  return (inputs) => {
    const entries = Object.entries(inputs as Readonly<Record<string, Reference>>);
    const shape = entries.reduce<readonly number[]>(
      (out, [, t]) => broadcastShapes('reference', out, t.shape),
      [],
    );
    return Float64Array.from({ length: elementCount(shape) }, (_, i) =>
      value(
        Object.fromEntries(entries.map(([n, t]) => [n, t.data[broadcastIndex(t.shape, shape, i)]])) as Named<
          N,
          number
        >,
      ),
    );
  };
}

/** Sums a cotangent over the axes its input x was broadcast along: → the shape of x. */
export function sumTo(dy: Tensor, x: Spec): Tensor {
  const extra = dy.shape.length - x.shape.length;
  const repeated = dy.shape.map((size, axis) => axis < extra || x.shape[axis - extra] !== size);
  let total = dy;
  for (let to = dy.shape.length; to > 0; to--) {
    if (!repeated[to - 1]) continue;
    let from = to - 1;
    while (from > 0 && repeated[from - 1]) from--;
    total = sum(total, { from, to }); // neighbouring axes in one pass, the last ones first: earlier positions stay
    to = from + 1;
  }
  return total.shape.length === x.shape.length ? total : reshape(total, [-1, ...x.shape.slice(1)]);
}
