import { add } from '../ops/arithmetic.ts';
import { matmul } from '../ops/matmul.ts';
import { type Initializer, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { glorotUniform, zeros } from './init.ts';
import { type Layer, layer } from './layer.ts';

export interface LinearOptions {
  readonly inputs: number;
  readonly outputs: number;
  readonly bias?: boolean;
  readonly init?: Initializer;
  readonly biasInit?: Initializer;
}

/** x · weight + bias: `[batch, …, inputs]` → `[batch, …, outputs]`. Parts: weight `[inputs, outputs]`, bias `[outputs]`. */
export function linear({
  inputs,
  outputs,
  bias = true,
  init = glorotUniform,
  biasInit = zeros,
}: LinearOptions): Layer {
  const weight = parameter([inputs, outputs], { init });
  const shift = bias ? parameter([outputs], { init: biasInit }) : undefined;
  return layer({ weight, bias: shift }, (x: Tensor) => {
    const y = matmul(x, weight);
    return shift === undefined ? y : add(y, shift);
  });
}
