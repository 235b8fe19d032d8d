/** Blocks on maps of pairs of bins, [batch, length, length, channels]: Akita's. */
import {
  add,
  concatDistance2d,
  crop2d,
  maxPool2d,
  nn,
  oneToTwo,
  symmetrize2d,
  type Tensor,
  trianglePairs,
  upperTriangular,
} from '@cohesin/core';
import type { Fields } from './fields.ts';
import { type Block, chain, type Flow, readCount, readDropout, through } from './flow.ts';
import { readDilationRates } from './rounding.ts';
import { activationOf, blockShared, normalization, regularized, type Shared } from './shared.ts';

/** `one_to_two`: a sequence of bins as a map of pairs: [batch, length, channels] → [batch, length, length, channels]. */
export function oneToTwoBlock(options: Fields, _: Shared, input: Flow): Block {
  const operation = options.choice('operation', ['mean', 'max', 'multiply'], 'mean');
  return { layer: stage((x) => oneToTwo(x, { operation })), output: { ...input, map: true } };
}

/** `concat_dist_2d`: one channel more, the distance in bins. */
export function concatDistance(_: Fields, __: Shared, input: Flow): Block {
  return { layer: stage(concatDistance2d), output: { ...input, channels: input.channels + 1 } };
}

/** `symmetrize_2d`: the mean of the map and its mirror image. */
export function symmetrize(_: Fields, __: Shared, input: Flow): Block {
  return { layer: stage(symmetrize2d), output: input };
}

/** `cropping_2d`: `cropping` bins less on every side. */
export function croppingMap(options: Fields, _: Shared, input: Flow): Block {
  const crop = readCount(options, 'cropping');
  const length = input.length - 2 * crop;
  if (length < 1)
    throw new Error(
      `${options.where}.cropping: ${crop} bins on every side are more than the ${input.length} there are; crop less than ${input.length / 2}`,
    );
  const output = { ...input, length, cropBp: input.cropBp + crop * input.binBp };
  return { layer: stage((x) => crop2d(x, { crop })), output };
}

/** `upper_tri`: the pairs at least `diagonal_offset` (2) bins apart as a vector: → [batch, pairs, channels]. */
export function upperTriangle(options: Fields, _: Shared, { map, ...input }: Flow): Block {
  const triangle = { length: input.length, offset: readCount(options, 'diagonal_offset', 2) };
  if (triangle.offset >= input.length)
    throw new Error(
      `${options.where}.diagonal_offset: no pair of ${input.length} bins is ${triangle.offset} bins apart; use a smaller one`,
    );
  const layer = stage((x) => upperTriangular(x, triangle));
  return { layer, output: { ...input, length: trianglePairs(input.length, triangle), triangle } };
}

/** `conv_block_2d`: activation, convolution (`same`; its bias only without a norm), norm, dropout, max-pool, mirror mean. */
export function convBlock2d(options: Fields, shared: Shared, input: Flow): Block {
  const read = {
    ...readMapConv(options, shared),
    filters: options.integer('filters', 128),
    size: options.integer('kernel_size', 1),
    dilation: options.integer('dilation_rate', 1),
    gamma: options.choice('norm_gamma', ['ones', 'zeros'], 'ones'),
    pool: options.integer('pool_size', 1),
    dropout: readDropout(options),
    symmetric: options.flag('symmetric', false),
  };
  return makeConvBlock2d(read, input);
}

/**
 * `dilated_residual_2d`: repeated x ← x + pointwise(dilated(x)), both `conv_block_2d`s, the dilation growing; made
 * symmetric each time unless told otherwise.
 */
export function dilatedResidual2d(options: Fields, shared: Shared, input: Flow): Block {
  const rates = readDilationRates(options);
  const each = { ...readMapConv(options, shared), pool: 1, symmetric: false };
  const filters = options.integer('filters');
  const size = options.integer('kernel_size', 3);
  const dropout = readDropout(options);
  const symmetric = options.flag('symmetric', true);
  const step = (dilation: number, flow: Flow): Block => {
    const into = { ...each, filters, size, dilation, dropout: 0, gamma: 'ones' } as const;
    const back = { ...each, filters: flow.channels, size: 1, dilation: 1, dropout, gamma: 'zeros' } as const;
    const dilated = makeConvBlock2d(into, flow);
    const parts = { dilated: dilated.layer, pointwise: makeConvBlock2d(back, dilated.output).layer };
    const layer = nn.layer(parts, (x: Tensor) => {
      const y = add(x, parts.pointwise(parts.dilated(x)));
      return symmetric ? symmetrize2d(y) : y;
    });
    return { layer, output: flow };
  };
  return chain(
    rates.map((dilation) => (flow: Flow) => step(dilation, flow)),
    input,
  );
}

interface MapConvOptions extends Shared {
  readonly where: string;
  readonly filters: number;
  readonly size: number;
  readonly dilation: number;
  readonly gamma: 'ones' | 'zeros';
  readonly dropout: number;
  readonly pool: number;
  readonly symmetric: boolean;
}

function readMapConv(options: Fields, shared: Shared): Shared & { readonly where: string } {
  options.choice('conv_type', ['standard'], 'standard');
  const stride = options.integer('stride', 1);
  if (stride !== 1)
    throw new Error(`${options.where}.stride: convolutions of maps have stride 1, found ${stride}`);
  return { where: options.where, ...blockShared(options, shared) };
}

function makeConvBlock2d(options: MapConvOptions, input: Flow): Block {
  const { filters, size, dilation, gamma, init, l2, pool, symmetric } = options;
  const bias = options.norm === undefined;
  const conv2d = nn.conv2d({ inputs: input.channels, outputs: filters, size, dilation, bias, init });
  const norm = normalization(filters, options, { gamma, variance: 'unbiased' }); // Keras' fused form for maps
  const dropout = nn.dropout({ rate: options.dropout });
  const activation = activationOf(options.activation, options.gelu);
  if (input.length % pool !== 0)
    throw new Error(
      `${options.where}.pool_size: ${pool} does not divide the ${input.length} bins of the map; use a divisor`,
    );
  const pooled = pool === 1 ? undefined : (x: Tensor): Tensor => maxPool2d(x, { size: pool });
  const parts = { conv2d: regularized(conv2d, l2), ...norm.parts, dropout };
  const layer = nn.layer(parts, (x: Tensor) =>
    through([activation, conv2d, norm.layer, dropout, pooled, symmetric ? symmetrize2d : undefined], x),
  );
  return {
    layer,
    output: { ...input, length: input.length / pool, channels: filters, binBp: input.binBp * pool },
  };
}

const stage = (forward: (x: Tensor) => Tensor): nn.Layer => nn.layer({}, forward);
