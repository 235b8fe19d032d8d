/** Published names of the weights of models made from files, and reference files of such models. */
import { nn } from '@cohesin/core';
import { type GoldenCase, sequenceAndTarget } from '../golden-case.ts';
import { type PublishedName, type WeightMap, weightMap } from '../weight-map.ts';
import { modelFromParams } from './model.ts';

const KERAS_LAYERS: Readonly<Record<string, string>> = {
  conv: 'conv1d',
  norm: 'batch_normalization',
  dense: 'dense',
  scale: 'scale',
};
const KERAS_TENSORS: Readonly<Record<string, string>> = {
  'norm.weight': 'gamma',
  'norm.bias': 'beta',
  'norm.running_mean': 'moving_mean',
  'norm.running_var': 'moving_variance',
  'conv.weight': 'kernel',
  'dense.weight': 'kernel',
  'conv.bias': 'bias',
  'dense.bias': 'bias',
  'scale.weight': 'scale',
};

/**
 * The names in a Keras HDF5 file, `model_weights/conv1d_1/conv1d_1/kernel:0`: Keras numbers the layers of a kind in the
 * order of the model, and its layouts are those of this library.
 */
export function kerasWeights(model: nn.AnyLayer): WeightMap {
  const layerName = kerasNumbers();
  return weightMap(model, (path): PublishedName => {
    const layer = layerName(path);
    const tensor = KERAS_TENSORS[path.split('.').slice(-2).join('.')];
    return { name: `model_weights/${layer}/${layer}/${tensor}:0`, axes: 'same' };
  });
}

/** The names of PyTorch reference files: `mods.conv1d_1.weight` [out, in, size], `mods.dense.weight` [out, in]. */
export function torchWeights(model: nn.AnyLayer): WeightMap {
  const layerName = kerasNumbers();
  return weightMap(model, (path, { shape }): PublishedName => {
    const tensor = path.slice(path.lastIndexOf('.') + 1);
    return { name: `mods.${layerName(path)}.${tensor}`, axes: shape.length > 1 ? 'reversed' : 'same' };
  });
}

/** Names layers as Keras does, when asked in the order of the model: `conv1d`, `conv1d_1`, … */
function kerasNumbers(): (path: string) => string {
  const names = new Map<string, string>();
  const counts = new Map<string, number>();
  return (path) => {
    const layer = path.slice(0, path.lastIndexOf('.'));
    const known = names.get(layer);
    if (known !== undefined) return known;
    const kind = KERAS_LAYERS[layer.slice(layer.lastIndexOf('.') + 1)]!;
    const index = counts.get(kind) ?? 0;
    counts.set(kind, index + 1);
    const name = index === 0 ? kind : `${kind}_${index}`;
    names.set(layer, name);
    return name;
  };
}

const STATED = ['seq_length', 'activation', 'gelu', 'norm_type', 'bn_momentum', 'bn_eps', 'trunk'];

/** A reference file's model; its config has the `model` part of a parameter file among other things. */
export function builtFromGolden(config: unknown): GoldenCase {
  const stated = Object.entries(config as Readonly<Record<string, unknown>>).filter(
    ([name]) => STATED.includes(name) || name.startsWith('head'),
  );
  const built = modelFromParams({ model: withoutDropout(Object.fromEntries(stated)) });
  return {
    model: built.model,
    loss: nn.poissonLoss,
    outputs: (pred) => ({ pred }),
    extra: (prediction, target) => ({
      eval_loss_poisson_multinomial_basenji_w1: nn.poissonMultinomialLoss(prediction, target, {
        form: 'basenji',
      }),
      eval_loss_poisson_multinomial_baskerville_w02: nn.poissonMultinomialLoss(prediction, target, {
        form: 'baskerville',
        totalWeight: 0.2,
      }),
    }),
    inputs: sequenceAndTarget,
    weights: torchWeights(built.model),
    runningStatistics: 'keras',
  };
}

/** The same JSON without any `dropout`. */
function withoutDropout(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDropout);
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(([name]) => name !== 'dropout');
  return Object.fromEntries(kept.map(([name, inner]) => [name, withoutDropout(inner)]));
}
