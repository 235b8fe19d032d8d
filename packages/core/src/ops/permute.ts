import { elementCount } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { shapeText, type Tensor } from '../tensor.ts';

interface Attrs {
  readonly order: readonly number[];
}

/** Axis i of y is axis `order[i]` of x: sizes of y, and the step in x along each of its axes. */
function layout(
  x: readonly number[],
  order: readonly number[],
): { readonly sizes: readonly number[]; readonly strides: readonly number[] } {
  return {
    sizes: order.map((axis) => x[axis]!),
    strides: order.map((axis) => elementCount(x.slice(axis + 1))),
  };
}

const op = defineOp<Attrs>()({
  name: 'permute',
  inputs: ['x'],
  axes: ({ order }) =>
    `${order.map((_, axis) => `a${axis}`).join(' ')} -> ${order.map((axis) => `a${axis}`).join(' ')}`,
  infer: ({ x }, { order }) => {
    const sorted = [...order].sort((a, b) => a - b);
    if (order.length !== x.shape.length || sorted.some((axis, i) => axis !== i)) {
      throw new Error(
        `permute: order ${shapeText(order)} for ${shapeText(x.shape)}; name each axis 0…${x.shape.length - 1} once`,
      );
    }
    return { shape: layout(x.shape, order).sizes, dtype: x.dtype };
  },
  kernel: {
    kind: 'view',
    index: (i, x, _, { order }) => {
      const { sizes, strides } = layout(x.shape, order);
      return sizes
        .map((size, axis) => {
          const inner = elementCount(sizes.slice(axis + 1));
          return `${i} / ${inner}u % ${size}u * ${strides[axis]}u`;
        })
        .join(' + ');
    },
  },
  linear: true,
  gradient: (dy, _, { order }) => ({
    x: () =>
      permute(
        dy,
        order.map((__, axis) => order.indexOf(axis)),
      ),
  }),
  reference: ({ x }, { order }) => {
    const { sizes, strides } = layout(x.shape, order);
    return x.data.map((_, i) => {
      let rest = i;
      let from = 0;
      for (let axis = sizes.length - 1; axis >= 0; axis--) {
        from += (rest % sizes[axis]!) * strides[axis]!;
        rest = Math.floor(rest / sizes[axis]!);
      }
      return x.data[from]!;
    });
  },
  samples: [
    { inputs: { x: [2, 5, 3, 4] }, attrs: { order: [0, 2, 3, 1] } },
    { inputs: { x: [7, 3] }, attrs: { order: [1, 0] } },
  ],
});

/** x with its axes in another order, axis i of the result being axis `order[i]` of x. Keep the batch leading. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  return op({ x }, { order });
}
