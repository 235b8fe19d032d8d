import type { HostTensor } from '../host-tensor.ts';
import {
  type AttentionMaps,
  type AttentionOptions,
  type RelativeAttentionInputs,
  relativeAttention,
  relativeAttentionMaps,
} from '../ops/attention.ts';
import { dropout } from '../ops/random.ts';
import { reshape } from '../ops/shape.ts';
import { buffer, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { heNormal, zeros } from './init.ts';
import { type Layer, layer } from './layer.ts';
import { linear } from './linear.ts';
import { centralMaskFeatures, enformerPositionalFeatures } from './positional.ts';

export interface MultiHeadAttentionOptions extends AttentionOptions {
  readonly inputs: number;
  readonly outputs: number;
  /** Positions of the sequence; the relative distances depend on it. */
  readonly length: number;
  readonly heads: number;
  /** Channels of a query or key, per head. */
  readonly keySize: number;
  /** Channels of a value, per head. */
  readonly valueSize: number;
  /** Features of a distance: a multiple of 6 in Enformer's form, of 2 for central masks. */
  readonly features: number;
  /** Enformer's features, or the central masks of Basenji and Borzoi. */
  readonly positions?: 'enformer' | 'centralMask';
  /** Share of the features of distances that is dropped while training, the same for all sequences of a step. */
  readonly positionDropoutRate?: number;
}

export interface MultiHeadAttention extends Layer {
  /** The attention maps of x `[batch, length, inputs]`, without dropout. */
  maps(x: Tensor): AttentionMaps;
}

/**
 * Multi-head attention with relative positions (Enformer's attention_module.py): x `[batch, length, inputs]` →
 * `[batch, length, outputs]`. The output starts at zero, so that a residual block starts as its shortcut.
 *
 * Parts: query, key, value, relative_key and embedding (`.weight [in, heads · size]`, embedding with `.bias`), r_w_bias
 * and r_r_bias `[1, heads, 1, keySize]`, and the buffer positions `[2 · length − 1, features]`.
 */
export function multiHeadAttention(options: MultiHeadAttentionOptions): MultiHeadAttention {
  const { inputs, outputs, length, heads, keySize, valueSize, features } = options;
  const { positions = 'enformer', positionDropoutRate = 0 } = options;
  const table = (): HostTensor =>
    (positions === 'enformer' ? enformerPositionalFeatures : centralMaskFeatures)({ length, features });
  const project = (from: number, size: number): Layer =>
    linear({ inputs: from, outputs: heads * size, bias: false, init: heNormal });
  const parts = {
    query: project(inputs, keySize),
    key: project(inputs, keySize),
    value: project(inputs, valueSize),
    relative_key: project(features, keySize),
    embedding: linear({ inputs: heads * valueSize, outputs, init: zeros }),
    r_w_bias: parameter([1, heads, 1, keySize], { init: heNormal }), // fan in: the heads, as in Sonnet and Keras
    r_r_bias: parameter([1, heads, 1, keySize], { init: heNormal }),
    positions: buffer([2 * length - 1, features], { init: () => table().data as Float32Array }),
  };
  const projected = (x: Tensor): RelativeAttentionInputs => {
    const perHead = (y: Tensor): Tensor =>
      reshape(y, [-1, ...y.shape.slice(1, -1), heads, y.shape.at(-1)! / heads]);
    const seen = dropout(parts.positions, { rate: positionDropoutRate, name: 'positions', shared: true });
    return {
      query: perHead(parts.query(x)), // [batch, position, head, channel]
      key: perHead(parts.key(x)),
      value: perHead(parts.value(x)),
      relativeKey: perHead(parts.relative_key(seen)), // [distance, head, channel]
      contentBias: reshape(parts.r_w_bias, [heads, keySize]),
      positionBias: reshape(parts.r_r_bias, [heads, keySize]),
    };
  };
  const self = layer(parts, (x: Tensor) => {
    checkLength(x, length);
    const y = relativeAttention(projected(x), options);
    return parts.embedding(reshape(y, [-1, length, heads * valueSize]));
  });
  return Object.assign(self, { maps: (x: Tensor) => relativeAttentionMaps(projected(x)) });
}

function checkLength({ shape }: Tensor, length: number): void {
  if (shape.length === 3 && shape[1] === length) return;
  throw new Error(
    `multiHeadAttention: x is [${shape.join(', ')}] but the layer is made for [batch, ${length}, inputs]; set length: ${shape[1]}`,
  );
}
