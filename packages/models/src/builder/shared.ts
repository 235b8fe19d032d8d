/** Options that the model sets for all of its blocks and a block may set for itself, and the layers made from them. */
import {
  elu,
  geluErf,
  geluSigmoid,
  geluTanh,
  type Initializer,
  nn,
  relu,
  sigmoid,
  softplus,
  type Tensor,
  tanh,
} from '@cohesin/core';
import type { Fields } from './fields.ts';

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

const NORMS = ['batch', 'batch-sync'] as const;

/** What all blocks share. */
export interface Shared {
  readonly activation: ActivationName;
  readonly gelu: Gelu;
  readonly norm: boolean;
  /** Of batch norm: running ← momentum · running + (1 − momentum) · batch. */
  readonly momentum: number;
  readonly epsilon: number;
  readonly init: Initializer;
}

/** The model's `activation`, `norm_type` (or `batch_norm`), `bn_momentum`, … with Keras' values where it is silent. */
export function readShared(model: Fields, gelu: Gelu | undefined): Shared {
  const fromFile = model.choice('gelu', ['gelu_sigmoid', 'gelu_tanh', 'gelu_erf'], 'gelu_sigmoid');
  return {
    activation: model.choice('activation', ACTIVATION_NAMES),
    gelu: gelu ?? (fromFile.slice('gelu_'.length) as Gelu),
    epsilon: model.number('bn_eps', 1e-3), // Keras
    ...override(model, { norm: model.flag('batch_norm', false), momentum: 0.99, init: nn.init.heNormal }),
  };
}

/** What holds for one block. */
export function blockShared(block: Fields, shared: Shared): Shared {
  const activation = block.choice('activation', ACTIVATION_NAMES, shared.activation);
  return { ...shared, activation, ...override(block, shared) };
}

function override(
  given: Fields,
  shared: Pick<Shared, 'norm' | 'momentum' | 'init'>,
): Pick<Shared, 'norm' | 'momentum' | 'init'> {
  for (const name of ['l1_scale', 'l2_scale']) refuseUnlessZero(given, name);
  given.choice('padding', ['same'], 'same');
  const momentum = given.number('bn_momentum', shared.momentum);
  if (!(momentum >= 0 && momentum < 1)) {
    throw new Error(`${given.where}.bn_momentum: expected a number in [0, 1), found ${momentum}`);
  }
  const names = Object.keys(INITIALIZERS) as (keyof typeof INITIALIZERS)[];
  const init = given.has('kernel_initializer')
    ? INITIALIZERS[given.choice('kernel_initializer', names)]
    : shared.init;
  return { norm: readNorm(given, shared.norm), momentum, init };
}

function readNorm(given: Fields, otherwise: boolean): boolean {
  if (given.isNull('norm_type')) {
    given.skip('norm_type');
    return false;
  }
  if (!given.has('norm_type')) return otherwise;
  given.choice('norm_type', NORMS);
  return true;
}

function refuseUnlessZero(given: Fields, name: string): void {
  const scale = given.number(name, 0);
  if (scale === 0) return;
  throw new Error(
    `${given.where}.${name}: weights are not regularised here, found ${scale}; set it to 0 to train without`,
  );
}

/** The function an activation's name stands for. */
export function activationOf(name: ActivationName, gelu: Gelu): (x: Tensor) => Tensor {
  return ACTIVATIONS[name] ?? GELU[gelu];
}

/** Batch norm as in Keras; `zeros` makes a residual branch start as nothing. */
export function batchNorm(
  channels: number,
  { momentum, epsilon }: Shared,
  gamma: 'ones' | 'zeros' = 'ones',
): nn.Layer {
  return nn.batchNorm({ channels, momentum, epsilon, gamma, variance: 'biased' });
}

/** LeCun et al. 1998 as `lecun_normal` in Keras: √½ of He's. */
function lecunNormal(shape: readonly number[], seed: number): Float32Array {
  return nn.init.heNormal(shape, seed).map((value) => value * Math.SQRT1_2);
}
