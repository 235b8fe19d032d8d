/** Published names of Enformer's weights, and reference files of the model. */
import { add, nn, permute, slice, type Tensor } from '@cohesin/core';
import { fields } from '../builder/fields.ts';
import { type GoldenCase, layerAt, type Tensors } from '../golden-case.ts';
import type { PublishedWeights } from '../load-weights.ts';
import { type PublishedName, type WeightMap, weightMap } from '../weight-map.ts';
import { type Enformer, enformer } from './model.ts';
import { enformerSonnetWeights } from './sonnet.ts';

/** From the end of a layer path to the end of the published name, for the PyTorch names. */
const TORCH: readonly (readonly [RegExp, string])[] = [
  [/^trunk\.stem\.conv\./, 'stem.0.'],
  [/^trunk\.stem\.pointwise\.inner\.norm\./, 'stem.1.fn.0.'],
  [/^trunk\.stem\.pointwise\.inner\.conv\./, 'stem.1.fn.2.'],
  [/^trunk\.stem\.pool\./, 'stem.2.to_attn_logits.'],
  [/^trunk\.tower\.(\d+)\.block\.norm\./, 'conv_tower.$1.0.0.'],
  [/^trunk\.tower\.(\d+)\.block\.conv\./, 'conv_tower.$1.0.2.'],
  [/^trunk\.tower\.(\d+)\.pointwise\.inner\.norm\./, 'conv_tower.$1.1.fn.0.'],
  [/^trunk\.tower\.(\d+)\.pointwise\.inner\.conv\./, 'conv_tower.$1.1.fn.2.'],
  [/^trunk\.tower\.(\d+)\.pool\./, 'conv_tower.$1.2.to_attn_logits.'],
  [/^trunk\.transformer\.(\d+)\.attention\.inner\.norm\./, 'transformer.$1.0.fn.0.'],
  [
    /^trunk\.transformer\.(\d+)\.attention\.inner\.attention\.r_w_bias$/,
    'transformer.$1.0.fn.1.rel_content_bias',
  ],
  [
    /^trunk\.transformer\.(\d+)\.attention\.inner\.attention\.r_r_bias$/,
    'transformer.$1.0.fn.1.rel_pos_bias',
  ],
  [/^trunk\.transformer\.(\d+)\.attention\.inner\.attention\.query\./, 'transformer.$1.0.fn.1.to_q.'],
  [/^trunk\.transformer\.(\d+)\.attention\.inner\.attention\.key\./, 'transformer.$1.0.fn.1.to_k.'],
  [/^trunk\.transformer\.(\d+)\.attention\.inner\.attention\.value\./, 'transformer.$1.0.fn.1.to_v.'],
  [
    /^trunk\.transformer\.(\d+)\.attention\.inner\.attention\.relative_key\./,
    'transformer.$1.0.fn.1.to_rel_k.',
  ],
  [/^trunk\.transformer\.(\d+)\.attention\.inner\.attention\.embedding\./, 'transformer.$1.0.fn.1.to_out.'],
  [/^trunk\.transformer\.(\d+)\.perceptron\.inner\.norm\./, 'transformer.$1.1.fn.0.'],
  [/^trunk\.transformer\.(\d+)\.perceptron\.inner\.expand\./, 'transformer.$1.1.fn.1.'],
  [/^trunk\.transformer\.(\d+)\.perceptron\.inner\.contract\./, 'transformer.$1.1.fn.4.'],
  [/^trunk\.final\.block\.norm\./, 'final_pointwise.1.0.'],
  [/^trunk\.final\.block\.conv\./, 'final_pointwise.1.2.'],
  [/^heads\.(\w+)\.linear\./, '_heads.$1.0.'],
];

/** The names Enformer's weights are published under: DeepMind's checkpoint and the PyTorch port of it. */
export function enformerWeights(model: nn.AnyLayer): readonly PublishedWeights[] {
  return [
    { format: 'tensorflow', map: enformerSonnetWeights(model) },
    { format: 'torch', map: enformerTorchWeights(model) },
  ];
}

/** What a file of the PyTorch port repeats, the trunk as part of another module, or counts. */
const NOT_NEEDED = /^_trunk\.|(^|\.)num_batches_tracked$/;

/** PyTorch's names (`EleutherAI/enformer-official-rough`): convolutions [out, in, size], linear layers [out, in]. */
export function enformerTorchWeights(model: nn.AnyLayer): WeightMap {
  const publish = (path: string, shape: readonly number[]): PublishedName | undefined => {
    const found = TORCH.find(([candidate]) => candidate.test(path));
    const isOurs = path.endsWith('.running_power'); // the port averages without debiasing
    if (found === undefined || isOurs) return undefined; // features of relative positions are computed
    const [pattern, name] = found;
    const published = path.replace(pattern, name);
    if (path.endsWith('.pool.weight'))
      return { name: published, axes: 'reversed', fileShape: [...shape.toReversed(), 1, 1] };
    return { name: published, axes: shape.length === 2 || shape.length === 3 ? 'reversed' : 'same' };
  };
  return weightMap(model, (path, { shape }) => publish(path, shape), { ignored: NOT_NEEDED });
}

/** A reference file's Enformer, both heads. */
export function enformerFromGolden(config: unknown): GoldenCase {
  const given = fields(config, 'config');
  const tracks = (config as { readonly output_heads: Readonly<Record<string, number>> }).output_heads;
  const model = enformer({
    lengthBp: given.integer('seq_length'),
    channels: given.integer('dim'),
    filters: given.integers('filters'),
    transformerBlocks: given.integer('depth'),
    heads: given.integer('heads'),
    keySize: given.integer('attn_dim_key'),
    positionFeatures: given.integer('num_rel_pos_features'),
    targetBins: given.integer('target_length'),
    tracks,
    dropout: 0,
    attentionDropout: 0,
    positionDropout: 0,
    headDropout: 0,
  });
  return {
    model,
    predict: ({ x }) => model(x!),
    loss: (prediction, inputs) =>
      Object.entries(prediction)
        .map(([name, tracks]) => nn.poissonLoss(tracks, inputs[`target_${name}`]!))
        .reduce((sum, loss) => add(sum, loss)),
    extra: (_, { x }) => enformerInside(model, x!),
    unlike: {
      positional_features_lucidrains_bug:
        'the PyTorch port divides by the maximum over features, not positions',
    },
    weights: enformerTorchWeights(model),
    runningStatistics: 'sonnet',
  };
}

const STEM_POSITIONS = 32; // of the stem's output a file keeps the first positions only

/** What the file keeps of Enformer's inside; of the attention weights those of the first sequence. */
function enformerInside(model: Enformer, x: Tensor): Tensors {
  const attention = layerAt(model, 'trunk.transformer.0.attention.inner.attention') as nn.MultiHeadAttention;
  const stem = layerAt(model, 'trunk.stem')(x);
  const tower = layerAt(model, 'trunk.tower')(stem); // [batch, bin, channel]
  const normed = layerAt(model, 'trunk.transformer.0.attention.inner.norm')(tower);
  const { weights } = attention.maps(normed); // [batch, head, bin, bin]
  return {
    stem_eval: permute(slice(stem, { from: 0, to: STEM_POSITIONS }), [0, 2, 1]),
    conv_tower_eval: permute(tower, [0, 2, 1]),
    transformer0_eval: layerAt(model, 'trunk.transformer.0')(tower),
    trunk_embedding_eval: model.trunk(x),
    positional_features: attention.parts.positions as Tensor,
    attention_layer0_eval: slice(weights, { from: 0, to: 1, axis: 0 }),
  };
}
