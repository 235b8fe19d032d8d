/** Blocks with convolutions. */
import { add, nn, type Tensor } from '@cohesin/core';
import { type ConvOptions, convolution, convolved, pooling, readConv } from './convolution.ts';
import type { Fields } from './fields.ts';
import { type Block, chain, checkResidual, type Flow, readDropout, scaleLayer, through } from './flow.ts';
import { dilationRates, readTowerFilters } from './rounding.ts';
import {
  ACTIVATION_NAMES,
  type ActivationName,
  activationOf,
  blockShared,
  normalization,
  type Shared,
} from './shared.ts';
import { kept } from './skips.ts';

interface ConvBlockOptions extends ConvOptions {
  /** The block's place in its file. */
  readonly where: string;
  readonly residual: boolean;
  readonly gamma: 'ones' | 'zeros';
  readonly activationEnd: ActivationName;
}

/**
 * `conv_block`: activation, convolution (`same`; its bias only without a norm), norm, dropout, the input again if
 * residual, end activation, max-pool (`same`): [batch, length, channels] → [batch, ⌈⌈length / stride⌉ / pool⌉, filters].
 * The activation comes first, so the first block of a model applies it to the sequence itself.
 */
export function convBlock(options: Fields, shared: Shared, input: Flow): Block {
  return makeConvBlock(readConvBlock(options, shared, input), input);
}

/** `conv_dna`, a first block on DNA: convolution, norm, activation, dropout, max-pool; shapes as `convBlock`. */
export function convDna(options: Fields, shared: Shared, input: Flow): Block {
  const read = readConv(options, shared, { filters: input.channels, size: 15 });
  const own = { ...read, bias: options.flag('use_bias', read.bias) };
  const conv = convolution(own, input.channels, options.where);
  const norm = normalization(own.filters, own);
  const dropout = nn.dropout({ rate: own.dropout });
  const pool = pooling(own, own.filters);
  const activation = activationOf(own.activation, own.gelu);
  const layer = nn.layer({ ...conv.parts, ...norm.parts, dropout, ...pool.parts }, (x: Tensor) =>
    through([conv.layer, norm.layer, activation, dropout, pool.layer], x),
  );
  return { layer, output: convolved(own, input) };
}

/** `conv_tower`: `conv_block`s with more filters from one to the next, each kept for U-net blocks. */
export function convTower(options: Fields, shared: Shared, input: Flow): Block {
  const filters = readTowerFilters(options);
  const each = readConvBlock(options, shared, input);
  return chain(
    filters.map(
      (count) => (flow: Flow) => kept(makeConvBlock({ ...each, filters: count }, flow), shared.skips),
    ),
    input,
  );
}

/**
 * `dilated_residual`: repeated x ← x + pointwise(dilated(x)), both `conv_block`s, the dilation growing: the shape stays.
 * The last batch norm of each branch starts with scale 0, so that the tower starts as the identity.
 */
export function dilatedResidual(options: Fields, shared: Shared, input: Flow): Block {
  const rates = dilationRates({
    multiplier: options.number('rate_mult', 2),
    repeat: options.integer('repeat', 1),
    round: options.flag('round', false),
  });
  const own = blockShared(options, shared);
  const plain = {
    where: options.where,
    ...own,
    type: 'standard',
    bias: own.norm === undefined,
    stride: 1,
    pool: 1,
    poolType: 'max',
    residual: false,
    activationEnd: 'linear',
  } as const;
  const type = options.choice('conv_type', ['standard', 'separable'], 'standard');
  const filters = options.integer('filters');
  const size = options.integer('kernel_size', 3);
  const dropout = readDropout(options);
  const step = (dilation: number, flow: Flow): Block => {
    const into = { ...plain, type, filters, size, dilation, dropout: 0, gamma: 'ones' } as const;
    const back = { ...plain, filters: flow.channels, size: 1, dilation: 1, dropout, gamma: 'zeros' } as const;
    const dilated = makeConvBlock(into, flow);
    const pointwise = makeConvBlock(back, dilated.output);
    return {
      layer: residual(dilated.layer, pointwise.layer, own.norm === undefined ? flow.channels : 0),
      output: flow,
    };
  };
  return chain(
    rates.map((dilation) => (flow: Flow) => step(dilation, flow)),
    input,
  );
}

/** x + pointwise(dilated(x)); without a norm the branch has a scale per channel, from 0. */
function residual(dilated: nn.Layer, pointwise: nn.Layer, scaledChannels: number): nn.Layer {
  const scale = scaledChannels === 0 ? undefined : scaleLayer(scaledChannels);
  return nn.layer({ dilated, pointwise, scale }, (x: Tensor) =>
    add(x, through([dilated, pointwise, scale], x)),
  );
}

function readConvBlock(options: Fields, shared: Shared, input: Flow): ConvBlockOptions {
  const isResidual = options.flag('residual', false);
  return {
    where: options.where,
    ...readConv(options, shared, { filters: input.channels, size: 1 }),
    dilation: options.integer('dilation_rate', 1),
    residual: isResidual,
    gamma: options.choice('norm_gamma', ['ones', 'zeros'], isResidual ? 'zeros' : 'ones'),
    activationEnd: options.choice('activation_end', ACTIVATION_NAMES, 'linear'),
  };
}

function makeConvBlock(options: ConvBlockOptions, input: Flow): Block {
  const { where, gelu, filters, gamma } = options;
  if (options.residual) checkResidual(where, input, convolved({ ...options, pool: 1 }, input));
  const conv = convolution(options, input.channels, where);
  const norm = normalization(filters, options, { gamma });
  const dropout = nn.dropout({ rate: options.dropout });
  const pool = pooling(options, filters);
  const activation = activationOf(options.activation, gelu);
  const activationEnd = activationOf(options.activationEnd, gelu);
  const parts = { ...conv.parts, ...norm.parts, dropout, ...pool.parts };
  const layer = nn.layer(parts, (x: Tensor) => {
    const y = through([activation, conv.layer, norm.layer, dropout], x);
    return through([activationEnd, pool.layer], options.residual ? add(x, y) : y);
  });
  return { layer, output: convolved(options, input) };
}
