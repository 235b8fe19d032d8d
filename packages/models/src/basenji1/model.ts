import { concat, expLinear, nn, relu, slice, type Tensor } from '@cohesin/core';

/** One convolution with what follows it. */
export interface Basenji1Layer {
  readonly filters: number;
  /** Window in rows. */
  readonly size: number;
  readonly pool?: number;
  readonly dilation?: number;
  readonly dropout?: number;
  /** Whether the output is put beside the input's channels instead of following it. */
  readonly dense?: boolean;
}

export interface Basenji1Options {
  readonly lengthBp?: number;
  readonly layers?: readonly Basenji1Layer[];
  /** Bases at each end that get no prediction; a multiple of the bin. */
  readonly bufferBp?: number;
  readonly targets?: number;
  /** Of batch normalisation. */
  readonly epsilon?: number;
  readonly momentum?: number;
}

/** Gives rates, and what a row of them covers. */
export interface Basenji1 extends nn.Layer {
  readonly binBp: number;
  /** Bins with a prediction. */
  readonly bins: number;
}

const DROPOUT = 0.05;
const DILATED = [2, 4, 8, 16, 32, 64].map((dilation) => ({
  filters: 108,
  size: 3,
  dilation,
  dropout: 0.1,
  dense: true,
}));

/** `params.txt` of the paper. */
const PUBLISHED: readonly Basenji1Layer[] = [
  { filters: 312, size: 22, dropout: DROPOUT },
  { filters: 368, size: 1, pool: 2, dropout: DROPOUT },
  { filters: 435, size: 6, pool: 4, dropout: DROPOUT },
  { filters: 514, size: 6, pool: 4, dropout: DROPOUT },
  { filters: 607, size: 6, pool: 4, dropout: DROPOUT },
  { filters: 717, size: 3, dropout: DROPOUT },
  ...DILATED,
  { filters: 1_365, size: 1, dropout: DROPOUT },
];

/**
 * The first Basenji (Kelley et al. 2018, "Sequential regulatory activity prediction across chromosomes with convolutional
 * neural networks"): x one-hot [batch, 131,072, 4] → rates [batch, 960, 4,229] in bins of 128 bp, 15,190,636 trainable
 * parameters by default.
 *
 * Published variants, and which this is:
 * - This is release 0.2 with the paper's `params.txt`: dilated layers densely concatenated, the output x + 1 where
 *   positive and e^x elsewhere. The code clipped the exponent at −50, where the rate is 2e-22; here it is not clipped.
 * - Later code has residual instead of dense dilated layers, softplus, and activations before convolutions: that is
 *   `basenji2`, or a parameter file for `modelFromParams`.
 * - Even windows reach one row further right than left, as TensorFlow pads them.
 * - The running variance averages the biased batch variance.
 *
 * @throws when a size does not fit the sequence.
 */
export function basenji1(options: Basenji1Options = {}): Basenji1 {
  const {
    lengthBp = 131_072,
    layers = PUBLISHED,
    bufferBp = 4_096,
    targets = 4_229,
    epsilon = 1e-3,
    momentum = 0.9,
  } = options;
  const binBp = layers.reduce((bp, { pool = 1 }) => bp * pool, 1);
  const [bins, buffer] = [lengthBp / binBp, bufferBp / binBp];
  if (!Number.isInteger(bins) || !Number.isInteger(buffer) || 2 * buffer >= bins) {
    throw new Error(
      `basenji1: lengthBp ${lengthBp} and bufferBp ${bufferBp} must be multiples of the ${binBp} bp of a bin, with 2 · bufferBp < lengthBp`,
    );
  }
  let channels = 4;
  const convolutions = layers.map((options) => {
    const inputs = channels;
    channels = options.filters + (options.dense === true ? inputs : 0);
    return convolution(inputs, options, { epsilon, momentum });
  });
  const init = nn.init.glorotUniform;
  const final = nn.conv1d({ inputs: channels, outputs: targets, size: 1, init });
  const model = nn.layer({ layers: convolutions, final }, (x: Tensor) => {
    const all = convolutions.reduce((y, layer) => layer(y), x); // [batch, length / binBp, channels]
    return expLinear(final(slice(all, { from: buffer, to: bins - buffer })));
  });
  return Object.assign(model, { binBp, bins: bins - 2 * buffer });
}

/** Convolution, batch norm, ReLU, max-pool, dropout: [batch, length, inputs] → [batch, ⌈length / pool⌉, filters (+ inputs)]. */
function convolution(
  inputs: number,
  { filters, size, pool = 1, dilation = 1, dropout: rate = 0, dense = false }: Basenji1Layer,
  { epsilon, momentum }: { readonly epsilon: number; readonly momentum: number },
): nn.Layer {
  const init = nn.init.glorotUniform;
  const each = nn.sequential({
    conv: nn.conv1d({ inputs, outputs: filters, size, dilation, bias: false, init }),
    norm: nn.batchNorm({ channels: filters, epsilon, momentum, variance: 'biased' }),
    activation: relu,
    ...(pool === 1 ? {} : { pool: nn.maxPool({ size: pool, padding: 'same' }) }),
    dropout: nn.dropout({ rate }),
  });
  return dense ? nn.layer(each.parts, (x: Tensor) => concat([x, each(x)])) : each;
}
