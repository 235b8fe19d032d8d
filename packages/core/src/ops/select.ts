/** Choosing between values, element by element. NaN in any input, the condition too, is passed on. */
import { defineOp } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import { asTensor, type Value } from './arithmetic.ts';
import { broadcastSpec, mapReference, sumTo } from './broadcast.ts';
import { declarePair, defineCurve, isNan } from './curve.ts';

/** The larger of a and b, broadcast as in NumPy; where they are equal the gradient goes to a. */
export function maximum(a: Value, b: Value): Tensor {
  return maximumOp({ a: asTensor(a), b: asTensor(b) }, undefined);
}

/** The smaller of a and b, broadcast as in NumPy; where they are equal the gradient goes to a. */
export function minimum(a: Value, b: Value): Tensor {
  return minimumOp({ a: asTensor(a), b: asTensor(b) }, undefined);
}

/** x limited to `[low, high]`; the gradient passes where x is inside or on a bound. */
export function clamp(x: Tensor, { low, high }: { readonly low: number; readonly high: number }): Tensor {
  if (low > high) throw new Error(`clamp: low ${low} is above high ${high}; exchange them`);
  return clampOp(x, { low, high });
}

/** 1 where a > b, else 0; has no gradient. */
export function greater(a: Value, b: Value): Tensor {
  return greaterOp({ a: asTensor(a), b: asTensor(b) }, undefined);
}

/** a where the condition is not 0, else b; broadcast as in NumPy. No gradient reaches the condition. */
export function where(condition: Tensor, a: Value, b: Value): Tensor {
  return whereOp({ condition, a: asTensor(a), b: asTensor(b) }, undefined);
}

const clampOp = defineCurve({
  name: 'clamp',
  value: 'let y = clamp(x, low, high);',
  gradient: 'let dx = select(0.0, dy, x >= low && x <= high);',
  reference: (x, { low, high }) => Math.min(Math.max(x, low), high),
  slope: (x, { low, high }) => (x >= low && x <= high ? 1 : 0),
  constants: { low: -2.5, high: 1.5 },
});

const pairs = [
  { inputs: { a: [3, 7], b: [3, 7] }, attrs: undefined },
  { inputs: { a: [2, 5, 3], b: [3] }, attrs: undefined },
  { inputs: { a: [4, 3], b: [] }, attrs: undefined },
] as const;

const maximumOp = defineOp()({
  name: 'maximum',
  inputs: ['a', 'b'],
  infer: (inputs) => broadcastSpec('maximum', inputs),
  kernel: {
    kind: 'map',
    expression: ({ a, b }) => `pair_maximum(${a}, ${b})`,
    declarations: () => declarePair('maximum', 'max(a, b)'),
  },
  gradient: (dy, { a, b }) => ({
    a: () => sumTo(where(greater(b, a), 0, dy), a),
    b: () => sumTo(where(greater(b, a), dy, 0), b),
  }),
  reference: mapReference<['a', 'b']>(({ a, b }) => Math.max(a, b)),
  samples: pairs,
});
const minimumOp = defineOp()({
  name: 'minimum',
  inputs: ['a', 'b'],
  infer: (inputs) => broadcastSpec('minimum', inputs),
  kernel: {
    kind: 'map',
    expression: ({ a, b }) => `pair_minimum(${a}, ${b})`,
    declarations: () => declarePair('minimum', 'min(a, b)'),
  },
  gradient: (dy, { a, b }) => ({
    a: () => sumTo(where(greater(a, b), 0, dy), a),
    b: () => sumTo(where(greater(a, b), dy, 0), b),
  }),
  reference: mapReference<['a', 'b']>(({ a, b }) => Math.min(a, b)),
  samples: pairs,
});
const greaterOp = defineOp()({
  name: 'greater',
  inputs: ['a', 'b'],
  infer: (inputs) => broadcastSpec('greater', inputs),
  kernel: {
    kind: 'map',
    expression: ({ a, b }) => `pair_greater(${a}, ${b})`,
    declarations: () => declarePair('greater', 'select(0.0, 1.0, a > b)'),
  },
  reference: mapReference<['a', 'b']>(({ a, b }) => (Number.isNaN(a + b) ? Number.NaN : a > b ? 1 : 0)),
  samples: pairs,
});
const whereOp = defineOp()({
  name: 'where',
  inputs: ['condition', 'a', 'b'],
  infer: (inputs) => broadcastSpec('where', inputs),
  kernel: {
    kind: 'map',
    expression: ({ condition, a, b }) => `where_nonzero(${condition}, ${a}, ${b})`,
    declarations: () => `fn where_nonzero(condition: f32, a: f32, b: f32) -> f32 {
  return select(select(b, a, condition != 0.0), condition, ${isNan('condition')});
}`,
  },
  gradient: (dy, { condition, a, b }) => ({
    a: () => sumTo(where(condition!, dy, 0), a!),
    b: () => sumTo(where(condition!, 0, dy), b!),
  }),
  reference: mapReference<['condition', 'a', 'b']>(({ condition, a, b }) =>
    Number.isNaN(condition) ? condition : condition !== 0 ? a : b,
  ),
  samples: [
    { inputs: { condition: [3, 7], a: [3, 7], b: [3, 7] }, attrs: undefined, ...zeroOrOne() },
    { inputs: { condition: [2, 5, 3], a: [3], b: [] }, attrs: undefined, ...zeroOrOne() },
  ],
});

function zeroOrOne(): { range: { condition: [number, number] }; integers: ['condition'] } {
  return { range: { condition: [0, 2] }, integers: ['condition'] };
}
