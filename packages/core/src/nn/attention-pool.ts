import { attentionPool1d } from '../ops/attention-pool.ts';
import { matmul } from '../ops/matmul.ts';
import { parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { identity } from './init.ts';
import { type Layer, layer } from './layer.ts';

export interface AttentionPoolOptions {
  readonly channels: number;
  /** Rows a window. */
  readonly pool: number;
  /** Logits for every channel, as in Enformer, or one for all, as basenji's `SoftmaxPool1D` by default. */
  readonly perChannel?: boolean;
  /** The weight starts as this times the identity: 0 would be average pooling, infinity max pooling of each channel. */
  readonly gain?: number;
}

/**
 * Attention pooling: x `[batch, length, channels]` → `[batch, length / pool, channels]`, each window averaged by the softmax
 * of x · weight over its rows. Part: weight `[channels, channels]`, or `[channels, 1]` if not `perChannel`.
 */
export function attentionPool({ channels, pool, perChannel = true, gain = 2 }: AttentionPoolOptions): Layer {
  const weight = parameter([channels, perChannel ? channels : 1], { init: identity(gain) });
  return layer({ weight }, (x: Tensor) => attentionPool1d(x, matmul(x, weight), { pool }));
}
