/** Blocks with convolutions. */
import { add, concat, nn, type Tensor } from '@cohesin/core';
import { type ConvOptions, convolution, convolved, pooling, readConv } from './convolution.ts';
import type { Fields } from './fields.ts';
import { type Block, chain, checkResidual, type Flow, readDropout, scaleLayer, through } from './flow.ts';
import { makeNac } from './nac-blocks.ts';
import { readDilationRates, readTowerFilters } from './rounding.ts';
import {
  ACTIVATION_NAMES,
  type ActivationName,
  activationOf,
  blockShared,
  normalization,
  type Part,
  part,
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

/**
 * `conv_dna`, a first block on DNA: convolution, norm, activation, dropout, pool; shapes as `convBlock`. If residual, a
 * pointwise `conv_nac` scaled from 0 is added in place of norm and activation.
 */
export function convDna(options: Fields, shared: Shared, input: Flow): Block {
  const { where } = options;
  const read = readConv(options, shared, { filters: input.channels, size: 15 });
  const isResidual = options.flag('residual', false);
  const residualDropout = readDropout(options, 'dropout_residual');
  const own = { ...read, bias: options.flag('use_bias', read.bias && !isResidual) };
  const conv = convolution(own, input.channels, where);
  const dropout = nn.dropout({ rate: own.dropout });
  const pool = pooling(own, own.filters);
  const middle = isResidual
    ? residualDna({ ...own, dropout: residualDropout }, where)
    : normAndActivation(own);
  const layer = nn.layer({ ...conv.parts, ...middle.parts, dropout, ...pool.parts }, (x: Tensor) =>
    through([conv.layer, middle.layer, dropout, pool.layer], x),
  );
  return { layer, output: convolved(own, input) };
}

function normAndActivation(options: ConvOptions): Part {
  const norm = normalization(options.filters, options);
  const activation = activationOf(options.activation, options.gelu);
  return { parts: norm.parts, layer: nn.layer({}, (x: Tensor) => through([norm.layer, activation], x)) };
}

function residualDna(options: ConvOptions, where: string): Part {
  const flow = { length: 1, channels: options.filters, binBp: 1, cropBp: 0 }; // only the channels count
  const nac = makeNac(
    { ...options, where, size: 1, stride: 1, pool: 1, bias: true, residual: false },
    flow,
  ).layer;
  const scale = scaleLayer(options.filters);
  return part(
    'residual',
    nn.layer({ nac, scale }, (x: Tensor) => add(x, scale(nac(x)))),
  );
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
  const rates = readDilationRates(options, options.flag('round', false));
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

/** `dilated_dense`: repeated x ← [x, conv_block(x)] side by side, the dilation growing: Basenji1's. */
export function dilatedDense(options: Fields, shared: Shared, input: Flow): Block {
  const rates = readDilationRates(options);
  const size = options.integer('kernel_size', 3);
  const filters = options.integer('filters');
  options.skip('dropout'); // upstream takes it and does not use it
  const each = { ...readConvBlock(options, shared, input), filters, size, dropout: 0, pool: 1, stride: 1 };
  const step = (dilation: number, flow: Flow): Block => {
    const block = makeConvBlock({ ...each, dilation }, flow);
    const layer = nn.layer({ block: block.layer }, (x: Tensor) => concat([x, block.layer(x)], { axis: 2 }));
    return { layer, output: { ...flow, channels: flow.channels + filters } };
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
