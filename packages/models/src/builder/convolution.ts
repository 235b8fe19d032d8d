/** The convolutions and pools that blocks share. */
import { maxPool1d, nn, type Tensor } from '@cohesin/core';
import type { Fields } from './fields.ts';
import { type Flow, readDropout } from './flow.ts';
import { blockShared, NO_PART, type Part, part, regularized, type Shared } from './shared.ts';

const CONVOLUTIONS = ['standard', 'separable'] as const;
const POOLS = ['max', 'softmax'] as const;

/** What every convolution of a file states. */
export interface ConvOptions extends Shared {
  readonly type: (typeof CONVOLUTIONS)[number];
  readonly filters: number;
  readonly size: number;
  readonly stride: number;
  readonly dilation: number;
  readonly bias: boolean;
  readonly dropout: number;
  readonly pool: number;
  readonly poolType: (typeof POOLS)[number];
}

/** Reads them. @throws on a wrong value, with its place. */
export function readConv(
  options: Fields,
  shared: Shared,
  otherwise: { readonly filters: number; readonly size: number },
): ConvOptions {
  const own = blockShared(options, shared);
  return {
    ...own,
    type: options.choice('conv_type', CONVOLUTIONS, 'standard'),
    filters: options.integer('filters', otherwise.filters),
    size: options.integer('kernel_size', otherwise.size),
    stride: options.integer('stride', 1),
    dilation: 1,
    bias: own.norm === undefined,
    dropout: readDropout(options),
    ...readPool(options, 1),
  };
}

/** The `pool_size` and `pool_type` of a block. */
export function readPool(options: Fields, size: number): Pick<ConvOptions, 'pool' | 'poolType'> {
  return {
    pool: options.integer('pool_size', size),
    poolType: options.choice('pool_type', POOLS, 'max'),
  };
}

/**
 * The convolution of a block, padded so that ⌈length / stride⌉ rows come out: the part `conv` or `separable`. Keras gives
 * its separable one neither the block's initialiser nor its penalty.
 *
 * @throws when a separable one has a stride.
 */
export function convolution(options: ConvOptions, inputs: number, where: string): Part {
  const { type, filters, size, stride, dilation, bias, init, l2 } = options;
  if (type === 'standard') {
    const window = { size, stride, dilation, padding: 'same' } as const;
    return part('conv', regularized(nn.conv1d({ inputs, outputs: filters, ...window, bias, init }), l2));
  }
  if (stride !== 1)
    throw new Error(`${where}.stride: a separable convolution has stride 1 here, found ${stride}`);
  const separable = { inputs, outputs: filters, size, dilation, bias, init: nn.init.glorotUniform };
  return part('separable', nn.separableConv1d(separable));
}

/** The pool of a block: the part `pool` where it has weights. */
export function pooling(
  { pool: size, poolType }: Pick<ConvOptions, 'pool' | 'poolType'>,
  channels: number,
): Part {
  if (size === 1) return NO_PART;
  if (poolType === 'softmax')
    return part('pool', nn.attentionPool({ channels, pool: size, perChannel: false }));
  return { parts: {}, layer: nn.layer({}, (x: Tensor) => maxPool1d(x, { size, padding: 'same' })) };
}

/** What flows on from a convolution and its pool. */
export function convolved(
  { filters, stride, pool }: Pick<ConvOptions, 'filters' | 'stride' | 'pool'>,
  input: Flow,
): Flow {
  const length = Math.ceil(Math.ceil(input.length / stride) / pool);
  return { length, channels: filters, binBp: input.binBp * stride * pool, cropBp: input.cropBp };
}
