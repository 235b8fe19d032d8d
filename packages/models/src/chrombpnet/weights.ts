/** Published names of ChromBPNet's weights, and reference files of the model. */
import type { nn } from '@cohesin/core';
import { bpnetGolden, bpnetTorchWeights, kerasName, lengthSecond } from '../bpnet/weights.ts';
import { fields } from '../builder/fields.ts';
import type { GoldenCase } from '../golden-case.ts';
import { type PublishedName, type WeightMap, type WeightMapOptions, weightMap } from '../weight-map.ts';
import { chrombpnet } from './model.ts';

/** The names in `chrombpnet.h5`, whose two models are groups; they are matched without the names of the groups. */
export function chrombpnetKerasWeights(model: nn.AnyLayer): WeightMap {
  const names = new Map<string, string>();
  const publish = (path: string): PublishedName => {
    const [part, ...rest] = path.split('.');
    const [layer, tensor] = kerasName(rest.join('.'));
    const isBias = part === 'bias';
    const inside = `${isBias ? layer : withoutBias(layer)}/${tensor}`;
    names.set(inside, `model_weights/${isBias ? 'model' : 'model_wo_bias'}/${inside}`);
    return { name: names.get(inside)!, axes: 'same' };
  };
  const canonical: WeightMapOptions['canonical'] = (given) =>
    new Map(given.map((name) => [name, names.get(name.split('/').slice(-2).join('/')) ?? name]));
  return weightMap(model, publish, { canonical });
}

/** The same layer of the accessibility model. */
const withoutBias = (layer: string): string =>
  layer.startsWith('bpnet_') ? `wo_bias_${layer}` : `wo_bias_bpnet_${layer}`;

/** A reference file's ChromBPNet: both models as in bpnet-lite, and both trained. */
export function chrombpnetFromGolden(config: unknown): GoldenCase {
  const given = fields(config, 'config');
  const size = (name: string): { filters: number; dilatedLayers: number } => {
    const part = fields(given.value(name), name);
    return { filters: part.integer('n_filters'), dilatedLayers: part.integer('n_layers') };
  };
  const model = chrombpnet({
    form: 'lite',
    accessibility: size('accessibility'),
    bias: size('bias'),
    trimming: given.integer('trimming'),
  });
  return {
    model,
    predict: ({ x }) => model(lengthSecond(x!)),
    ...bpnetGolden(given.number('count_loss_weight')),
    weights: bpnetTorchWeights(model),
    runningStatistics: 'torch',
  };
}
