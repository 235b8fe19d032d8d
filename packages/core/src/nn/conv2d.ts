import { add } from '../ops/arithmetic.ts';
import * as ops from '../ops/conv2d.ts';
import { type Initializer, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { heNormal, zeros } from './init.ts';
import { type Layer, layer } from './layer.ts';

export interface Conv2dLayerOptions extends ops.Conv2dOptions {
  readonly inputs: number;
  readonly outputs: number;
  /** Window in rows and in columns. */
  readonly size: number;
  readonly bias?: boolean;
  readonly init?: Initializer;
  readonly biasInit?: Initializer;
}

/**
 * A convolution over a map: `[batch, height, width, inputs]` → `[batch, outHeight, outWidth, outputs]`.
 * Parts: weight `[size, size, inputs, outputs]`, bias `[outputs]`.
 */
export function conv2d({
  inputs,
  outputs,
  size,
  bias = true,
  init = heNormal,
  biasInit = zeros,
  ...window
}: Conv2dLayerOptions): Layer {
  const weight = parameter([size, size, inputs, outputs], { init });
  const shift = bias ? parameter([outputs], { init: biasInit }) : undefined;
  return layer({ weight, bias: shift }, (x: Tensor) => {
    const y = ops.conv2d(x, weight, window);
    return shift === undefined ? y : add(y, shift);
  });
}
