/**
 * The blocks a Basenji or baskerville file is made of, by name. Each reads its options from the file and says what it
 * makes of rows and channels.
 */
import { add, multiply, nn, parameter, reshape, slice, type Tensor } from '@cohesin/core';
import type { Fields } from './fields.ts';
import { dilationRates, towerFilters } from './rounding.ts';
import {
  ACTIVATION_NAMES,
  type ActivationName,
  activationOf,
  batchNorm,
  blockShared,
  type Shared,
} from './shared.ts';

/** What flows from block to block: [batch, length, channels]. */
export interface Flow {
  readonly length: number;
  readonly channels: number;
  /** Bases behind one row. */
  readonly binBp: number;
  /** Bases cut off so far at each end. */
  readonly cropBp: number;
  /** The last activation, which a loss has to fit; undefined when something came after it. */
  readonly activation?: ActivationName;
}

/** A block with what comes out of it. */
export interface Block {
  readonly layer: nn.Layer;
  readonly output: Flow;
}

type Maker = (options: Fields, shared: Shared, input: Flow) => Block;

const BLOCKS: Readonly<Record<string, Maker>> = {
  conv_block: convBlockFromFile,
  conv_dna: convDna,
  conv_tower: convTower,
  dilated_residual: dilatedResidual,
  Cropping1D: cropping,
  dense_block: denseBlock,
  dense: final,
  final,
};

/** One block of a file. @throws when its name or one of its options is unknown, with the place in the file. */
export function block(options: Fields, shared: Shared, input: Flow): Block {
  const name = options.text('name');
  const make = Object.hasOwn(BLOCKS, name) ? BLOCKS[name] : undefined;
  if (make === undefined) {
    throw new Error(
      `${options.where}.name: '${name}' is no known block; known are ${Object.keys(BLOCKS).join(', ')}`,
    );
  }
  const made = make(options, shared, input);
  options.finish();
  return made;
}

interface ConvOptions extends Shared {
  readonly filters: number;
  readonly size: number;
  readonly stride: number;
  readonly dilation: number;
  readonly dropout: number;
  readonly pool: number;
  readonly residual: boolean;
  readonly gamma: 'ones' | 'zeros';
  readonly activationEnd: ActivationName | undefined;
}

function convBlockFromFile(options: Fields, shared: Shared, input: Flow): Block {
  return convBlock(readConv(options, shared, input), input);
}

/** Everything a `conv_block` has but the number of filters. */
function readConv(options: Fields, shared: Shared, input: Flow): ConvOptions {
  options.choice('conv_type', ['standard'], 'standard');
  options.choice('pool_type', ['max'], 'max');
  const residual = options.flag('residual', false);
  return {
    ...blockShared(options, shared),
    filters: options.integer('filters', input.channels),
    size: options.integer('kernel_size', 1),
    stride: options.integer('stride', 1),
    dilation: options.integer('dilation_rate', 1),
    dropout: readDropout(options),
    pool: options.integer('pool_size', 1),
    residual,
    gamma: options.choice('norm_gamma', ['ones', 'zeros'], residual ? 'zeros' : 'ones'),
    activationEnd: options.has('activation_end')
      ? options.choice('activation_end', ACTIVATION_NAMES)
      : undefined,
  };
}

/**
 * Activation, convolution (`same`; its bias only without a norm), norm, dropout, the input again if residual, end
 * activation, max-pool (`same`): [batch, length, channels] → [batch, ⌈⌈length / stride⌉ / pool⌉, filters]. The
 * activation comes first, so the first block of a model applies it to the sequence itself.
 */
function convBlock(options: ConvOptions, input: Flow): Block {
  const { size, stride, dilation, filters, norm, residual, pool, init, gelu } = options;
  const length = Math.ceil(input.length / stride);
  const parts = {
    conv: nn.conv1d({
      inputs: input.channels,
      outputs: filters,
      size,
      stride,
      dilation,
      padding: 'same',
      bias: !norm,
      init,
    }),
    norm: norm ? batchNorm(filters, options, options.gamma) : undefined,
    dropout: nn.dropout({ rate: options.dropout }),
  };
  if (residual && (filters !== input.channels || length !== input.length)) {
    throw new Error(
      `a residual block must keep its shape, but ${input.length} rows of ${input.channels} channels become ${length} of ${filters}; set filters: ${input.channels} and stride: 1`,
    );
  }
  const activation = activationOf(options.activation, gelu);
  const activationEnd = activationOf(options.activationEnd ?? 'linear', gelu);
  const layer = nn.layer(parts, (x: Tensor) => {
    const y = through([activation, parts.conv, parts.norm, parts.dropout], x);
    return pooled(activationEnd(residual ? add(x, y) : y), pool);
  });
  const binBp = input.binBp * stride * pool;
  return {
    layer,
    output: { length: Math.ceil(length / pool), channels: filters, binBp, cropBp: input.cropBp },
  };
}

