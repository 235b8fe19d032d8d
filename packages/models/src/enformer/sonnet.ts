/** Names of Enformer's weights in DeepMind's own checkpoint, a TensorFlow one written by Sonnet. */
import type { nn } from '@cohesin/core';
import { type PublishedName, type WeightMap, weightMap } from '../weight-map.ts';

/** From the layer path to the published one. */
const LAYERS: readonly (readonly [RegExp, string])[] = [
  [/^trunk\.stem\.conv\./, 'trunk/stem/conv1_d/'],
  [/^trunk\.stem\.pointwise\.inner\./, 'trunk/stem/pointwise_conv_block/'],
  [/^trunk\.stem\.pool\./, 'trunk/stem/softmax_pooling/linear/'],
  [/^trunk\.tower\.(\d+)\.block\./, 'trunk/conv_tower/conv_tower_block_$1/conv_block/'],
  [/^trunk\.tower\.(\d+)\.pointwise\.inner\./, 'trunk/conv_tower/conv_tower_block_$1/pointwise_conv_block/'],
  [/^trunk\.tower\.(\d+)\.pool\./, 'trunk/conv_tower/conv_tower_block_$1/softmax_pooling/linear/'],
  [
    /^trunk\.transformer\.(\d+)\.attention\.inner\.norm\./,
    'trunk/transformer/transformer_block_$1/mha/layer_norm/',
  ],
  [
    /^trunk\.transformer\.(\d+)\.attention\.inner\.attention\./,
    'trunk/transformer/transformer_block_$1/mha/attention_$1/',
  ],
  [
    /^trunk\.transformer\.(\d+)\.perceptron\.inner\.norm\./,
    'trunk/transformer/transformer_block_$1/mlp/layer_norm/',
  ],
  [
    /^trunk\.transformer\.(\d+)\.perceptron\.inner\.expand\./,
    'trunk/transformer/transformer_block_$1/mlp/linear/',
  ],
  [
    /^trunk\.transformer\.(\d+)\.perceptron\.inner\.contract\./,
    'trunk/transformer/transformer_block_$1/mlp/linear_1/',
  ],
  [/^trunk\.final\.block\./, 'trunk/final_pointwise/conv_block/'],
  [/^heads\.(\w+)\.linear\./, 'heads/head_$1/linear/'],
];

/** What is left of the path after its layer. */
const TENSORS: Readonly<Record<string, string>> = {
  weight: 'w',
  bias: 'b',
  'conv.weight': 'conv1_d/w',
  'conv.bias': 'conv1_d/b',
  'norm.weight': 'cross_replica_batch_norm/scale',
  'norm.bias': 'cross_replica_batch_norm/offset',
  'norm.running_mean': 'cross_replica_batch_norm/moving_mean/average',
  'norm.running_var': 'cross_replica_batch_norm/moving_variance/average',
  'query.weight': 'q_layer/w',
  'key.weight': 'k_layer/w',
  'value.weight': 'v_layer/w',
  'relative_key.weight': 'r_k_layer/w',
  'embedding.weight': 'embedding_layer/w',
  'embedding.bias': 'embedding_layer/b',
  r_w_bias: 'r_w_bias',
  r_r_bias: 'r_r_bias',
};

const LAYER_NORM: Readonly<Record<string, string>> = { weight: 'scale', bias: 'offset' };

/** How moving averages are kept beside their value, and the counters of a checkpoint. */
const NOT_NEEDED = /(\/moving_(mean|variance)\/(hidden|counter)|(^|\/)(save_counter|step))$/;

/** DeepMind's names, `enformer/trunk/stem/conv1_d/w`: layouts as here, batch norms [1, 1, channels]. */
export function enformerSonnetWeights(model: nn.AnyLayer): WeightMap {
  const publish = (path: string, shape: readonly number[]): PublishedName | undefined => {
    const found = LAYERS.find(([pattern]) => pattern.test(path));
    if (found === undefined) return undefined;
    const [pattern, layer] = found;
    const rest = path.replace(pattern, '');
    const tensor = (layer.endsWith('layer_norm/') ? LAYER_NORM : TENSORS)[rest];
    if (tensor === undefined) return undefined; // features of relative positions, which are computed
    const prefix = path.slice(0, path.length - rest.length).replace(pattern, layer);
    const name = `enformer/${prefix}${tensor}`;
    return tensor.startsWith('cross_replica')
      ? { name, axes: 'same', fileShape: [1, 1, ...shape] }
      : { name, axes: 'same' };
  };
  return weightMap(model, (path, { shape }) => publish(path, shape), { ignored: NOT_NEEDED });
}
