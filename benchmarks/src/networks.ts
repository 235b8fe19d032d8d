/** The networks that are measured, from the library's own layers. */
import {
  adam,
  add,
  clipGlobalNorm,
  globalAveragePool1d,
  nn,
  slice,
  type Tensor,
  type Traceable,
  trainStep,
} from '@cohesin/core';

const { conv1d, linear, batchNorm, geluSigmoid, relu, maxPool, dropout, softplus, sequential, layer } = nn;

/** The MLP of the peers: [64, 256] → 512 → 512 → 16. */
export const MLP = { batch: 64, inputs: 256, hidden: 512, outputs: 16 } as const;

/** The convolutional network of the peers: [8, 1024, 4] → 64 channels k15 → 64 k5 → mean → 16. */
export const CONV = {
  batch: 8,
  length: 1024,
  inputs: 4,
  channels: 64,
  size1: 15,
  size2: 5,
  outputs: 16,
} as const;

/** The peers' MLP with mean squared error and Adam. */
export function mlpStep(): Traceable {
  const { inputs, hidden, outputs } = MLP;
  const model = sequential({
    first: linear({ inputs, outputs: hidden }),
    relu1: relu,
    second: linear({ inputs: hidden, outputs: hidden }),
    relu2: relu,
    third: linear({ inputs: hidden, outputs }),
  });
  return trainStep({ model, loss: nn.mseLoss, optimizer: adam({ learningRate: 1e-3 }) });
}

/** The peers' convolutional network with mean squared error and Adam. */
export function convStep(): Traceable {
  const { inputs, channels, size1, size2, outputs } = CONV;
  const model = sequential({
    first: conv1d({ inputs, outputs: channels, size: size1 }),
    relu1: relu,
    second: conv1d({ inputs: channels, outputs: channels, size: size2 }),
    relu2: relu,
    mean: globalAveragePool1d,
    third: linear({ inputs: channels, outputs }),
  });
  return trainStep({ model, loss: nn.mseLoss, optimizer: adam({ learningRate: 1e-3 }) });
}

/** 131,072 bp → 2,048 bins of 64 bp after pooling by 32 and cropping 1,024 of 4,096 rows on each side. */
export const BASENJI = {
  lengthBp: 131_072,
  rows: 4096,
  crop: 1024,
  targets: 74,
  stem: 24,
  tower: [24, 29, 35],
  dilated: 16,
} as const;

/** A small Basenji after Kelley et al. 2018, of the sizes baskerville's tests use: Poisson loss, Adam, clipped gradients. */
export function basenjiStep(): Traceable {
  const { rows, crop, targets, stem, tower, dilated } = BASENJI;
  const width = tower.at(-1)!;
  const blocks = tower.map((outputs, i) =>
    convBlock({ inputs: tower[i - 1] ?? stem, outputs, size: 5, pool: 2 }),
  );
  const model = sequential({
    stem: convBlock({ inputs: 4, outputs: stem, size: 15, pool: 4 }),
    tower: sequential(blocks),
    dilated: sequential(
      [1, 2, 4, 8, 16].map((dilation) => dilatedBlock({ width, inner: dilated, dilation })),
    ),
    crop: (x) => slice(x, { from: crop, to: rows - crop }),
    gelu: geluSigmoid,
    head: linear({ inputs: width, outputs: targets }),
    softplus,
  });
  const optimizer = adam({ learningRate: 1e-3, clip: clipGlobalNorm(1) });
  return trainStep({ model, loss: nn.poissonLoss, optimizer });
}

interface ConvBlock {
  readonly inputs: number;
  readonly outputs: number;
  readonly size: number;
  readonly pool: number;
}

/** x [batch, length, inputs] → [batch, length / pool, outputs]. */
function convBlock({ inputs, outputs, size, pool }: ConvBlock): nn.Layer {
  return sequential({
    gelu: geluSigmoid,
    conv: conv1d({ inputs, outputs, size, bias: false }),
    norm: batchNorm({ channels: outputs }),
    pool: maxPool({ size: pool, padding: 'same' }),
  });
}

interface DilatedBlock {
  readonly width: number;
  readonly inner: number;
  readonly dilation: number;
}

/** A residual block: x [batch, length, width] → the same shape. */
function dilatedBlock({ width, inner, dilation }: DilatedBlock): nn.Layer {
  const branch = sequential({
    gelu1: geluSigmoid,
    conv1: conv1d({ inputs: width, outputs: inner, size: 3, dilation, bias: false }),
    norm1: batchNorm({ channels: inner }),
    gelu2: geluSigmoid,
    conv2: conv1d({ inputs: inner, outputs: width, size: 1, bias: false }),
    norm2: batchNorm({ channels: width, gamma: 'zeros' }),
    dropout: dropout({ rate: 0.1 }),
  });
  return layer({ branch }, (x: Tensor) => add(x, branch(x)));
}
