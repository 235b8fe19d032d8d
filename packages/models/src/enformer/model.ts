/** Enformer (Avsec et al. 2021, "Effective gene expression prediction from sequence by integrating long-range interactions"). */
import { add, geluSigmoid, nn, relu, slice, softplus, type Tensor } from '@cohesin/core';

export interface EnformerOptions {
  readonly lengthBp?: number;
  /** Channels of the trunk after the tower and of the transformer; the stem has half of them. */
  readonly channels?: number;
  /** Convolutions in the tower, each halving the length. */
  readonly towerRepeats?: number;
  /** Filters of the stem and of each convolution of the tower; by default spaced as published. */
  readonly filters?: readonly number[];
  readonly transformerBlocks?: number;
  readonly heads?: number;
  /** Channels of a query or key, per attention head. */
  readonly keySize?: number;
  /** Features of a relative distance. */
  readonly positionFeatures?: number;
  /** Bins left of the crop. */
  readonly targetBins?: number;
  /** Tracks of each organism. */
  readonly tracks?: Readonly<Record<string, number>>;
  readonly dropout?: number;
  readonly attentionDropout?: number;
  /** Of the features of relative distances. */
  readonly positionDropout?: number;
  readonly headDropout?: number;
}

export interface Enformer extends nn.Layer<Tensor, Readonly<Record<string, Tensor>>> {
  /** x [batch, lengthBp, 4] → [batch, targetBins, 2 · channels], what the heads read. */
  readonly trunk: nn.Layer;
  /** Each organism's head: [batch, targetBins, 2 · channels] → [batch, targetBins, tracks]. */
  readonly heads: Readonly<Record<string, nn.Layer>>;
  /** One organism only: x [batch, lengthBp, 4] → [batch, targetBins, tracks]. */
  readonly head: (name: string) => nn.Layer;
}

/** Tracks of the two heads as published. */
export const ENFORMER_TRACKS = { human: 5_313, mouse: 1_643 };

/**
 * Enformer as published unless an option says otherwise: x one-hot [batch, 196,608, 4] → for each organism
 * [batch, 896, tracks] bins of 128 bp; 251,221,292 parameters with both heads.
 *
 * Published variants, and which this is:
 * - This is DeepMind's definition. The widely used PyTorch port normalises gamma position features over features instead
 *   of positions; weights trained with one are not exact in the other.
 * - GELU is x · sigmoid(1.702 x); batch norm has epsilon 1e-5 and averages statistics with decay 0.9, debiased from 0.
 * - The model on TensorFlow Hub reads 393,216 bp and crops them to 196,608.
 */
export function enformer(options: EnformerOptions = {}): Enformer {
  const {
    lengthBp = 196_608,
    channels = 1_536,
    towerRepeats = 6,
    filters = enformerFilters(channels, towerRepeats),
    transformerBlocks = 11,
    heads = 8,
    keySize = 64,
    positionFeatures = channels / heads,
    targetBins = 896,
    tracks = ENFORMER_TRACKS,
    dropout = 0.4,
    attentionDropout = 0.05,
    positionDropout = 0.01,
    headDropout = 0.05,
  } = options;
  const bins = lengthBp / 2 ** filters.length;
  const crop = (bins - targetBins) / 2;
  if (!Number.isInteger(bins) || !Number.isInteger(crop) || crop < 0) {
    throw new Error(
      `enformer: ${lengthBp} bp halved ${filters.length} times are ${bins} bins, of which ${targetBins} cannot be kept in the middle; choose a multiple of ${2 ** filters.length} bp and an even number of bins less`,
    );
  }
  const dropouts = { dropout, attentionDropout, positionDropout };
  const block = { channels, length: bins, heads, keySize, positionFeatures, ...dropouts };
  const trunk = nn.sequential({
    stem: enformerStem(filters[0]!),
    tower: nn.sequential(filters.slice(1).map((outputs, i) => enformerTowerBlock(filters[i]!, outputs))),
    transformer: nn.sequential(Array.from({ length: transformerBlocks }, () => transformerBlock(block))),
    crop: (x: Tensor) => slice(x, { from: crop, to: bins - crop }),
    final: nn.sequential({
      block: normConv(channels, 2 * channels, 1),
      dropout: nn.dropout({ rate: headDropout }),
      activation: geluSigmoid,
    }),
  });
  const organisms = Object.fromEntries(
    Object.entries(tracks).map(([name, outputs]) => [name, head(2 * channels, outputs)]),
  );
  const all = nn.layer<Tensor, Record<string, Tensor>>(organisms, (embedding: Tensor) =>
    Object.fromEntries(Object.entries(organisms).map(([name, apply]) => [name, apply(embedding)])),
  );
  const self = nn.layer({ trunk, heads: all }, (x: Tensor) => all(trunk(x)));
  const only = (name: string): nn.Layer => {
    const apply = organisms[name];
    if (apply === undefined)
      throw new Error(`enformer has no head '${name}'; it has ${Object.keys(organisms).join(', ')}`);
    const one = nn.layer({ [name]: apply }, apply);
    return nn.layer({ trunk, heads: one }, (x: Tensor) => one(trunk(x)));
  };
  return Object.assign(self, { trunk, heads: organisms, head: only });
}

