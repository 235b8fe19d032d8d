/** Functions of logits that are made of others. */
import type { Tensor } from '../tensor.ts';
import { add, multiply, subtract, type Value } from './arithmetic.ts';
import { softplus, tanh } from './elementwise.ts';

/** cap · tanh(x / cap): nearly x while it is small, and never beyond ±cap. The shape of x. */
export function softCap(x: Tensor, { cap }: { readonly cap: number }): Tensor {
  if (!(cap > 0)) throw new Error(`softCap: cap is ${cap}; it must be above 0`);
  return multiply(tanh(multiply(x, 1 / cap)), cap);
}

/** log(e^a + e^b) without overflow, broadcast as in NumPy: log counts of two sources together. */
export function logAddExp(a: Value, b: Value): Tensor {
  return add(b, softplus(subtract(a, b)));
}
