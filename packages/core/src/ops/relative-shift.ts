/**
 * Logits by relative distance turned into logits by key (Dai et al. 2019, Transformer-XL, as Enformer uses it):
 * y[i, j] = x[i, j − i + T − 1] for T queries.
 */
import { defineOp, type Reference } from '../op.ts';
import { shapeText, type Tensor } from '../tensor.ts';

const shiftOp = defineOp()({
  name: 'relativeShift',
  inputs: ['x'],
  axes: 'batch heads _ _ -> batch heads _ _',
  infer: ({ x }) => {
    const [batch, heads, queries, distances] = x.shape as [number, number, number, number];
    if (x.shape.length !== 4 || distances < queries) {
      throw new Error(
        `relativeShift: x is ${shapeText(x.shape)}; it must be [batch, heads, queries, queries + keys − 1]`,
      );
    }
    return { shape: [batch, heads, queries, distances - queries + 1], dtype: 'f32' };
  },
  kernel: {
    kind: 'view',
    index: (i, x, y) => {
      const [queries, distances, keys] = [x.shape[2]!, x.shape[3]!, y.shape[3]!];
      const row = `${i} / ${keys}u`;
      return `${row} * ${distances}u + ${i} % ${keys}u + (${queries - 1}u - ${row} % ${queries}u)`;
    },
  },
  linear: true,
  gradient: (dy) => ({ x: () => unshiftOp({ x: dy }, undefined) }),
  reference: ({ x }) => {
    const [batch, heads, queries, distances] = x.shape as [number, number, number, number];
    const keys = distances - queries + 1;
    return Float64Array.from({ length: batch * heads * queries * keys }, (_, i) => {
      const row = Math.floor(i / keys);
      return x.data[row * distances + (i % keys) - (row % queries) + queries - 1]!;
    });
  },
  samples: [
    { inputs: { x: [2, 3, 7, 13] }, attrs: undefined },
    { inputs: { x: [1, 2, 3, 7] }, attrs: undefined },
  ],
});

const unshiftOp = defineOp()({
  name: 'relativeUnshift',
  inputs: ['x'],
  axes: 'batch heads _ _ -> batch heads _ _',
  infer: ({ x }) => {
    const [batch, heads, queries, keys] = x.shape as [number, number, number, number];
    return { shape: [batch, heads, queries, queries + keys - 1], dtype: 'f32' };
  },
  kernel: {
    kind: 'map',
    index: (_, __, { i, y, specs }) => {
      const [queries, keys, distances] = [specs.x!.shape[2]!, specs.x!.shape[3]!, y.shape[3]!];
      const row = `${i} / ${distances}u`;
      const key = `i32(${i} % ${distances}u + ${row} % ${queries}u) - ${queries - 1}`;
      return `${row} * ${keys}u + u32(clamp(${key}, 0, ${keys - 1}))`;
    },
    expression: ({ x }, _, { i, y, specs }) => {
      const [queries, keys, distances] = [specs.x!.shape[2]!, specs.x!.shape[3]!, y.shape[3]!];
      const shifted = `${i} % ${distances}u + ${i} / ${distances}u % ${queries}u`;
      return `select(0.0, ${x}, ${shifted} >= ${queries - 1}u && ${shifted} < ${queries - 1 + keys}u)`;
    },
  },
  linear: true,
  gradient: (dy) => ({ x: () => relativeShift(dy) }),
  reference: ({ x }) => unshifted(x),
  samples: [
    { inputs: { x: [2, 3, 7, 7] }, attrs: undefined },
    { inputs: { x: [1, 2, 3, 5] }, attrs: undefined },
  ],
});

function unshifted({ shape, data }: Reference): Float64Array {
  const [batch, heads, queries, keys] = shape as [number, number, number, number];
  const distances = queries + keys - 1;
  return Float64Array.from({ length: batch * heads * queries * distances }, (_, i) => {
    const row = Math.floor(i / distances);
    const key = (i % distances) + (row % queries) - (queries - 1);
    return key < 0 || key >= keys ? 0 : data[row * keys + key]!;
  });
}

/** x `[batch, heads, queries, queries + keys − 1]`, by distance → `[batch, heads, queries, keys]`, by key. */
export function relativeShift(x: Tensor): Tensor {
  return shiftOp({ x }, undefined);
}
