/** Names of the first Basenji's weights, and reference files of the model. */
import { nn } from '@cohesin/core';
import { fields } from '../builder/fields.ts';
import type { GoldenCase } from '../golden-case.ts';
import { type WeightMap, weightMap } from '../weight-map.ts';
import { type Basenji1Layer, type Basenji1Options, basenji1 } from './model.ts';

/**
 * The model's tensors as `conv.<i>.weight`, `bn.<i>` (`.weight`, `.bias`, `.running_mean`, `.running_var`) and `final`
 * (`.weight`, `.bias`); convolutions [out, in, size].
 */
export function basenji1Weights(model: nn.AnyLayer): WeightMap {
  return weightMap(model, (path, { shape }) => {
    const name = path
      .replace(/^layers\.(\d+)\.conv\./, 'conv.$1.')
      .replace(/^layers\.(\d+)\.norm\./, 'bn.$1.');
    return { name, axes: shape.length > 1 ? 'reversed' : 'same' };
  });
}

/** A reference file's Basenji1, whose config lists each option for all layers. */
export function basenji1FromGolden(config: unknown): GoldenCase {
  const model = basenji1(optionsFromConfig(config));
  return {
    model,
    predict: ({ x }) => ({ pred: model(x!) }),
    loss: ({ pred }, { target }) => nn.fullPoissonLoss(pred!, target!),
    weights: basenji1Weights(model),
    runningStatistics: 'keras',
  };
}

function optionsFromConfig(config: unknown): Basenji1Options {
  const given = fields(config, 'config');
  const [sizes, pools, dilations] = [
    given.integers('sizes'),
    given.integers('pool'),
    given.integers('dilation'),
  ];
  const dense = given.value('dense') as readonly number[];
  const layers = given.integers('filters').map(
    (filters, i): Basenji1Layer => ({
      filters,
      size: sizes[i]!,
      pool: pools[i]!,
      dilation: dilations[i]!,
      dense: dense[i] === 1,
    }),
  );
  return {
    lengthBp: given.integer('seq_length'),
    layers,
    bufferBp: given.integer('batch_buffer'),
    targets: given.integer('num_targets'),
    epsilon: given.number('bn_eps'),
    momentum: given.number('bn_momentum'),
  };
}
