import type { Counters } from '../counters.ts';
import { add, divide, multiply, subtract } from '../ops/arithmetic.ts';
import { sqrt, square } from '../ops/elementwise.ts';
import { type Parameter, scalar } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { assign } from '../trace.ts';
import { type Optimizer, type OptimizerOptions, optimizer } from './optimizer.ts';

export interface AdamOptions extends OptimizerOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  /** 1e-8 in PyTorch, Sonnet and TensorFlow 1; 1e-7 in Keras. */
  readonly epsilon?: number;
  /**
   * Where epsilon enters: `torch` (also optax, Sonnet) adds it to the corrected √v̂, `keras` (also TensorFlow 1) to the
   * uncorrected √v, which makes it larger in the first steps.
   */
  readonly form?: 'torch' | 'keras';
  /** Coupled L2: adds l2 · w to the gradient. */
  readonly l2?: number;
}

export interface AdamWOptions extends AdamOptions {
  /** Decoupled: w is first multiplied by 1 − learning rate · weightDecay. */
  readonly weightDecay: number;
}

/** Kingma & Ba 2015. The powers of the betas are carried from step to step, so that no `Math.pow` can differ. */
export function adam(options: AdamOptions): Optimizer {
  return adamw({ ...options, weightDecay: 0 });
}

/** Adam with decoupled weight decay (Loshchilov & Hutter 2019). */
export function adamw(options: AdamWOptions): Optimizer {
  const { beta1 = 0.9, beta2 = 0.999, form = 'torch' } = options;
  const { epsilon = form === 'torch' ? 1e-8 : 1e-7, l2 = 0, weightDecay } = options;
  return optimizer(options, {
    initial: { beta1Power: 1, beta2Power: 1 },
    advance: ({ beta1Power, beta2Power }) => ({
      beta1Power: beta1Power! * beta1,
      beta2Power: beta2Power! * beta2,
    }),
    scalars: (counters) => corrections(counters, { beta1, beta2 }),
    next: (w, gradient, { rate, moment }) => {
      const g = l2 === 0 ? gradient : add(gradient, multiply(w, l2));
      const m = average(moment('adam.m'), g, beta1);
      const v = average(moment('adam.v'), square(g), beta2);
      const step = form === 'torch' ? torchStep(m, v, { rate, epsilon }) : kerasStep(m, v, { rate, epsilon });
      return subtract(weightDecay === 0 ? w : decayed(w, multiply(rate, weightDecay)), step);
    },
  });
}

/** Scalars of the step after `counters`: 1 / (1 − β₁ᵗ) and 1 / (1 − β₂ᵗ). */
function corrections(
  { beta1Power, beta2Power }: Counters,
  { beta1, beta2 }: { readonly beta1: number; readonly beta2: number },
): Readonly<Record<string, number>> {
  return {
    'adam.mCorrection': 1 / (1 - beta1Power! * beta1),
    'adam.vCorrection': 1 / (1 - beta2Power! * beta2),
  };
}

/** moment ← β · moment + (1 − β) · value. */
function average(moment: Parameter, value: Tensor, beta: number): Tensor {
  const next = add(multiply(moment, beta), multiply(value, 1 - beta));
  assign(moment, next);
  return next;
}

interface Step {
  readonly rate: Tensor;
  readonly epsilon: number;
}

/** lr · m̂ / (√v̂ + ε). */
function torchStep(m: Tensor, v: Tensor, { rate, epsilon }: Step): Tensor {
  const mean = multiply(m, multiply(scalar('adam.mCorrection'), rate));
  return divide(mean, add(sqrt(multiply(v, scalar('adam.vCorrection'))), epsilon));
}

/** lr · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε). */
function kerasStep(m: Tensor, v: Tensor, { rate, epsilon }: Step): Tensor {
  const corrected = divide(multiply(scalar('adam.mCorrection'), rate), sqrt(scalar('adam.vCorrection')));
  return divide(multiply(m, corrected), add(sqrt(v), epsilon));
}

const decayed = (w: Tensor, decay: Tensor): Tensor => multiply(w, subtract(1, decay));
