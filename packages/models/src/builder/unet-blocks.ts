/** Blocks that double the length and come back to a tensor of that length: the U-net of Borzoi. */
import { add, concat, nn, type Tensor, upsampleNearest1d } from '@cohesin/core';
import type { Fields } from './fields.ts';
import { type Block, type Flow, readDropout, through } from './flow.ts';
import { activationOf, blockShared, normalization, regularized, type Shared } from './shared.ts';
import type { Skip } from './skips.ts';

const SCALE = 2; // upstream looks for a tensor of twice the length, whatever `stride` says

/**
 * `unet_conv`: both the input and the tensor of twice its length go through norm and activation; the input through a
 * linear layer too (with `upsample_conv`) and nearest upsampling, the other through a linear layer; their sum through a
 * separable convolution and dropout: [batch, length, channels] → [batch, 2 · length, channels].
 */
export function unetConv(options: Fields, shared: Shared, input: Flow): Block {
  const { own, skip, dropout, activation } = readUnet(options, shared, input);
  const { channels } = input;
  const size = options.integer('kernel_size', 1);
  const dense = (inputs: number): nn.Layer =>
    regularized(nn.linear({ inputs, outputs: channels, init: own.init }), own.l2);
  const norm = normalization(channels, own);
  const skipNorm = normalization(skip.channels, own, { prefix: 'skip_' });
  const parts = {
    ...norm.parts,
    ...skipNorm.parts,
    dense: options.flag('upsample_conv', false) ? dense(channels) : undefined,
    skip_dense: dense(skip.channels),
    separable: nn.separableConv1d({ inputs: channels, outputs: channels, size, init: nn.init.glorotUniform }),
    dropout,
  };
  const layer = nn.layer(parts, (x: Tensor) => {
    const deep = upsampleNearest1d(through([norm.layer, activation, parts.dense], x), { scale: SCALE });
    const fine = through([skipNorm.layer, activation, parts.skip_dense], skip.read());
    return through([parts.separable, dropout], add(deep, fine));
  });
  return { layer, output: upsampled(input, channels) };
}

/**
 * `unet_concat`: the tensor of twice the length and the input, both normalised and the input repeated, side by side
 * through activation, a linear layer to 1.5 times the former's channels, dropout, activation, a convolution back to
 * them, dropout; added to the former: [batch, length, channels] → [batch, 2 · length, channels of that tensor].
 */
export function unetConcat(options: Fields, shared: Shared, input: Flow): Block {
  const { own, skip, dropout, activation } = readUnet(options, shared, input);
  const size = options.integer('kernel_size', 1);
  const middle = Math.floor(1.5 * skip.channels);
  const norm = normalization(input.channels, own);
  const skipNorm = normalization(skip.channels, own, { prefix: 'skip_' });
  const both = input.channels + skip.channels;
  const parts = {
    ...norm.parts,
    ...skipNorm.parts,
    dense: regularized(nn.linear({ inputs: both, outputs: middle, init: own.init }), own.l2),
    conv: regularized(nn.conv1d({ inputs: middle, outputs: skip.channels, size, init: own.init }), own.l2),
    dropout,
    dropout_out: nn.dropout({ rate: readDropout(options) }),
  };
  const layer = nn.layer(parts, (x: Tensor) => {
    const fine = skip.read();
    const deep = upsampleNearest1d(through([norm.layer], x), { scale: SCALE });
    const joined = concat([through([skipNorm.layer], fine), deep], { axis: 2 });
    const stages = [activation, parts.dense, dropout, activation, parts.conv, parts.dropout_out];
    return add(fine, through(stages, joined));
  });
  return { layer, output: upsampled(input, skip.channels) };
}

interface Unet {
  readonly own: Shared;
  readonly skip: Skip;
  readonly dropout: nn.Layer;
  readonly activation: (x: Tensor) => Tensor;
}

function readUnet(options: Fields, shared: Shared, input: Flow): Unet {
  const own = blockShared(options, shared);
  const stride = options.integer('stride', SCALE);
  if (stride !== SCALE) throw new Error(`${options.where}.stride: expected ${SCALE}, found ${stride}`);
  return {
    own,
    skip: findSkip(options, shared, input),
    dropout: nn.dropout({ rate: readDropout(options) }),
    activation: activationOf(own.activation, own.gelu),
  };
}

/** The last tensor of twice the length, other than the input itself. */
function findSkip({ where }: Fields, { skips }: Shared, { length }: Flow): Skip {
  const found = skips.findLast((skip) => skip.length === SCALE * length);
  if (found !== undefined) return found;
  const lengths = [...new Set(skips.map((skip) => skip.length))].join(', ');
  throw new Error(
    `${where}: comes back to a tensor of ${SCALE * length} rows, twice the ${length} it gets, but the blocks before it give ${lengths || 'none'}; change the pools`,
  );
}

function upsampled(input: Flow, channels: number): Flow {
  return { length: SCALE * input.length, channels, binBp: input.binBp / SCALE, cropBp: input.cropBp };
}
