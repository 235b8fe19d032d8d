import { flattenChannelMajor, nn, relu, sigmoid, type Tensor } from '@cohesin/core';

export interface BassetOptions {
  /** `valid` is the model as published, `same` the code since October 2016. */
  readonly padding?: 'valid' | 'same';
  readonly filters?: readonly number[];
  /** Windows of the convolutions in rows. */
  readonly sizes?: readonly number[];
  readonly pools?: readonly number[];
  readonly hidden?: readonly number[];
  readonly targets?: number;
  readonly lengthBp?: number;
  readonly dropout?: number;
  /** Of batch normalisation. */
  readonly epsilon?: number;
  readonly momentum?: number;
}

/** Gives logits; `predict` gives probabilities. */
export interface Basset extends nn.Layer {
  /** From logits to probabilities. */
  readonly link: 'sigmoid';
  /** x [batch, lengthBp, 4] → probabilities [batch, targets]. */
  readonly predict: (x: Tensor) => Tensor;
}

/**
 * Basset (Kelley et al. 2016), accessibility of a sequence in many cell types: x one-hot [batch, lengthBp, 4] → logits
 * [batch, targets]. By default the model of the paper, 4,135,064 parameters.
 *
 * Published variants, and which this is:
 * - The paper's model has valid convolutions (600 → 194 → 46 → 10 rows, 2,000 inputs to the first hidden layer);
 *   the code since 2016-10-27 pads them (600 → 200 → 50 → 13, 2,600 inputs, 4,735,064 parameters): `padding`.
 * - Basset as a Basenji configuration (1,344 bp, GELU before the convolutions, 9 of them, one hidden layer) is another
 *   model; build that one from its JSON file with `modelFromParams`.
 * - PyTorch ports differ in the order of the flattened features (here channel-major, as in Torch7), or leave out the
 *   biases of convolutions that a batch norm follows (here kept, though their gradient is 0).
 * - Weights and biases start uniformly in ±1/√(fan in) as in Torch7, but batch-norm scales at 1, which Torch7 drew
 *   from (0, 1).
 *
 * @throws when the lists of the convolutions differ in length, or the sequence is too short for them.
 */
export function basset(options: BassetOptions = {}): Basset {
  const {
    padding = 'valid',
    filters = [300, 200, 200],
    sizes = [19, 11, 7],
    pools = [3, 4, 4],
    hidden = [1000, 1000],
    targets = 164,
    lengthBp = 600,
    dropout = 0.3,
    epsilon = 1e-5,
    momentum = 0.9,
  } = options;
  const rows = convolvedLength({ padding, filters, sizes, pools, lengthBp });
  const norm = { epsilon, momentum };
  const widths = [rows * filters.at(-1)!, ...hidden];
  const parts = {
    convolutions: filters.map((outputs, i) =>
      convolution({ inputs: filters[i - 1] ?? 4, outputs, size: sizes[i]!, pool: pools[i]!, padding, norm }),
    ),
    hidden: hidden.map((outputs, i) => hiddenLayer({ inputs: widths[i]!, outputs, dropout, norm })),
    output: linear({ inputs: widths.at(-1)!, outputs: targets }),
  };
  const through = (y: Tensor, stage: nn.Layer): Tensor => stage(y);
  const logits = nn.layer(parts, (x: Tensor) => {
    const features = flattenChannelMajor(parts.convolutions.reduce(through, x)); // [batch, channel · row]
    return parts.output(parts.hidden.reduce(through, features));
  });
  return Object.assign(logits, { link: 'sigmoid' as const, predict: (x: Tensor) => sigmoid(logits(x)) });
}

interface Norm {
  readonly epsilon: number;
  readonly momentum: number;
}

interface ConvolutionOptions {
  readonly inputs: number;
  readonly outputs: number;
  readonly size: number;
  readonly pool: number;
  readonly padding: 'valid' | 'same';
  readonly norm: Norm;
}

/** Convolution, batch norm, ReLU, max-pool: [batch, length, inputs] → [batch, ⌈windows / pool⌉, outputs]. */
function convolution({ inputs, outputs, size, pool, padding, norm }: ConvolutionOptions): nn.Layer {
  const biasInit = nn.init.uniform(1 / Math.sqrt(size * inputs));
  return nn.sequential({
    conv: nn.conv1d({ inputs, outputs, size, padding, init: nn.init.torchUniform, biasInit }),
    norm: batchNorm(outputs, norm),
    activation: relu,
    pool: nn.maxPool({ size: pool, padding: 'ceil' }),
  });
}

/** Linear, batch norm, ReLU, dropout: [batch, inputs] → [batch, outputs]. */
function hiddenLayer(options: {
  readonly inputs: number;
  readonly outputs: number;
  readonly dropout: number;
  readonly norm: Norm;
}): nn.Layer {
  const { inputs, outputs, dropout, norm } = options;
  return nn.sequential({
    linear: linear({ inputs, outputs }),
    norm: batchNorm(outputs, norm),
    activation: relu,
    dropout: nn.dropout({ rate: dropout }),
  });
}

function linear({ inputs, outputs }: { readonly inputs: number; readonly outputs: number }): nn.Layer {
  const biasInit = nn.init.uniform(1 / Math.sqrt(inputs));
  return nn.linear({ inputs, outputs, init: nn.init.torchUniform, biasInit });
}

function batchNorm(channels: number, norm: Norm): nn.Layer {
  return nn.batchNorm({ channels, ...norm, variance: 'unbiased' });
}

/** Rows left after the convolutions and pools. */
function convolvedLength(
  options: Required<Pick<BassetOptions, 'padding' | 'filters' | 'sizes' | 'pools' | 'lengthBp'>>,
): number {
  const { padding, filters, sizes, pools, lengthBp } = options;
  if (filters.length === 0 || sizes.length !== filters.length || pools.length !== filters.length) {
    throw new Error(
      `basset: ${filters.length} filters, ${sizes.length} sizes and ${pools.length} pools; give one of each per convolution`,
    );
  }
  return sizes.reduce((length, size, i) => {
    const windows = padding === 'same' ? length : length - size + 1;
    if (windows >= 1) return Math.ceil(windows / pools[i]!);
    throw new Error(
      `basset: convolution ${i} of ${size} rows does not fit into the ${length} rows left of ${lengthBp} bp; raise lengthBp or use padding: 'same'`,
    );
  }, lengthBp);
}