/** A first block on DNA: convolution, norm, activation, dropout, max-pool; shapes as `convBlock`. */
function convDna(options: Fields, shared: Shared, input: Flow): Block {
  const own = blockShared(options, shared);
  options.choice('conv_type', ['standard'], 'standard');
  options.choice('pool_type', ['max'], 'max');
  const filters = options.integer('filters', input.channels);
  const size = options.integer('kernel_size', 15);
  const stride = options.integer('stride', 1);
  const pool = options.integer('pool_size', 1);
  const bias = options.flag('use_bias', !own.norm);
  const parts = {
    conv: nn.conv1d({
      inputs: input.channels,
      outputs: filters,
      size,
      stride,
      padding: 'same',
      bias,
      init: own.init,
    }),
    norm: own.norm ? batchNorm(filters, own) : undefined,
    dropout: nn.dropout({ rate: readDropout(options) }),
  };
  const activation = activationOf(own.activation, own.gelu);
  const layer = nn.layer(parts, (x: Tensor) =>
    pooled(through([parts.conv, parts.norm, activation, parts.dropout], x), pool),
  );
  const length = Math.ceil(Math.ceil(input.length / stride) / pool);
  return {
    layer,
    output: { length, channels: filters, binBp: input.binBp * stride * pool, cropBp: input.cropBp },
  };
}

/** `conv_block`s with more filters from one to the next. */
function convTower(options: Fields, shared: Shared, input: Flow): Block {
  const repeat = options.integer('repeat', 1);
  const first = options.number('filters_init');
  const filters = towerFilters({
    first,
    multiplier: readMultiplier(options, first, repeat),
    repeat,
    divisibleBy: options.integer('divisible_by', 1),
  });
  const { filters: _, ...each } = readConv(options, shared, input);
  return chain(
    filters.map((count) => (flow: Flow) => convBlock({ ...each, filters: count }, flow)),
    input,
  );
}

function readMultiplier(options: Fields, first: number, repeat: number): number {
  if (options.has('filters_mult')) return options.number('filters_mult');
  const last = options.number('filters_end');
  return repeat === 1 ? 1 : Math.exp(Math.log(last / first) / (repeat - 1));
}

/**
 * Repeated x ← x + pointwise(dilated(x)), both `conv_block`s, the dilation growing: the shape stays. The last batch
 * norm of each branch starts with scale 0, so that the tower starts as the identity.
 */
function dilatedResidual(options: Fields, shared: Shared, input: Flow): Block {
  const repeat = options.integer('repeat', 1);
  const multiplier = options.number('rate_mult', 2);
  const rates = dilationRates({ multiplier, repeat, round: options.flag('round', false) });
  options.choice('conv_type', ['standard'], 'standard');
  const plain = {
    ...blockShared(options, shared),
    stride: 1,
    pool: 1,
    residual: false,
    activationEnd: undefined,
  };
  const filters = options.integer('filters');
  const size = options.integer('kernel_size', 3);
  const dropout = readDropout(options);
  const residual =
    (dilation: number) =>
    (flow: Flow): Block => {
      const dilated = convBlock({ ...plain, filters, size, dilation, dropout: 0, gamma: 'ones' }, flow);
      const back = { filters: flow.channels, size: 1, dilation: 1, dropout, gamma: 'zeros' } as const;
      const pointwise = convBlock({ ...plain, ...back }, dilated.output);
      return {
        layer: residualLayer(dilated.layer, pointwise.layer, plain.norm ? undefined : flow.channels),
        output: flow,
      };
    };
  return chain(rates.map(residual), input);
}

/** x + pointwise(dilated(x)); without a norm the branch is scaled per channel, from 0. */
function residualLayer(dilated: nn.Layer, pointwise: nn.Layer, scaled: number | undefined): nn.Layer {
  const scale = scaled === undefined ? undefined : scaleLayer(scaled);
  return nn.layer({ dilated, pointwise, scale }, (x: Tensor) =>
    add(x, through([dilated, pointwise, scale], x)),
  );
}

function scaleLayer(channels: number): nn.Layer {
  const weight = parameter([channels]);
  return nn.layer({ weight }, (x: Tensor) => multiply(x, weight));
}

