import { add, multiply, subtract } from '../ops/arithmetic.ts';
import { assign } from '../trace.ts';
import { type Optimizer, type OptimizerOptions, optimizer } from './optimizer.ts';

export interface SgdOptions extends OptimizerOptions {
  readonly momentum?: number;
  readonly nesterov?: boolean;
  /** Where the learning rate enters; the same as long as it is constant. */
  readonly form?: 'torch' | 'keras';
}

/**
 * Stochastic gradient descent. With momentum μ: `torch` v ← μv + g, w ← w − lr·v (Nesterov w − lr·(g + μv));
 * `keras`, with which Basenji2 and Akita were trained, v ← μv − lr·g, w ← w + v (Nesterov w + μv − lr·g).
 */
export function sgd({ momentum = 0, nesterov = false, form = 'torch', ...options }: SgdOptions): Optimizer {
  return optimizer(options, {
    next: (w, g, { rate, moment }) => {
      const step = multiply(g, rate);
      if (momentum === 0) return subtract(w, step);
      const velocity = moment('sgd.velocity');
      if (form === 'keras') {
        const v = subtract(multiply(velocity, momentum), step);
        assign(velocity, v);
        return add(w, nesterov ? subtract(multiply(v, momentum), step) : v);
      }
      const v = add(multiply(velocity, momentum), g);
      assign(velocity, v);
      return subtract(w, multiply(nesterov ? add(g, multiply(v, momentum)) : v, rate));
    },
  });
}
