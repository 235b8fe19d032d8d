import { layerNormalize, rmsNormalize } from '../ops/layer-norm.ts';
import { affineNormalize } from '../ops/normalize.ts';
import { buffer, constant, ones, parameter, zeros } from '../parameter.ts';
import { currentScope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { type Layer, layer } from './layer.ts';

export interface RowNormLayerOptions {
  readonly channels: number;
  /** Keras 1e-3, PyTorch and Sonnet 1e-5. */
  readonly epsilon?: number;
}

export interface LayerNormOptions extends RowNormLayerOptions {
  /** Start of the scale; `zeros` makes a residual branch start as nothing. */
  readonly gamma?: 'ones' | 'zeros';
}

/** Layer norm (Ba et al. 2016) over the channels: x `[…, channels]` → the same shape. Parts: weight, bias. */
export function layerNorm({ channels, epsilon = 1e-5, gamma = 'ones' }: LayerNormOptions): Layer {
  const weight = parameter([channels], { init: gamma === 'ones' ? ones : zeros });
  const parts = { weight, bias: parameter([channels]) };
  return layer(parts, (x: Tensor) => layerNormalize(x, parts.weight, parts.bias, { epsilon }));
}

/** RMS norm (Zhang & Sennrich 2019) over the channels: x `[…, channels]` → the same shape. Parts: weight, bias. */
export function rmsNorm({ channels, epsilon = 1e-5 }: RowNormLayerOptions): Layer {
  const parts = { weight: parameter([channels], { init: ones }), bias: parameter([channels]) };
  return layer(parts, (x: Tensor) => rmsNormalize(x, parts.weight, parts.bias, { epsilon }));
}

/**
 * AlphaGenome's batch norm without centring, x / √(running_var + epsilon) · weight + bias: x `[batch, …, channels]` → the
 * same shape. Parts: weight, bias, running_var.
 *
 * @throws while training: the published code has no training form of it.
 */
export function rmsBatchNorm({ channels, epsilon = 1e-5 }: RowNormLayerOptions): Layer {
  const parts = {
    weight: parameter([channels], { init: ones }),
    bias: parameter([channels]),
    running_var: buffer([channels], { init: ones }),
  };
  return layer(parts, (x: Tensor) => {
    if (currentScope().training)
      throw new Error(
        'rmsBatchNorm has no training form; use batchNorm or rmsNorm in a model that is trained',
      );
    return affineNormalize(x, constant(0), parts.running_var, parts.weight, parts.bias, { epsilon });
  });
}
