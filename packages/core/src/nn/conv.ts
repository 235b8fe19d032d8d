import * as ops from '../ops/conv1d.ts';
import { standardizeWeight } from '../ops/standardize.ts';
import { type Initializer, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { type BiasOptions, biased } from './bias.ts';
import { heNormal, ones, zeros } from './init.ts';
import { type Layer, layer } from './layer.ts';

export interface Conv1dLayerOptions extends ops.Conv1dOptions, BiasOptions {
  readonly inputs: number;
  /** Window in rows. */
  readonly size: number;
  readonly init?: Initializer;
}

/**
 * A convolution along the sequence: `[batch, length, inputs]` → `[batch, windows, outputs]`.
 * Parts: weight `[size, inputs / groups, outputs]`, bias `[outputs]`.
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
  const weight = parameter([size, inputs / (window.groups ?? 1), outputs], { init });
  return biased({ weight }, { outputs, bias, biasInit }, (x) => ops.conv1d(x, weight, window));
}

export interface SeparableConv1dLayerOptions
  extends Pick<Conv1dLayerOptions, 'inputs' | 'outputs' | 'size' | 'dilation' | 'bias' | 'init'> {}

/**
 * A convolution of each channel by itself, then one of size 1 over channels (Keras' SeparableConv1D, Borzoi's U-net):
 * `[batch, length, inputs]` → `[batch, length, outputs]`. Parts: depthwise.weight `[size, 1, inputs]`, pointwise.weight
 * `[1, inputs, outputs]`, pointwise.bias `[outputs]`.
 */
export function separableConv1d({
  inputs,
  outputs,
  size,
  dilation = 1,
  bias = true,
  init = heNormal,
}: SeparableConv1dLayerOptions): Layer {
  const depthwise = conv1d({ inputs, outputs: inputs, size, dilation, groups: inputs, bias: false, init });
  const pointwise = conv1d({ inputs, outputs, size: 1, bias, init });
  return layer({ depthwise, pointwise }, (x: Tensor) => pointwise(depthwise(x)));
}

/**
 * A convolution whose weight is standardised before use (AlphaGenome's StandardizedConv1D): `[batch, length, inputs]` →
 * `[batch, windows, outputs]`. Parts: weight `[size, inputs, outputs]`, scale `[outputs]`, bias `[outputs]`.
 */
export function standardizedConv1d({
  inputs,
  outputs,
  size,
  bias = true,
  init = heNormal,
  biasInit = zeros,
  ...window
}: Omit<Conv1dLayerOptions, 'groups'>): Layer {
  const weight = parameter([size, inputs, outputs], { init });
  const scale = parameter([outputs], { init: ones });
  return biased({ weight, scale }, { outputs, bias, biasInit }, (x) =>
    ops.conv1d(x, standardizeWeight(weight, scale), window),
  );
}