/** `cropping` rows less at each end: [batch, length, channels] → [batch, length − 2 · cropping, channels]. */
function cropping(options: Fields, _: Shared, input: Flow): Block {
  const both = options.value('cropping');
  const sides: readonly unknown[] = Array.isArray(both) ? both : [both, both];
  const [rows] = sides;
  if (
    sides.length !== 2 ||
    typeof rows !== 'number' ||
    !Number.isInteger(rows) ||
    rows < 0 ||
    rows !== sides[1]
  ) {
    throw new Error(
      `${options.where}.cropping: expected one number of rows for both ends, found ${JSON.stringify(both)}`,
    );
  }
  const length = input.length - 2 * rows;
  if (length < 1) {
    throw new Error(
      `${options.where}.cropping: ${rows} rows at each end are more than the ${input.length} there are; crop less than ${input.length / 2}`,
    );
  }
  const layer = nn.layer({}, (x: Tensor) => slice(x, { from: rows, to: x.shape[1]! - rows }));
  return { layer, output: { ...input, length, cropBp: input.cropBp + rows * input.binBp } };
}

/**
 * Activation, linear (its bias only without a norm), norm, dropout: [batch, length, channels] → [batch, length, units],
 * or [batch, 1, units] with `flatten`, which puts all rows after each other, position by position.
 */
function denseBlock(options: Fields, shared: Shared, input: Flow): Block {
  const own = blockShared(options, shared);
  const flat = flattened(options, input);
  const units = options.integer('units', input.channels);
  const residual = options.flag('residual', false);
  if (residual && (units !== input.channels || flat.length !== input.length)) {
    throw new Error(
      `${options.where}.residual: ${input.length} rows of ${input.channels} channels become ${flat.length} of ${units}; they must be equal: set units: ${input.channels} without flatten`,
    );
  }
  const gamma = options.choice('norm_gamma', ['ones', 'zeros'], residual ? 'zeros' : 'ones');
  const parts = {
    dense: nn.linear({ inputs: flat.channels, outputs: units, bias: !own.norm, init: own.init }),
    norm: own.norm ? batchNorm(units, own, gamma) : undefined,
    dropout: nn.dropout({ rate: readDropout(options) }),
  };
  const activation = activationOf(own.activation, own.gelu);
  const end = options.has('activation_end') ? options.choice('activation_end', ACTIVATION_NAMES) : 'linear';
  const activationEnd = activationOf(end, own.gelu);
  const layer = nn.layer(parts, (x: Tensor) => {
    const y = through([activation, flat.flatten, parts.dense, parts.norm, parts.dropout], x);
    return activationEnd(residual ? add(x, y) : y);
  });
  return { layer, output: { ...flat.output, channels: units } };
}

/** The end of a head: linear with bias, then its activation: [batch, length, channels] → [batch, length, units]. */
function final(options: Fields, shared: Shared, input: Flow): Block {
  const own = blockShared(options, shared);
  const flat = flattened(options, input);
  const units = options.integer('units');
  const dense = nn.linear({ inputs: flat.channels, outputs: units, init: own.init });
  const activation = activationOf(own.activation, own.gelu);
  const layer = nn.layer({ dense }, (x: Tensor) => through([flat.flatten, dense, activation], x));
  return { layer, output: { ...flat.output, channels: units, activation: own.activation } };
}

interface Flattened {
  readonly flatten: ((x: Tensor) => Tensor) | undefined;
  readonly length: number;
  readonly channels: number;
  readonly output: Flow;
}

/** With `flatten: true`, [batch, length, channels] → [batch, 1, length · channels]; otherwise nothing happens. */
function flattened(options: Fields, input: Flow): Flattened {
  const { length, channels, binBp, cropBp } = input;
  if (!options.flag('flatten', false))
    return { flatten: undefined, length, channels, output: { length, channels, binBp, cropBp } };
  const all = length * channels;
  const output = { length: 1, channels: all, binBp: length * binBp, cropBp };
  return { flatten: (x) => reshape(x, [-1, 1, all]), length: 1, channels: all, output };
}

function readDropout(options: Fields): number {
  const rate = options.number('dropout', 0);
  if (rate >= 0 && rate < 1) return rate;
  throw new Error(`${options.where}.dropout: expected a number in [0, 1), found ${rate}`);
}

function pooled(x: Tensor, size: number): Tensor {
  return size === 1 ? x : nn.maxPool({ size, padding: 'same' })(x);
}

function through(stages: readonly (((x: Tensor) => Tensor) | undefined)[], x: Tensor): Tensor {
  return stages.reduce((y, stage) => stage?.(y) ?? y, x);
}

/** Blocks one after the other, numbered. */
function chain(makers: readonly ((flow: Flow) => Block)[], input: Flow): Block {
  let flow = input;
  const layers = makers.map((make) => {
    const { layer, output } = make(flow);
    flow = output;
    return layer;
  });
  return { layer: nn.sequential(layers), output: flow };
}
