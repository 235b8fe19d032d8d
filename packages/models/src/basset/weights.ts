/** Published names of Basset's weights, and reference files of the model. */
import { nn, sigmoid } from '@cohesin/core';
import { fields } from '../builder/fields.ts';
import type { GoldenCase } from '../golden-case.ts';
import { type WeightMap, weightMap } from '../weight-map.ts';
import { type BassetOptions, basset } from './model.ts';

const MODULES: readonly (readonly [RegExp, string])[] = [
  [/^convolutions\.(\d+)\.conv\./, 'conv.$1.'],
  [/^convolutions\.(\d+)\.norm\./, 'conv_bn.$1.'],
  [/^hidden\.(\d+)\.linear\./, 'fc.$1.'],
  [/^hidden\.(\d+)\.norm\./, 'fc_bn.$1.'],
  [/^output\./, 'out.'],
];

/**
 * The Torch7 model's tensors as `conv.<i>`, `conv_bn.<i>`, `fc.<i>`, `fc_bn.<i>` and `out`, each with `.weight` and
 * `.bias`, norms also `.running_mean` and `.running_var`; convolutions [out, in, size], linear layers [out, in].
 */
export function bassetWeights(model: nn.AnyLayer): WeightMap {
  return weightMap(model, (path, { shape }) => {
    const [pattern, module] = MODULES.find(([candidate]) => candidate.test(path))!;
    return { name: path.replace(pattern, module), axes: shape.length > 1 ? 'reversed' : 'same' };
  });
}

/** A reference file's Basset; its config holds the options of `basset` under their own names. */
export function bassetFromGolden(config: unknown): GoldenCase {
  const model = basset({ ...optionsFromConfig(config), dropout: 0 });
  return {
    model,
    predict: ({ x }) => ({ logit: model(x!) }),
    loss: ({ logit }, { target }) => nn.bceWithLogits(logit!, target!),
    outputs: ({ logit }) => ({ logit: logit!, prob: sigmoid(logit!) }),
    weights: bassetWeights(model),
    runningStatistics: 'torch',
  };
}

function optionsFromConfig(config: unknown): BassetOptions {
  const given = fields(config, 'config');
  given.choice('model', ['basset']);
  return {
    padding: given.choice('padding', ['valid', 'same'], 'valid'),
    filters: given.integers('filters'),
    sizes: given.integers('sizes'),
    pools: given.integers('pools'),
    hidden: given.integers('hidden'),
    targets: given.integer('targets'),
    lengthBp: given.integer('seq_len'),
    epsilon: given.number('bn_eps', 1e-5),
    momentum: given.number('bn_momentum', 0.9),
  };
}
