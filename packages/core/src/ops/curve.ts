/** Functions of one number applied to every element, with their derivatives: activations, clamp, powers, logarithms. */

import { literal } from '../literal.ts';
import { defineOp, type Sample } from '../op.ts';
import type { Spec, Tensor } from '../tensor.ts';
import { mapReference } from './broadcast.ts';

/** Numbers a curve depends on, known when tracing: the slope of a leaky ReLU, the bounds of a clamp. */
export type Constants = Readonly<Record<string, number>>;

/** A function of one number: as WGSL statements and in float64. */
export interface Curve<C extends Constants> {
  readonly name: string;
  /** WGSL that defines `y` from `x` and the constants. NaN in x is passed on around it. */
  readonly value: string;
  /** WGSL that defines `dx` from `dy`, `x` and the constants. NaN in x is passed on around it. */
  readonly gradient: string;
  readonly reference: (x: number, constants: C) => number;
  readonly slope: (x: number, constants: C) => number;
  /** See `MapKernel.cheap`; false for curves that take an exponential or a logarithm. */
  readonly cheap?: boolean;
  /** Names of the constants and, in the same order, their values in the derived tests. */
  readonly constants?: C;
  /** Where the derived tests draw x from. */
  readonly range?: readonly [number, number];
}

const SAMPLE_RANGE = [-6, 6] as const; // both tails of sigmoid and tanh: e^-6 = 0.0025

/** Declares the ops `name` (x [...] → y [...]) and `nameGradient` (dy, x → dx) and returns the first as a function. */
export function defineCurve<C extends Constants>(curve: Curve<C>): (x: Tensor, constants: C) => Tensor {
  const { name, constants, cheap = true, range = SAMPLE_RANGE } = curve;
  const names = Object.keys(constants ?? {});
  const call = (fn: string, inputs: readonly string[], attrs: C): string =>
    `${fn}(${[...inputs, ...names.map((key) => literal(attrs[key]!))].join(', ')})`;
  const declare = (fn: string, inputs: readonly string[], body: string, result: string): string => {
    const parameters = [...inputs, ...names].map((parameter) => `${parameter}: f32`).join(', ');
    return `fn ${fn}(${parameters}) -> f32 {\n  ${body}\n  return select(${result}, x, ${isNan('x')});\n}`;
  };
  const gradient = defineOp<C>()({
    name: `${name}Gradient`,
    inputs: ['dy', 'x'],
    infer: sameSpec,
    kernel: {
      kind: 'map',
      cheap,
      expression: ({ dy, x }, attrs) => call(`gradient_${name}`, [dy, x], attrs),
      declarations: () => declare(`gradient_${name}`, ['dy', 'x'], curve.gradient, 'dx'),
    },
    reference: (inputs, attrs) =>
      mapReference<['dy', 'x']>(({ dy, x }) => chain(dy, x, curve.slope(x, attrs)))(inputs),
    samples: SHAPES.map((x): Sample<readonly ['dy', 'x'], C> => {
      return { inputs: { dy: x, x }, attrs: constants ?? ({} as C), range: { x: range } };
    }),
  });
  const op = defineOp<C>()({
    name,
    inputs: ['x'],
    infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
    kernel: {
      kind: 'map',
      cheap,
      expression: ({ x }, attrs) => call(`value_${name}`, [x], attrs),
      declarations: () => declare(`value_${name}`, ['x'], curve.value, 'y'),
    },
    gradient: (dy, { x }, attrs) => ({ x: () => gradient({ dy, x }, attrs) }),
    reference: (inputs, attrs) => mapReference<['x']>(({ x }) => curve.reference(x, attrs))(inputs),
    samples: SHAPES.map((x): Sample<readonly ['x'], C> => {
      return { inputs: { x }, attrs: constants ?? ({} as C), range: { x: range } };
    }),
  });
  return (x, attrs) => op({ x }, attrs);
}

/** dy · slope, as the kernels have it: a flat part blocks even NaN in dy, and NaN in x goes through. */
function chain(dy: number, x: number, slope: number): number {
  if (Number.isNaN(x)) return x;
  return slope === 0 ? 0 : dy * slope;
}

const SHAPES = [[2, 53], [1]] as const;

function sameSpec({ x }: { readonly x: Spec }): Spec {
  return { shape: x.shape, dtype: 'f32' };
}

/**
 * WGSL that is true when the f32 expression `x` is NaN. On bits, because drivers may compile `x != x` to false and turn
 * a comparison with a `select` into `max`, and `max(NaN, 0)` is 0: a diverged training run would go on unnoticed.
 */
export function isNan(x: string): string {
  return `(bitcast<u32>(${x}) & 0x7fffffffu) > 0x7f800000u`;
}

/** WGSL of a function of a and b that returns whichever is NaN, else `value`. */
export const declarePair = (name: string, value: string): string => `fn pair_${name}(a: f32, b: f32) -> f32 {
  return select(select(${value}, b, ${isNan('b')}), a, ${isNan('a')});
}`;
