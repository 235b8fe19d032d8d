/** BPNet as published (Avsec et al. 2021, "Base-resolution models of transcription-factor binding reveal soft motif syntax"). */
import {
  add,
  buffer,
  concat,
  conv1d,
  convTranspose1d,
  multiply,
  nn,
  parameter,
  relu,
  type Tensor,
} from '@cohesin/core';
import { meanOverRows } from './model.ts';

export interface OriginalBpnetOptions {
  /** Factors, each with heads of its own. */
  readonly tasks?: readonly string[];
  readonly filters?: number;
  /** Dilated convolutions, the i-th from 1 with dilation 2^i. */
  readonly dilatedLayers?: number;
  readonly firstSize?: number;
  /** Window of the transposed convolution: 25 for ChIP-nexus, 50 for ChIP-seq. */
  readonly profileSize?: number;
  /** Windows in bp over which bias tracks are added up (1 keeps them as they are); empty for a model without them. */
  readonly biasWindows?: readonly number[];
}

/** Two strands of one task, as bias or as target. */
export interface StrandPair {
  /** Reads at each position [batch, length, 2]. */
  readonly profile: Tensor;
  /** log(1 + reads) of each strand [batch, 2]. */
  readonly logCounts: Tensor;
}

export interface OriginalBpnetInputs {
  /** One-hot [batch, length, 4]. */
  readonly x: Tensor;
  /** Bias tracks of each task; none in a model without them. */
  readonly bias?: Readonly<Record<string, StrandPair>>;
}

export interface TaskPrediction {
  /** Of a multinomial over the positions of each strand: [batch, length, 2]. */
  readonly logits: Tensor;
  /** log(1 + reads) of each strand: [batch, 2]. */
  readonly logCounts: Tensor;
}

export type OriginalBpnet = nn.Layer<OriginalBpnetInputs, Readonly<Record<string, TaskPrediction>>>;

const STRANDS = 2;

/**
 * The BPNet of the paper: x [batch, length, 4] → for each task logits [batch, length, 2] and log counts [batch, 2]. By
 * default its four factors and bias tracks, 130,980 parameters (130,960 without them); it was trained on 1,000 bp.
 *
 * Published variants, and which this is:
 * - This is the code of the paper (tag v0-final). Its later versions (21 bp, 8 dilated layers, cropping) are `bpnet`.
 * - Bias tracks go through a 1×1 convolution of the raw strands and of sums over 50 bp of both, and are added to the
 *   logits of both strands; log counts of the bias likewise. Models of other factors have no bias tracks: `biasWindows: []`.
 * - Every position is predicted, also where the 1,033 bp that it sees reach beyond the ends.
 * - Binary classification, dense skips and batch norm, which the code can do, are left out: the paper's model has none.
 */
export function originalBpnet(options: OriginalBpnetOptions = {}): OriginalBpnet {
  const { tasks = ['Oct4', 'Sox2', 'Nanog', 'Klf4'], filters = 64, dilatedLayers = 9 } = options;
  const { firstSize = 25, profileSize = 25, biasWindows = [1, 50] } = options;
  const init = nn.init.glorotUniform;
  const heads = tasks.map((task) => [task, taskHead({ filters, profileSize, biasWindows })] as const);
  const parts = {
    first: nn.conv1d({ inputs: 4, outputs: filters, size: firstSize, init }),
    dilated: Array.from({ length: dilatedLayers }, (_, i) =>
      nn.conv1d({ inputs: filters, outputs: filters, size: 3, dilation: 2 ** (i + 1), init }),
    ),
    heads: nn.layer(Object.fromEntries(heads), ({ features, bias }: HeadsInput) =>
      Object.fromEntries(heads.map(([task, head]) => [task, head({ features, bias: bias?.[task] })])),
    ),
  };
  return nn.layer(parts, ({ x, bias }: OriginalBpnetInputs) => {
    const features = parts.dilated.reduce((y, conv) => add(y, relu(conv(y))), relu(parts.first(x)));
    return parts.heads({ features, bias });
  });
}

