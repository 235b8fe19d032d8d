/** Published names of the weights of models made from files. */
import type { nn, Parameter } from '@cohesin/core';
import { type PublishedName, type WeightMap, weightMap } from '../weight-map.ts';

/** The kind of layer, in Keras' words, that a part of a block is by its name. */
const KERAS_LAYERS: Readonly<Record<string, string>> = {
  conv: 'conv1d',
  separable: 'separable_conv1d',
  conv2d: 'conv2d',
  norm: 'batch_normalization',
  skip_norm: 'batch_normalization',
  layer_norm: 'layer_normalization',
  skip_layer_norm: 'layer_normalization',
  attention: 'multihead_attention',
  pool: 'softmax_pool1d',
  dense: 'dense',
  skip_dense: 'dense',
  dense_out: 'dense',
  scale: 'scale',
};

/** A parameter by its path within such a layer. */
interface Tensor {
  readonly keras: string;
  readonly torch?: string;
  readonly fileShape?: (shape: readonly number[]) => readonly number[];
}

const WEIGHTS: Readonly<Record<string, Readonly<Record<string, Tensor>>>> = {
  batch_normalization: {
    weight: { keras: 'gamma' },
    bias: { keras: 'beta' },
    running_mean: { keras: 'moving_mean' },
    running_var: { keras: 'moving_variance' },
  },
  layer_normalization: { weight: { keras: 'gamma' }, bias: { keras: 'beta' } },
  separable_conv1d: {
    'depthwise.weight': {
      keras: 'depthwise_kernel',
      torch: 'dw.weight',
      fileShape: ([size, one, channels]) => [size!, channels!, one!],
    },
    'pointwise.weight': { keras: 'pointwise_kernel', torch: 'pw.weight' },
    'pointwise.bias': { keras: 'bias', torch: 'pw.bias' },
  },
  multihead_attention: {
    'query.weight': { keras: 'q_layer/kernel', torch: 'q_layer.weight' },
    'key.weight': { keras: 'k_layer/kernel', torch: 'k_layer.weight' },
    'value.weight': { keras: 'v_layer/kernel', torch: 'v_layer.weight' },
    'relative_key.weight': { keras: 'r_k_layer/kernel', torch: 'r_k_layer.weight' },
    'embedding.weight': { keras: 'embedding_layer/kernel', torch: 'embedding_layer.weight' },
    'embedding.bias': { keras: 'embedding_layer/bias', torch: 'embedding_layer.bias' },
    r_w_bias: { keras: 'r_w_bias' },
    r_r_bias: { keras: 'r_r_bias' },
  },
  softmax_pool1d: { weight: { keras: 'dense/kernel' } },
  scale: { weight: { keras: 'scale' } },
};

const KERNEL_AND_BIAS: Readonly<Record<string, Tensor>> = {
  weight: { keras: 'kernel' },
  bias: { keras: 'bias' },
};

/**
 * The names in a Keras HDF5 file, `model_weights/conv1d_1/conv1d_1/kernel:0`: Keras numbers the layers of a kind in the
 * order of the model, and its layouts are those of this library. A file made later in a Python process counts on from
 * another number, and one of weights alone has no `model_weights`: layers are matched by kind and order.
 */
export function kerasWeights(model: nn.AnyLayer): WeightMap {
  const place = kerasNumbers();
  const publish = (path: string, { shape }: Parameter): PublishedName | undefined => {
    const { layer, tensor } = place(path);
    if (tensor === undefined) return undefined;
    const name = `${MODEL}${layer}/${layer}/${tensor.keras}:0`;
    return { name, axes: 'same', ...(tensor.fileShape && { fileShape: tensor.fileShape(shape) }) };
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
  const place = kerasNumbers();
  return weightMap(model, (path, { shape }): PublishedName | undefined => {
    const { layer, name, tensor } = place(path);
    if (tensor === undefined) return undefined;
    const axes =
      shape.length === 2 || shape.length === 3 ? 'reversed' : shape.length === 4 ? MAP_AXES(name) : 'same';
    return { name: `mods.${layer}.${tensor.torch ?? name}`, axes };
  });
}

/** A kernel over maps [height, width, in, out] is [out, in, height, width] there; attention's biases stay. */
const MAP_AXES = (name: string): 'same' | readonly number[] => (name === 'weight' ? [3, 2, 0, 1] : 'same');

interface Place {
  /** `conv1d_1`. */
  readonly layer: string;
  /** Of the parameter within the layer: `weight`. */
  readonly name: string;
  /** Missing for what no file holds, such as features of positions. */
  readonly tensor: Tensor | undefined;
}

/** Where parameters are, asked for in the order of the model: Keras calls layers `conv1d`, `conv1d_1`, … */
function kerasNumbers(): (path: string) => Place {
  const names = new Map<string, string>();
  const counts = new Map<string, number>();
  return (path) => {
    const parts = path.split('.');
    const end = parts.findIndex((part) => Object.hasOwn(KERAS_LAYERS, part)) + 1;
    if (end === 0) throw new Error(`no layer of Keras is known for ${path}`);
    const kind = KERAS_LAYERS[parts[end - 1]!]!;
    const own = parts.slice(0, end).join('.');
    const index = counts.get(kind) ?? 0;
    const layer = names.get(own) ?? (index === 0 ? kind : `${kind}_${index}`);
    if (!names.has(own)) counts.set(kind, index + 1);
    names.set(own, layer);
    const name = parts.slice(end).join('.');
    return { layer, name, tensor: (WEIGHTS[kind] ?? KERNEL_AND_BIAS)[name] };
  };
}
