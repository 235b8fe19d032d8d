/** Blocks with linear layers. */
import { add, nn, reshape, type Tensor } from '@cohesin/core';
import type { Fields } from './fields.ts';
import { type Block, checkResidual, type Flow, readDropout, through } from './flow.ts';
import {
  ACTIVATION_NAMES,
  activationOf,
  blockShared,
  normalization,
  regularized,
  type Shared,
} from './shared.ts';

/**
 * `dense_block`: activation, linear (its bias only without a norm), norm, dropout, the input again if residual, end
 * activation: [batch, length, channels] → [batch, length, units], or [batch, 1, units] with `flatten`, which puts all
 * rows after each other, position by position.
 */
export function denseBlock(options: Fields, shared: Shared, input: Flow): Block {
  const { own, flat, units, residual, gamma } = readDense(options, shared, input);
  const norm = normalization(units, own, { gamma });
  const parts = {
    dense: linear(flat.output.channels, units, { ...own, bias: own.norm === undefined }),
    ...norm.parts,
    dropout: nn.dropout({ rate: readDropout(options) }),
  };
  const activation = activationOf(own.activation, own.gelu);
  const activationEnd = activationOf(options.choice('activation_end', ACTIVATION_NAMES, 'linear'), own.gelu);
  const layer = nn.layer(parts, (x: Tensor) => {
    const y = through([activation, flat.flatten, parts.dense, norm.layer, parts.dropout], x);
    return activationEnd(residual ? add(x, y) : y);
  });
  return { layer, output: { ...flat.output, channels: units } };
}

/**
 * `dense_nac`: norm, activation, linear with bias, dropout, the input again if residual; shapes as `denseBlock`.
 */
export function denseNac(options: Fields, shared: Shared, input: Flow): Block {
  const { own, flat, units, residual, gamma } = readDense(options, shared, input);
  const norm = normalization(input.channels, own, { gamma });
  const parts = {
    ...norm.parts,
    dense: linear(flat.output.channels, units, own),
    dropout: nn.dropout({ rate: readDropout(options) }),
  };
  const activation = activationOf(own.activation, own.gelu);
  const layer = nn.layer(parts, (x: Tensor) => {
    const y = through([norm.layer, activation, flat.flatten, parts.dense, parts.dropout], x);
    return residual ? add(x, y) : y;
  });
  return { layer, output: { ...flat.output, channels: units } };
}

/** What both take. */
function readDense(options: Fields, shared: Shared, input: Flow) {
  const own = blockShared(options, shared);
  const flat = flattened(options, input);
  const units = options.integer('units', input.channels);
  const residual = options.flag('residual', false);
  if (residual) checkResidual(options.where, input, { length: flat.output.length, channels: units });
  const gamma = options.choice('norm_gamma', ['ones', 'zeros'], residual ? 'zeros' : 'ones');
  return { own, flat, units, residual, gamma };
}

/**
 * `final`, the end of a head: linear with bias, then its activation: [batch, length, channels] → [batch, length, units],
 * flattened as `denseBlock`. As in Basenji the activation is the model's unless the block states one.
 */
export function final(options: Fields, shared: Shared, input: Flow): Block {
  const own = blockShared(options, shared);
  const flat = flattened(options, input);
  const units = options.integer('units');
  const dense = linear(flat.output.channels, units, own);
  const activation = activationOf(own.activation, own.gelu);
  const layer = nn.layer({ dense }, (x: Tensor) => through([flat.flatten, dense, activation], x));
  return { layer, output: { ...flat.output, channels: units, activation: own.activation } };
}

function linear(
  inputs: number,
  outputs: number,
  { init, l2, bias = true }: Pick<Shared, 'init' | 'l2'> & { readonly bias?: boolean },
): nn.Layer {
  return regularized(nn.linear({ inputs, outputs, bias, init }), l2);
}

interface Flattened {
  readonly flatten: ((x: Tensor) => Tensor) | undefined;
  readonly output: Flow;
}

/** With `flatten: true`, [batch, length, channels] → [batch, 1, length · channels]; otherwise nothing happens. */
function flattened(options: Fields, input: Flow): Flattened {
  const { length, channels, binBp, cropBp } = input;
  if (!options.flag('flatten', false)) return { flatten: undefined, output: input };
  const all = length * channels;
  const output = { length: 1, channels: all, binBp: length * binBp, cropBp };
  return { flatten: (x) => reshape(x, [-1, 1, all]), output };
}