/**
 * Its loss: over all tasks, the multinomial of each strand, averaged over sequences, plus `countWeight` times the mean
 * squared error of log counts.
 */
export function originalBpnetLoss(
  prediction: Readonly<Record<string, TaskPrediction>>,
  target: Readonly<Record<string, StrandPair>>,
  { countWeight = 10 }: { readonly countWeight?: number } = {},
): Tensor {
  return Object.entries(prediction)
    .map(([task, { logits, logCounts }]) => {
      const wanted = target[task];
      if (wanted === undefined)
        throw new Error(
          `originalBpnetLoss: no target for ${task}; there are ${Object.keys(target).join(', ')}`,
        );
      const profile = multiply(nn.multinomialLoss(logits, wanted.profile), STRANDS);
      return add(profile, multiply(nn.mseLoss(logCounts, wanted.logCounts), countWeight));
    })
    .reduce((sum, loss) => add(sum, loss));
}

interface HeadsInput {
  readonly features: Tensor;
  readonly bias: OriginalBpnetInputs['bias'] | undefined;
}

interface HeadInput {
  readonly features: Tensor;
  readonly bias: StrandPair | undefined;
}

function taskHead(options: {
  readonly filters: number;
  readonly profileSize: number;
  readonly biasWindows: readonly number[];
}): nn.Layer<HeadInput, TaskPrediction> {
  const { filters, profileSize, biasWindows } = options;
  const hasBias = biasWindows.length > 0;
  const parts = {
    profile: transposedConv({ inputs: filters, outputs: STRANDS, size: profileSize }),
    counts: nn.linear({ inputs: filters, outputs: STRANDS }),
    profileBias: hasBias ? movingSums(biasWindows) : undefined,
    countsBias: hasBias ? nn.linear({ inputs: STRANDS, outputs: 1, bias: false }) : undefined,
  };
  return nn.layer(parts, ({ features, bias }: HeadInput): TaskPrediction => {
    const logits = parts.profile(features);
    const logCounts = parts.counts(meanOverRows(features));
    if ((bias !== undefined) !== hasBias)
      throw new Error(`bias tracks are ${hasBias ? 'missing' : 'given, but biasWindows is empty'}`);
    if (bias === undefined) return { logits, logCounts };
    return {
      logits: add(logits, parts.profileBias!(bias.profile)), // [batch, length, 2] + [batch, length, 1]
      logCounts: add(logCounts, parts.countsBias!(bias.logCounts)), // [batch, 2] + [batch, 1]
    };
  });
}

/** x [batch, length, inputs] → [batch, length, outputs]. Parts: weight `[size, outputs, inputs]`, bias `[outputs]`. */
function transposedConv(options: {
  readonly inputs: number;
  readonly outputs: number;
  readonly size: number;
}): nn.Layer {
  const { inputs, outputs, size } = options;
  const weight = parameter([size, outputs, inputs], { init: nn.init.glorotUniform });
  const bias = parameter([outputs]);
  return nn.layer({ weight, bias }, (x: Tensor) => add(convTranspose1d(x, weight), bias));
}

/** Reads [batch, length, 2], and their sums over both strands and each window, weighed into one channel [batch, length, 1]. */
function movingSums(windows: readonly number[]): nn.Layer {
  const ones = windows.map((size) => buffer([size, STRANDS, 1], { init: nn.init.ones }));
  const channels = windows.reduce((sum, size) => sum + (size === 1 ? STRANDS : 1), 0);
  const weigh = nn.conv1d({
    inputs: channels,
    outputs: 1,
    size: 1,
    bias: false,
    init: nn.init.glorotUniform,
  });
  const fixed = Object.fromEntries(
    windows.flatMap((size, i) => (size === 1 ? [] : [[`ones${size}`, ones[i]!]])),
  );
  return nn.layer({ ...fixed, weigh }, (reads: Tensor) =>
    weigh(concat(windows.map((size, i) => (size === 1 ? reads : conv1d(reads, ones[i]!))))),
  );
}
