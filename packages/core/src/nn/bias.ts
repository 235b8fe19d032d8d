import { add } from '../ops/arithmetic.ts';
import { type Initializer, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { zeros } from './init.ts';
import { type Layer, layer, type Parts } from './layer.ts';

export interface BiasOptions {
  readonly outputs: number;
  /** Default true. */
  readonly bias?: boolean;
  /** Default zeros. */
  readonly biasInit?: Initializer;
}

/** A layer that adds a bias `[outputs]`, if asked for, to what `forward` gives: `[…, outputs]`. */
export function biased(
  parts: Parts,
  { outputs, bias = true, biasInit = zeros }: BiasOptions,
  forward: (x: Tensor) => Tensor,
): Layer {
  const shift = bias ? parameter([outputs], { init: biasInit }) : undefined;
  return layer({ ...parts, bias: shift }, (x: Tensor) => {
    const y = forward(x);
    return shift === undefined ? y : add(y, shift);
  });
}
