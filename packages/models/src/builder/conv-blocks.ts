/** Blocks with convolutions. */
import { add, maxPool1d, multiply, nn, parameter, type Tensor } from '@cohesin/core';
import type { Fields } from './fields.ts';
import { type Block, chain, checkResidual, type Flow, readDropout, through } from './flow.ts';
import { dilationRates, towerFilters } from './rounding.ts';
import {
  ACTIVATION_NAMES,
  type ActivationName,
  activationOf,
  batchNorm,
  blockShared,
  type Shared,
} from './shared.ts';

/** What every convolution of a file states. */
interface ConvOptions extends Shared {
  readonly filters: number;
  readonly size: number;
  readonly stride: number;
  readonly dilation: number;
  readonly bias: boolean;
  readonly gamma: 'ones' | 'zeros';
  readonly dropout: number;
  readonly pool: number;
}

interface ConvBlockOptions extends ConvOptions {
  /** The block's place in its file. */
  readonly where: string;
  readonly residual: boolean;
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
  const conv = readConv(options, shared, { filters: input.channels, size: 15 });
  const bias = options.flag('use_bias', conv.bias);
  const parts = convParts({ ...conv, bias }, input);
  const activation = activationOf(conv.activation, conv.gelu);
  const layer = nn.layer(parts, (x: Tensor) =>
    pooled(through([parts.conv, parts.norm, activation, parts.dropout], x), conv.pool),
  );
  return { layer, output: convolved(conv, input) };
}

/** `conv_tower`: `conv_block`s with more filters from one to the next. */
export function convTower(options: Fields, shared: Shared, input: Flow): Block {
  const repeat = options.integer('repeat', 1);
  const first = options.number('filters_init');
  if (options.has('filters')) {
    throw new Error(`${options.where}.filters: a tower has filters_init, and filters_mult or filters_end`);
  }
  const filters = towerFilters({
    first,
    multiplier: readMultiplier(options, first, repeat),
    repeat,
    divisibleBy: options.integer('divisible_by', 1),
  });
  const each = readConvBlock(options, shared, input);
  return chain(
    filters.map((count) => (flow: Flow) => makeConvBlock({ ...each, filters: count }, flow)),
    input,
  );
}

function readMultiplier(options: Fields, first: number, repeat: number): number {
  if (options.has('filters_mult')) return options.number('filters_mult');
  const last = options.number('filters_end');
  return repeat === 1 ? 1 : Math.exp(Math.log(last / first) / (repeat - 1));
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
  options.choice('conv_type', ['standard'], 'standard');
  const own = blockShared(options, shared);
  const plain = {
    where: options.where,
    ...own,
    bias: !own.norm,
    stride: 1,
    pool: 1,
    residual: false,
    activationEnd: 'linear',
  } as const;
  const filters = options.integer('filters');
  const size = options.integer('kernel_size', 3);
  const dropout = readDropout(options);
  const step = (dilation: number, flow: Flow): Block => {
    const into = { ...plain, filters, size, dilation, dropout: 0, gamma: 'ones' } as const;
    const back = { ...plain, filters: flow.channels, size: 1, dilation: 1, dropout, gamma: 'zeros' } as const;
    const dilated = makeConvBlock(into, flow);
    const pointwise = makeConvBlock(back, dilated.output);
    return { layer: residual(dilated.layer, pointwise.layer, own.norm ? 0 : flow.channels), output: flow };
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

function scaleLayer(channels: number): nn.Layer {
  const weight = parameter([channels]);
  return nn.layer({ weight }, (x: Tensor) => multiply(x, weight));
}

/** What `conv_block` and `conv_dna` both know. */
function readConv(
  options: Fields,
  shared: Shared,
  otherwise: { readonly filters: number; readonly size: number },
): ConvOptions {
  const own = blockShared(options, shared);
  options.choice('conv_type', ['standard'], 'standard');
  options.choice('pool_type', ['max'], 'max');
  return {
    ...own,
    filters: options.integer('filters', otherwise.filters),
    size: options.integer('kernel_size', otherwise.size),
    stride: options.integer('stride', 1),
    dilation: 1,
    bias: !own.norm,
    gamma: 'ones',
    dropout: readDropout(options),
    pool: options.integer('pool_size', 1),
  };
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
  const { gelu, pool } = options;
  if (options.residual) checkResidual(options.where, input, convolved({ ...options, pool: 1 }, input));
  const parts = convParts(options, input);
  const activation = activationOf(options.activation, gelu);
  const activationEnd = activationOf(options.activationEnd, gelu);
  const layer = nn.layer(parts, (x: Tensor) => {
    const y = through([activation, parts.conv, parts.norm, parts.dropout], x);
    return pooled(activationEnd(options.residual ? add(x, y) : y), pool);
  });
  return { layer, output: convolved(options, input) };
}

function convParts(
  options: ConvOptions,
  input: Flow,
): { conv: nn.Layer; norm: nn.Layer | undefined; dropout: nn.Layer } {
  const { filters, size, stride, dilation, bias, init } = options;
  const window = { size, stride, dilation, padding: 'same' } as const;
  return {
    conv: nn.conv1d({ inputs: input.channels, outputs: filters, ...window, bias, init }),
    norm: options.norm ? batchNorm(filters, options, options.gamma) : undefined,
    dropout: nn.dropout({ rate: options.dropout }),
  };
}

function convolved({ filters, stride, pool }: ConvOptions, input: Flow): Flow {
  const length = Math.ceil(Math.ceil(input.length / stride) / pool);
  return { length, channels: filters, binBp: input.binBp * stride * pool, cropBp: input.cropBp };
}

function pooled(x: Tensor, size: number): Tensor {
  return size === 1 ? x : maxPool1d(x, { size, padding: 'same' });
}
