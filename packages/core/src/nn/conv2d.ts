import * as ops from '../ops/conv2d.ts';
import { type Initializer, parameter } from '../parameter.ts';
import { type BiasOptions, biased } from './bias.ts';
import { heNormal, zeros } from './init.ts';
import type { Layer } from './layer.ts';

export interface Conv2dLayerOptions extends ops.Conv2dOptions, BiasOptions {
  readonly inputs: number;
  /** Window in rows and in columns. */
  readonly size: number;
  readonly init?: Initializer;
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
  return biased({ weight }, { outputs, bias, biasInit }, (x) => ops.conv2d(x, weight, window));
}