/** Filters of stem and tower: from half the channels to all of them, evenly in their logarithm, multiples of 128. */
export function enformerFilters(channels = 1_536, repeats = 6, multiple = 128): number[] {
  const first = channels / 2;
  const step = 2 ** (1 / (repeats - 1));
  const tower = Array.from(
    { length: repeats },
    (_, i) => Math.round((first * step ** i) / multiple) * multiple,
  );
  return [first, ...tower];
}

const NORM = { epsilon: 1e-5, momentum: 0.9, average: 'debiased' } as const;
const INIT = nn.init.sonnetNormal;

/** x + f(x). */
function residual(inner: nn.Layer): nn.Layer {
  return nn.layer({ inner }, (x: Tensor) => add(x, inner(x)));
}

/** Batch norm, GELU, convolution: [batch, length, inputs] → [batch, length, outputs]. */
function normConv(inputs: number, outputs: number, size: number): nn.Layer {
  return nn.sequential({
    norm: nn.batchNorm({ channels: inputs, ...NORM }),
    activation: geluSigmoid,
    conv: nn.conv1d({ inputs, outputs, size, init: INIT }),
  });
}

/** The stem: [batch, length, 4] → [batch, length / 2, filters]. */
export function enformerStem(filters: number): nn.Layer {
  return nn.sequential({
    conv: nn.conv1d({ inputs: 4, outputs: filters, size: 15, init: INIT }),
    pointwise: residual(normConv(filters, filters, 1)),
    pool: nn.attentionPool({ channels: filters, pool: 2 }),
  });
}

/** One block of the tower: [batch, length, inputs] → [batch, length / 2, outputs]. */
export function enformerTowerBlock(inputs: number, outputs: number): nn.Layer {
  return nn.sequential({
    block: normConv(inputs, outputs, 5),
    pointwise: residual(normConv(outputs, outputs, 1)),
    pool: nn.attentionPool({ channels: outputs, pool: 2 }),
  });
}

interface TransformerOptions {
  readonly channels: number;
  readonly length: number;
  readonly heads: number;
  readonly keySize: number;
  readonly positionFeatures: number;
  readonly dropout: number;
  readonly attentionDropout: number;
  readonly positionDropout: number;
}

/** Attention and a perceptron, each added to its input: [batch, length, channels] → the same shape. */
function transformerBlock(options: TransformerOptions): nn.Layer {
  const { channels, length, heads, keySize, positionFeatures } = options;
  const { dropout, attentionDropout, positionDropout } = options;
  const attention = nn.sequential({
    norm: nn.layerNorm({ channels }),
    attention: nn.multiHeadAttention({
      inputs: channels,
      outputs: channels,
      length,
      heads,
      keySize,
      valueSize: channels / heads,
      features: positionFeatures,
      dropoutRate: attentionDropout,
      positionDropoutRate: positionDropout,
    }),
    dropout: nn.dropout({ rate: dropout }),
  });
  const perceptron = nn.sequential({
    norm: nn.layerNorm({ channels }),
    expand: nn.linear({ inputs: channels, outputs: 2 * channels, init: INIT }),
    expandDropout: nn.dropout({ rate: dropout }),
    activation: relu,
    contract: nn.linear({ inputs: 2 * channels, outputs: channels, init: INIT }),
    dropout: nn.dropout({ rate: dropout }),
  });
  return nn.sequential({ attention: residual(attention), perceptron: residual(perceptron) });
}

/** [batch, bins, inputs] → rates of each track [batch, bins, outputs]. */
function head(inputs: number, outputs: number): nn.Layer {
  return nn.sequential({ linear: nn.linear({ inputs, outputs, init: INIT }), rate: softplus });
}
