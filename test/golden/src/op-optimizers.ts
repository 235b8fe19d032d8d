/** Optimizers and learning-rate schedules of the fixtures, by the names of their cases. */
import {
  adam,
  adamw,
  clipGlobalNorm,
  clipPerVariable,
  cyclical1,
  deepmindWarmUp,
  type Optimizer,
  rmsprop,
  sgd,
  warmUp,
  warmUpCosine,
} from '@cohesin/core';
import { type Attrs, type HostCase, numberOf, type OptimizerCase } from './op-case.ts';

const SCHEDULES: Readonly<Record<string, (attrs: Attrs) => (step: number) => number>> = {
  basenji_cyclical1: (attrs) =>
    cyclical1({
      initial: numberOf(attrs, 'initial'),
      maximal: numberOf(attrs, 'maximal'),
      final: numberOf(attrs, 'final'),
      stepSize: numberOf(attrs, 'step_size'),
    }),
  basenji_warmup: (attrs) => warmUp(peak(attrs)),
  deepmind_warmup: (attrs) => deepmindWarmUp(peak(attrs)),
  warmup_cosine: (attrs) => warmUpCosine({ ...peak(attrs), end: 40 }),
};

function peak(attrs: Attrs): { readonly peak: number; readonly warmup: number } {
  return { peak: numberOf(attrs, 'peak'), warmup: numberOf(attrs, 'warmup') };
}

/** The rate at each step. */
export const scheduleCase: HostCase = {
  kind: 'host',
  compute: (_, attrs, name) => {
    const schedule = SCHEDULES[name]?.(attrs);
    if (schedule === undefined) return undefined;
    return { f64: Array.from({ length: numberOf(attrs, 'steps') }, (_, step) => schedule(step)) };
  },
};

const OPTIMIZERS: Readonly<Record<string, (attrs: Attrs) => Optimizer>> = {
  'adam_eps1e-8': (attrs) => adam(adamOptions(attrs)),
  'adam_keras_eps1e-7': (attrs) => adam({ ...adamOptions(attrs), form: 'keras' }),
  adam_basenji1: (attrs) => adam({ ...adamOptions(attrs), form: 'keras' }), // TensorFlow 1 has Keras' epsilon
  adamw: (attrs) => adamw({ ...adamOptions(attrs), weightDecay: numberOf(attrs, 'weight_decay') }),
  adam_l2: (attrs) => adam({ learningRate: numberOf(attrs, 'lr'), l2: numberOf(attrs, 'weight_decay') }),
  adam_clip_global_norm: (attrs) =>
    adam({ learningRate: numberOf(attrs, 'lr'), clip: clipGlobalNorm(numberOf(attrs, 'clip_global_norm')) }),
  sgd_plain: (attrs) => sgd(sgdOptions(attrs)),
  sgd_momentum: (attrs) => sgd(sgdOptions(attrs)),
  sgd_nesterov: (attrs) => sgd({ ...sgdOptions(attrs), nesterov: true }),
  sgd_keras_changing_lr: (attrs) => {
    const learningRate = (step: number): number => (numberOf(attrs, 'lr_max') * (step + 1)) / 5;
    return sgd({ learningRate, momentum: numberOf(attrs, 'momentum'), form: 'keras' });
  },
  sgd_clip_per_variable: (attrs) =>
    sgd({ ...sgdOptions(attrs), clip: clipPerVariable(numberOf(attrs, 'clipnorm')) }),
  rmsprop_torch7: (attrs) => rmsprop(rmspropOptions(attrs)),
  rmsprop_max_row_norm: (attrs) =>
    rmsprop({ ...rmspropOptions(attrs), maxNorm: numberOf(attrs, 'max_norm') }),
};

/** Steps of an optimizer, by the case's name. */
export const optimizerCase: OptimizerCase = {
  kind: 'optimizer',
  optimizer: (attrs, name) => OPTIMIZERS[name]?.(attrs),
};

function adamOptions(attrs: Attrs): Parameters<typeof adam>[0] {
  return {
    learningRate: numberOf(attrs, 'lr'),
    beta1: numberOf(attrs, 'beta1'),
    beta2: numberOf(attrs, 'beta2'),
    epsilon: numberOf(attrs, 'eps'),
  };
}

function sgdOptions(attrs: Attrs): Parameters<typeof sgd>[0] {
  return { learningRate: numberOf(attrs, 'lr'), momentum: numberOf(attrs, 'momentum') };
}

function rmspropOptions(attrs: Attrs): Parameters<typeof rmsprop>[0] {
  return {
    learningRate: numberOf(attrs, 'lr'),
    alpha: numberOf(attrs, 'alpha'),
    epsilon: numberOf(attrs, 'eps'),
  };
}
