import { add } from '../ops/arithmetic.ts';
import * as ops from '../ops/conv1d.ts';
import { type Initializer, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { heNormal, zeros } from './init.ts';
import { type Layer, layer } from './layer.ts';

export interface Conv1dLayerOptions extends ops.Conv1dOptions {
  readonly inputs: number;
  readonly outputs: number;
  /** Window in rows. */
  readonly size: number;
  readonly bias?: boolean;
  readonly init?: Initializer;
  readonly biasInit?: Initializer;
}

/**
 * A convolution along the sequence: `[batch, length, inputs]` → `[batch, windows, outputs]`.
 * Parts: weight `[size, inputs, outputs]`, bias `[outputs]`.
 */
export function conv1d({
  inputs,
  outputs,
  size,
  bias = true,
  init = heNormal,
  biasInit = zeros,
  ...window
}: Conv1dLayerOptions): Layer {
  const weight = parameter([size, inputs, outputs], { init });
  const shift = bias ? parameter([outputs], { init: biasInit }) : undefined;
  return layer({ weight, bias: shift }, (x: Tensor) => {
    const y = ops.conv1d(x, weight, window);
    return shift === undefined ? y : add(y, shift);
  });
}
