/** Published names of the weights of models made from files. */
import type { nn } from '@cohesin/core';
import { type PublishedName, type WeightMap, weightMap } from '../weight-map.ts';

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
 * order of the model, and its layouts are those of this library. A file made later in a Python process counts on from
 * another number, and one of weights alone has no `model_weights`: layers are matched by kind and order.
 */
export function kerasWeights(model: nn.AnyLayer): WeightMap {
  const layerName = kerasNumbers();
  const publish = (path: string): PublishedName => {
    const layer = layerName(path);
    const tensor = KERAS_TENSORS[path.split('.').slice(-2).join('.')];
    return { name: `${MODEL}${layer}/${layer}/${tensor}:0`, axes: 'same' };
  };
  return weightMap(model, publish, { canonical: renumbered });
}

const MODEL = 'model_weights/';

/** Names of a file with the layers of each kind counted from 0 in the order of their numbers. */
function renumbered(names: readonly string[]): Map<string, string> {
  const layers = new Map<string, { readonly kind: string; readonly number: number }>();
  for (const name of names) {
    const layer = layerIn(name);
    const [, kind, number] = /^(.*?)(?:_(\d+))?$/.exec(layer)!;
    layers.set(layer, { kind: kind!, number: Number(number ?? 0) });
  }
  const canonical = new Map<string, string>();
  for (const [layer, { kind, number }] of layers) {
    const before = [...layers.values()].filter(
      (other) => other.kind === kind && other.number < number,
    ).length;
    canonical.set(layer, before === 0 ? kind : `${kind}_${before}`);
  }
  return new Map(
    names.map((name) => {
      const layer = layerIn(name);
      const path = withoutModel(name).split('/');
      return [name, MODEL + path.map((part) => (part === layer ? canonical.get(layer) : part)).join('/')];
    }),
  );
}

const withoutModel = (name: string): string => (name.startsWith(MODEL) ? name.slice(MODEL.length) : name);
const layerIn = (name: string): string => withoutModel(name).split('/')[0]!;

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
