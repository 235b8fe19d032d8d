import { defineOp } from '../op.ts';
import { constant } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { broadcastSpec, mapReference, sumTo } from './broadcast.ts';

/** A tensor, or a number known when tracing. */
export type Value = Tensor | number;

/** The tensor itself, or the number as a constant. */
export function asTensor(value: Value): Tensor {
  return typeof value === 'number' ? constant(value) : value;
}

const pairs = [
  { inputs: { a: [3, 7], b: [3, 7] }, attrs: undefined, range: { b: [0.5, 2] } },
  { inputs: { a: [2, 5, 3], b: [3] }, attrs: undefined, range: { b: [0.5, 2] } },
  { inputs: { a: [4, 3], b: [] }, attrs: undefined, range: { b: [0.5, 2] } },
  { inputs: { a: [2, 5, 3, 2], b: [2, 1, 3, 1] }, attrs: undefined, range: { b: [0.5, 2] } },
] as const;

const addOp = defineOp()({
  name: 'add',
  inputs: ['a', 'b'],
  infer: (inputs) => broadcastSpec('add', inputs),
  kernel: { kind: 'map', expression: ({ a, b }) => `(${a} + ${b})` },
  linear: true,
  gradient: (dy, { a, b }) => ({ a: () => sumTo(dy, a), b: () => sumTo(dy, b) }),
  reference: mapReference<['a', 'b']>(({ a, b }) => a + b),
  samples: pairs,
});
const subtractOp = defineOp()({
  name: 'subtract',
  inputs: ['a', 'b'],
  infer: (inputs) => broadcastSpec('subtract', inputs),
  kernel: { kind: 'map', expression: ({ a, b }) => `(${a} - ${b})` },
  linear: true,
  gradient: (dy, { a, b }) => ({ a: () => sumTo(dy, a), b: () => sumTo(negate(dy), b) }),
  reference: mapReference<['a', 'b']>(({ a, b }) => a - b),
  samples: pairs,
});
const multiplyOp = defineOp()({
  name: 'multiply',
  inputs: ['a', 'b'],
  infer: (inputs) => broadcastSpec('multiply', inputs),
  kernel: { kind: 'map', expression: ({ a, b }) => `(${a} * ${b})` },
  linear: true,
  gradient: (dy, { a, b }) => ({ a: () => sumTo(multiply(dy, b), a), b: () => sumTo(multiply(dy, a), b) }),
  reference: mapReference<['a', 'b']>(({ a, b }) => a * b),
  samples: pairs,
});
const divideOp = defineOp()({
  name: 'divide',
  inputs: ['a', 'b'],
  infer: (inputs) => broadcastSpec('divide', inputs),
  kernel: { kind: 'map', expression: ({ a, b }) => `(${a} / ${b})` },
  gradient: (dy, { a, b }, _, y) => ({
    a: () => sumTo(divide(dy, b), a),
    b: () => sumTo(negate(divide(multiply(dy, y), b)), b),
  }),
  reference: mapReference<['a', 'b']>(({ a, b }) => a / b),
  samples: pairs,
});
const negateOp = defineOp()({
  name: 'negate',
  inputs: ['x'],
  infer: (inputs) => broadcastSpec('negate', inputs),
  kernel: { kind: 'map', expression: ({ x }) => `(-${x})` },
  linear: true,
  gradient: (dy) => ({ x: () => negate(dy) }),
  reference: mapReference<['x']>(({ x }) => -x),
  samples: [{ inputs: { x: [5, 3] }, attrs: undefined }],
});

/** a + b, broadcast as in NumPy. */
export function add(a: Value, b: Value): Tensor {
  return addOp({ a: asTensor(a), b: asTensor(b) }, undefined);
}

/** a − b, broadcast as in NumPy. */
export function subtract(a: Value, b: Value): Tensor {
  return subtractOp({ a: asTensor(a), b: asTensor(b) }, undefined);
}

/** a · b, element by element, broadcast as in NumPy. */
export function multiply(a: Value, b: Value): Tensor {
  return multiplyOp({ a: asTensor(a), b: asTensor(b) }, undefined);
}

/** a / b, element by element, broadcast as in NumPy. */
export function divide(a: Value, b: Value): Tensor {
  return divideOp({ a: asTensor(a), b: asTensor(b) }, undefined);
}

/** −x. */
export function negate(x: Tensor): Tensor {
  return negateOp({ x }, undefined);
}
