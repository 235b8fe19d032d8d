import { add, divide, multiply, subtract } from '../ops/arithmetic.ts';
import { sqrt, square } from '../ops/elementwise.ts';
import { assign } from '../trace.ts';
import { type Optimizer, type OptimizerOptions, optimizer } from './optimizer.ts';

export interface RmspropOptions extends OptimizerOptions {
  readonly alpha?: number;
  readonly epsilon?: number;
}

/** RMSprop as in Torch7, with which Basset was trained: v ← αv + (1 − α)g², w ← w − lr · g / (√v + ε). */
export function rmsprop({ alpha = 0.99, epsilon = 1e-8, ...options }: RmspropOptions): Optimizer {
  return optimizer(options, {
    next: (w, g, { rate, moment }) => {
      const mean = moment('rmsprop.v');
      const v = add(multiply(mean, alpha), multiply(square(g), 1 - alpha));
      assign(mean, v);
      return subtract(w, multiply(divide(g, add(sqrt(v), epsilon)), rate));
    },
  });
}
