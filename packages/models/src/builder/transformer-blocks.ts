/** Transformers with relative positions, as basenji and baskerville have them. */
import { add, nn, relu, type Tensor } from '@cohesin/core';
import type { Fields } from './fields.ts';
import { type Block, chain, type Flow, readDropout, through } from './flow.ts';
import { blockShared, readScale, regularized, type Shared } from './shared.ts';

interface TransformerOptions extends Shared {
  readonly heads: number;
  readonly keySize: number;
  readonly features: number;
  /** Of the hidden layer, over the channels; 0 leaves the second half out. */
  readonly expansion: number;
  readonly dropout: number;
  readonly attentionDropout: number;
  readonly positionDropout: number;
  readonly attentionL2: number;
}

/**
 * `transformer`: x + dropout(attention(layer norm x)), then the same around linear, dropout, ReLU, linear of
 * `dense_expansion` (2) times the channels: [batch, length, channels] → the same shape. Positions are central masks.
 */
export function transformer(options: Fields, shared: Shared, input: Flow): Block {
  return { layer: makeTransformer(readTransformer(options, shared, input), input), output: input };
}

/** `transformer_tower`: `repeat` (2) of them. */
export function transformerTower(options: Fields, shared: Shared, input: Flow): Block {
  const repeat = options.integer('repeat', 2);
  options.choice('block_type', ['transformer'], 'transformer');
  const each = readTransformer(options, shared, input);
  return chain(
    Array.from({ length: repeat }, () => (flow: Flow) => ({
      layer: makeTransformer(each, flow),
      output: flow,
    })),
    input,
  );
}

function readTransformer(options: Fields, shared: Shared, { channels }: Flow): TransformerOptions {
  const heads = options.integer('heads', 1);
  if (channels % heads !== 0) {
    throw new Error(
      `${options.where}.heads: ${channels} channels cannot be dealt to ${heads} heads; use a divisor of ${channels}`,
    );
  }
  options.choice('mha_initializer', ['he_normal'], 'he_normal');
  if (options.integer('qkv_width', 1) !== 1 || !options.flag('content_position_bias', true))
    throw new Error(`${options.where}: only qkv_width 1 with content_position_bias is known; leave both out`);
  return {
    ...blockShared(options, shared),
    heads,
    keySize: options.integer('key_size'),
    features: options.integer('num_position_features', evenly(channels / heads)),
    expansion: options.number('dense_expansion', 2),
    dropout: readDropout(options, 'dropout', 0.25),
    attentionDropout: readDropout(options, 'attention_dropout', 0.05),
    positionDropout: readDropout(options, 'position_dropout', 0.01),
    attentionL2: readScale(options, 'mha_l2_scale', 0),
  };
}

/** As upstream where a file is silent: one feature a value, two by two. */
const evenly = (valueSize: number): number => 2 * Math.floor(valueSize / 2);

function makeTransformer(options: TransformerOptions, input: Flow): nn.Layer {
  const attend = attention(options, input);
  const dense = options.expansion === 0 ? undefined : denseHalf(options, input.channels);
  return nn.layer({ attend, dense_half: dense }, (x: Tensor) => through([attend, dense], x));
}

function attention(options: TransformerOptions, { length, channels }: Flow): nn.Layer {
  const { heads, keySize, features, epsilon, attentionDropout, positionDropout, attentionL2 } = options;
  const valueSize = channels / heads;
  const sizes = { inputs: channels, outputs: channels, length, heads, keySize, valueSize, features };
  const multiHead = nn.multiHeadAttention({
    ...sizes,
    positions: 'centralMask',
    dropoutRate: attentionDropout,
    positionDropoutRate: positionDropout,
  });
  for (const projection of Object.values(multiHead.parts))
    if (typeof projection === 'function') regularized(projection as nn.Layer, attentionL2);
  const parts = {
    layer_norm: nn.layerNorm({ channels, epsilon }),
    attention: multiHead,
    dropout: nn.dropout({ rate: options.dropout }),
  };
  return nn.layer(parts, (x: Tensor) =>
    add(x, through([parts.layer_norm, parts.attention, parts.dropout], x)),
  );
}

function denseHalf(
  { expansion, epsilon, dropout, init, l2 }: TransformerOptions,
  channels: number,
): nn.Layer {
  const hidden = Math.floor(expansion * channels);
  const dense = (inputs: number, outputs: number): nn.Layer =>
    regularized(nn.linear({ inputs, outputs, init }), l2);
  const parts = {
    layer_norm: nn.layerNorm({ channels, epsilon }),
    dense: dense(channels, hidden),
    dropout: nn.dropout({ rate: dropout }),
    dense_out: dense(hidden, channels),
    dropout_out: nn.dropout({ rate: dropout }),
  };
  return nn.layer(parts, (x: Tensor) =>
    add(
      x,
      through([parts.layer_norm, parts.dense, parts.dropout, relu, parts.dense_out, parts.dropout_out], x),
    ),
  );
}
