/** Options that the model sets for all of its blocks and a block may set for itself, and the layers made from them. */
import {
  elu,
  geluErf,
  geluSigmoid,
  geluTanh,
  type Initializer,
  nn,
  Parameter,
  relu,
  sigmoid,
  softplus,
  type Tensor,
  tanh,
} from '@cohesin/core';
import type { Fields } from './fields.ts';
import type { Skip } from './skips.ts';

/**
 * The forms of GELU. `sigmoid`, x · sigmoid(1.702 x), is what basenji computed from 2018-12 to 2022-04 and what the
 * published Basenji2 and Enformer weights need; `tanh` is basenji's and baskerville's since; `erf` is exact.
 */
export type Gelu = 'sigmoid' | 'tanh' | 'erf';

const GELU: Readonly<Record<Gelu, (x: Tensor) => Tensor>> = {
  sigmoid: geluSigmoid,
  tanh: geluTanh,
  erf: geluErf,
};

/** Names of activations in files; `gelu` leaves its form to the model. */
export type ActivationName =
  | 'gelu'
  | 'gelu_sigmoid'
  | 'gelu_tanh'
  | 'gelu_erf'
  | 'relu'
  | 'elu'
  | 'tanh'
  | 'sigmoid'
  | 'softplus'
  | 'linear';

const ACTIVATIONS: Readonly<Record<ActivationName, ((x: Tensor) => Tensor) | undefined>> = {
  gelu: undefined,
  gelu_sigmoid: geluSigmoid,
  gelu_tanh: geluTanh,
  gelu_erf: geluErf,
  relu,
  elu,
  tanh,
  sigmoid,
  softplus,
  linear: (x) => x,
};

export const ACTIVATION_NAMES: readonly ActivationName[] = Object.keys(ACTIVATIONS) as ActivationName[];

const INITIALIZERS = {
  he_normal: nn.init.heNormal,
  lecun_normal: lecunNormal,
  glorot_uniform: nn.init.glorotUniform,
} as const;

const NORMS = ['batch', 'batch-sync', 'layer'] as const;

/** What all blocks share. */
export interface Shared {
  readonly activation: ActivationName;
  readonly gelu: Gelu;
  readonly norm: 'batch' | 'layer' | undefined;
  /** Of batch norm: running ← momentum · running + (1 − momentum) · batch. */
  readonly momentum: number;
  readonly epsilon: number;
  readonly init: Initializer;
  /** Of the ridge penalty of kernels. */
  readonly l2: number;
  /** What U-net blocks may come back to, in the order it is made; blocks add to it. */
  readonly skips: Skip[];
}

/** The model's `activation`, `norm_type` (or `batch_norm`), `bn_momentum`, … with Keras' values where it is silent. */
export function readShared(
  model: Fields,
  { gelu, otherwise }: { gelu: Gelu | undefined; otherwise: Gelu },
): Shared {
  const fromFile = model.choice('gelu', ['gelu_sigmoid', 'gelu_tanh', 'gelu_erf'], `gelu_${otherwise}`);
  const norm = model.flag('batch_norm', false) ? 'batch' : undefined;
  return {
    activation: model.choice('activation', ACTIVATION_NAMES),
    gelu: gelu ?? (fromFile.slice('gelu_'.length) as Gelu),
    epsilon: model.number('bn_eps', 1e-3), // Keras
    skips: [],
    ...override(model, { norm, momentum: 0.99, init: nn.init.heNormal, l2: 0 }),
  };
}

/** What holds for one block. */
export function blockShared(block: Fields, shared: Shared): Shared {
  const activation = block.choice('activation', ACTIVATION_NAMES, shared.activation);
  return { ...shared, activation, ...override(block, shared) };
}

type Overridden = Pick<Shared, 'norm' | 'momentum' | 'init' | 'l2'>;

function override(given: Fields, shared: Overridden): Overridden {
  refuseUnlessZero(given, 'l1_scale');
  given.choice('padding', ['same'], 'same');
  const momentum = given.number('bn_momentum', shared.momentum);
  if (!(momentum >= 0 && momentum < 1)) {
    throw new Error(`${given.where}.bn_momentum: expected a number in [0, 1), found ${momentum}`);
  }
  const norm = readNorm(given, shared.norm);
  const init = readInit(given, 'kernel_initializer', shared.init);
  return { norm, momentum, init, l2: readScale(given, 'l2_scale', shared.l2) };
}

function readNorm(given: Fields, otherwise: Shared['norm']): Shared['norm'] {
  if (given.isNull('norm_type')) {
    given.skip('norm_type');
    return undefined;
  }
  if (!given.has('norm_type')) return otherwise;
  return given.choice('norm_type', NORMS) === 'layer' ? 'layer' : 'batch';
}

/** How weights start, by the names of Keras. */
export function readInit(given: Fields, name: string, otherwise: Initializer): Initializer {
  const names = Object.keys(INITIALIZERS) as (keyof typeof INITIALIZERS)[];
  return given.has(name) ? INITIALIZERS[given.choice(name, names)] : otherwise;
}

/** The scale of a ridge penalty. */
export function readScale(given: Fields, name: string, otherwise: number): number {
  const scale = given.number(name, otherwise);
  if (scale >= 0) return scale;
  throw new Error(`${given.where}.${name}: expected a number ≥ 0, found ${scale}`);
}

function refuseUnlessZero(given: Fields, name: string): void {
  const scale = given.number(name, 0);
  if (scale === 0) return;
  throw new Error(
    `${given.where}.${name}: sums of |weight| are not penalised here, found ${scale}; set it to 0 to train without`,
  );
}

/** The function an activation's name stands for. */
export function activationOf(name: ActivationName, gelu: Gelu): (x: Tensor) => Tensor {
  return ACTIVATIONS[name] ?? GELU[gelu];
}

/** A part of a block under the name that says what kind of layer it is; `layer` is missing where there is none. */
export interface Part {
  readonly parts: Readonly<Record<string, nn.AnyLayer>>;
  readonly layer: nn.Layer | undefined;
}

/** A layer as the part `name`. */
export const part = (name: string, layer: nn.Layer): Part => ({ parts: { [name]: layer }, layer });
export const NO_PART: Part = { parts: {}, layer: undefined };

interface NormOptions extends Pick<nn.BatchNormOptions, 'gamma' | 'variance'> {
  readonly prefix?: string;
}

/**
 * The norm that holds for a block, as in Keras: the part `norm` or `layer_norm`, after a prefix where a block has two.
 * Gamma from `zeros` makes a residual branch start as nothing.
 */
export function normalization(
  channels: number,
  { norm, momentum, epsilon }: Shared,
  { gamma = 'ones', prefix = '', variance = 'biased' }: NormOptions = {},
): Part {
  if (norm === undefined) return NO_PART;
  if (norm === 'batch')
    return part(`${prefix}norm`, nn.batchNorm({ channels, momentum, epsilon, gamma, variance }));
  return part(`${prefix}layer_norm`, nn.layerNorm({ channels, epsilon, gamma }));
}

/** The same layer, its kernels (not biases) held small by a ridge penalty. */
export function regularized(layer: nn.Layer, l2: number): nn.Layer {
  for (const weight of Object.values(layer.parts))
    if (weight instanceof Parameter && weight.shape.length > 1) weight.l2 = l2;
  return layer;
}

/** LeCun et al. 1998 as `lecun_normal` in Keras: √½ of He's. */
function lecunNormal(shape: readonly number[], seed: number): Float32Array {
  return nn.init.heNormal(shape, seed).map((value) => value * Math.SQRT1_2);
}
