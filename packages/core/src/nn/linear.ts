import { matmul } from '../ops/matmul.ts';
import { type Initializer, parameter } from '../parameter.ts';
import { type BiasOptions, biased } from './bias.ts';
import { glorotUniform } from './init.ts';
import type { Layer } from './layer.ts';

export interface LinearOptions extends BiasOptions {
  readonly inputs: number;
  readonly init?: Initializer;
}

/** x · weight + bias: `[batch, …, inputs]` → `[batch, …, outputs]`. Parts: weight `[inputs, outputs]`, bias `[outputs]`. */
export function linear({ inputs, init = glorotUniform, ...options }: LinearOptions): Layer {
  const weight = parameter([inputs, options.outputs], { init });
  return biased({ weight }, options, (x) => matmul(x, weight));
}
