/** Blocks that normalise and activate before they convolve: baskerville's `_nac`. */
import { add, nn, type Tensor } from '@cohesin/core';
import { type ConvOptions, convolution, convolved, pooling, readConv, readPool } from './convolution.ts';
import type { Fields } from './fields.ts';
import { type Block, chain, checkResidual, type Flow, readDropout, scaleLayer, through } from './flow.ts';
import { readDilationRates, readTowerFilters } from './rounding.ts';
import { activationOf, normalization, type Shared } from './shared.ts';
import { kept } from './skips.ts';

export interface NacOptions extends ConvOptions {
  readonly where: string;
  readonly residual: boolean;
}

/**
 * `conv_nac`: norm, activation, convolution (`same`, with bias), dropout, the input again if residual, pool:
 * [batch, length, channels] → [batch, ⌈⌈length / stride⌉ / pool⌉, filters].
 */
export function convNac(options: Fields, shared: Shared, input: Flow): Block {
  return makeNac(readNac(options, shared, input), input);
}

/** `conv_tower_nac`: `conv_nac`s with more filters from one to the next, each kept for U-net blocks. */
export function convTowerNac(options: Fields, shared: Shared, input: Flow): Block {
  const filters = readTowerFilters(options);
  const each = readNac(options, shared, input);
  return chain(
    filters.map((count) => (flow: Flow) => kept(makeNac({ ...each, filters: count }, flow), shared.skips)),
    input,
  );
}

/**
 * `res_tower`: per stage a `conv_nac` of `kernel_size`, then `num_convs` − 1 pointwise ones whose result is scaled from 0
 * and added, and a pool (2 by default). What goes into the pool is kept for U-net blocks.
 */
export function resTower(options: Fields, shared: Shared, input: Flow): Block {
  const filters = readTowerFilters(options);
  const convs = options.integer('num_convs', 2);
  const pool = readPool(options, 2);
  const dropout = readDropout(options);
  const each = { ...readNac(options, shared, input), dropout: 0, pool: 1 }; // these two are the stage's own
  const stage = (count: number, flow: Flow): Block => {
    const chosen = { ...each, filters: count };
    const first = makeNac(chosen, flow);
    const rest = Array.from({ length: convs - 1 }, () => makeNac({ ...chosen, size: 1 }, first.output).layer);
    const residual = resStage({ first: first.layer, rest, dropout, channels: count });
    return pooledAfter(kept({ layer: residual, output: first.output }, shared.skips), pool);
  };
  return chain(
    filters.map((count) => (flow: Flow) => stage(count, flow)),
    input,
  );
}

/** `dilated_residual_nac`: repeated x ← x + pointwise(dilated(x)), both `conv_nac`s, the dilation growing. */
export function dilatedResidualNac(options: Fields, shared: Shared, input: Flow): Block {
  const rates = readDilationRates(options);
  const size = options.integer('kernel_size', 3);
  const filters = options.integer('filters');
  const dropout = readDropout(options);
  const each = { ...readNac(options, shared, input), dropout: 0, pool: 1 };
  const step = (dilation: number, flow: Flow): Block => {
    const dilated = makeNac({ ...each, filters, size, dilation }, flow);
    const pointwise = makeNac({ ...each, filters: flow.channels, size: 1, dropout }, dilated.output);
    const parts = { dilated: dilated.layer, pointwise: pointwise.layer };
    return { layer: nn.layer(parts, (x: Tensor) => add(x, parts.pointwise(parts.dilated(x)))), output: flow };
  };
  return chain(
    rates.map((dilation) => (flow: Flow) => step(dilation, flow)),
    input,
  );
}

function readNac(options: Fields, shared: Shared, input: Flow): NacOptions {
  return {
    where: options.where,
    ...readConv(options, shared, { filters: input.channels, size: 1 }),
    dilation: options.integer('dilation_rate', 1),
    bias: true,
    residual: options.flag('residual', false),
  };
}

/** A `conv_nac` from options that are read. */
export function makeNac(options: NacOptions, input: Flow): Block {
  const { where, filters } = options;
  if (options.residual) checkResidual(where, input, convolved({ ...options, pool: 1 }, input));
  const norm = normalization(input.channels, options);
  const conv = convolution(options, input.channels, where);
  const dropout = nn.dropout({ rate: options.dropout });
  const pool = pooling(options, filters);
  const activation = activationOf(options.activation, options.gelu);
  const parts = { ...norm.parts, ...conv.parts, dropout, ...pool.parts };
  const layer = nn.layer(parts, (x: Tensor) => {
    const y = through([norm.layer, activation, conv.layer, dropout], x);
    return through([pool.layer], options.residual ? add(x, y) : y);
  });
  return { layer, output: convolved(options, input) };
}

interface ResStage {
  readonly first: nn.Layer;
  readonly rest: readonly nn.Layer[];
  readonly dropout: number;
  readonly channels: number;
}

function resStage({ first, rest, dropout: rate, channels }: ResStage): nn.Layer {
  const dropout = nn.dropout({ rate });
  const scale = rest.length === 0 ? undefined : scaleLayer(channels);
  return nn.layer({ first, rest, dropout, scale }, (x: Tensor) => {
    const y = first(x);
    const z = through([...rest, dropout, scale], y);
    return scale === undefined ? z : add(y, z);
  });
}

function pooledAfter({ layer, output }: Block, options: Pick<ConvOptions, 'pool' | 'poolType'>): Block {
  const pool = pooling(options, output.channels);
  const stage = {
    layer: nn.layer({ stage: layer, ...pool.parts }, (x: Tensor) => through([layer, pool.layer], x)),
  };
  return { ...stage, output: convolved({ filters: output.channels, stride: 1, pool: options.pool }, output) };
}
