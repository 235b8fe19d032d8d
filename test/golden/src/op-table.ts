/** The library's function behind each op of the fixtures. */
import * as cohesin from '@cohesin/core';
import { hostTensor, nn, type Parameter, sum, type Tensor } from '@cohesin/core';
import { auroc, averagePrecision, pearson, rSquared, sequenceSums, spearman } from '@cohesin/models';
import { numbers } from './fixture.ts';
import {
  type Attrs,
  biased,
  type GraphCase,
  graph,
  type HostCase,
  type Inputs,
  numberOf,
  type OpCase,
} from './op-case.ts';
import { optimizerCase, scheduleCase } from './op-optimizers.ts';
import { ATTENTION_OPS } from './op-table-attention.ts';
import { CONTACT_MAP_OPS } from './op-table-conv2d.ts';
import { ROW_OPS } from './op-table-rows.ts';

const CHANNELS_LAST = { x: 'channels-last', y: 'channels-last' } as const;
const CONVOLUTION = { ...CHANNELS_LAST, w: 'reversed' } as const;

const ACTIVATIONS: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  elu: cohesin.elu,
  exp_linear: cohesin.expLinear,
  gelu_erf: cohesin.geluErf,
  gelu_sigmoid1702: cohesin.geluSigmoid,
  gelu_tanh: cohesin.geluTanh,
  'leaky_relu_0.2': (x) => cohesin.leakyRelu(x, { slope: 0.2 }),
  log1p_relu: cohesin.log1pRelu,
  relu: cohesin.relu,
  sigmoid: cohesin.sigmoid,
  silu: cohesin.silu,
  softplus: cohesin.softplus,
  tanh: cohesin.tanh,
};

const loss = (fn: (prediction: Tensor, target: Tensor, attrs: Attrs) => Tensor): GraphCase =>
  graph((x, attrs) => fn(x.maybe('pred') ?? x.maybe('logits') ?? x.of('prob'), x.of('target'), attrs));

/** By `op` of a case. What is not here is not supported. */
export const OPS: Readonly<Record<string, OpCase>> = {
  activation: {
    ...graph((x, { activation }) => ACTIVATIONS[String(activation)]!(x.of('x'))),
    supports: ({ activation }) => String(activation) in ACTIVATIONS,
  },
  add: graph((x) => cohesin.add(x.of('a'), x.of('b'))),
  dense: graph((x) => biased(cohesin.matmul(x.of('x'), x.of('w')), x), { layouts: { w: 'reversed' } }),
  matmul: graph((x) => cohesin.matmul(x.of('a'), x.of('b'))),
  matmul_nt: graph((x) => cohesin.matmul(x.of('a'), x.of('b'), { transposeB: true })),
  conv1d: graph((x, attrs) => biased(cohesin.conv1d(x.of('x'), x.of('w'), convolution(attrs)), x), {
    layouts: CONVOLUTION,
  }),
  conv_transpose1d: graph((x) => biased(cohesin.convTranspose1d(x.of('x'), x.of('w')), x), {
    layouts: CONVOLUTION,
  }),
  crop1d: graph((x, { crop }) => cropped(x.of('x'), crop as readonly [number, number]), {
    layouts: CHANNELS_LAST,
  }),
  avgpool1d: graph((x, attrs) => cohesin.averagePool1d(x.of('x'), { size: numberOf(attrs, 'pool') }), {
    layouts: CHANNELS_LAST,
  }),
  globalavgpool1d: graph((x) => cohesin.globalAveragePool1d(x.of('x')), { layouts: { x: 'channels-last' } }),
  maxpool1d: graph((x, attrs) => cohesin.maxPool1d(x.of('x'), pool(attrs)), { layouts: CHANNELS_LAST }),
  batchnorm_eval: { kind: 'graph', layouts: CHANNELS_LAST, trace: batchNormEval },
  batchnorm_train: { kind: 'graph', layouts: CHANNELS_LAST, trace: batchNormTrain },
  mse: loss(nn.mseLoss),
  poisson: loss(nn.poissonLoss),
  poisson_full: loss(nn.fullPoissonLoss),
  bce_probs: loss(nn.bceProbabilities),
  bce_with_logits: loss((logits, target, { reduction }) =>
    nn.bceWithLogits(logits, target, { reduction: reduction as 'mean' | 'sum' }),
  ),
  poisson_multinomial_basenji: loss((p, t, attrs) =>
    nn.poissonMultinomialLoss(p, t, { form: 'basenji', totalWeight: numberOf(attrs, 'total_weight') }),
  ),
  poisson_multinomial_baskerville: loss((p, t, attrs) =>
    nn.poissonMultinomialLoss(p, t, { form: 'baskerville', totalWeight: numberOf(attrs, 'total_weight') }),
  ),
  reverse_complement: augmentation(() => [1, 0]),
  shift: augmentation((attrs) => [0, numberOf(attrs, 'shift')]),
  switch_reverse: switchReverse(),
  clip_global_norm: { kind: 'graph', trace: clipGlobal },
  auc: areas(),
  metrics: correlations(),
  lr_schedule: scheduleCase,
  optimizer: optimizerCase,
  ...ATTENTION_OPS,
  ...CONTACT_MAP_OPS,
  ...ROW_OPS,
};

function convolution(attrs: Attrs): cohesin.Conv1dOptions {
  return {
    groups: numberOf(attrs, 'groups'),
    stride: numberOf(attrs, 'stride'),
    dilation: numberOf(attrs, 'dilation'),
    padding: attrs.padding as 'same' | 'valid',
  };
}

function cropped(x: Tensor, [left, right]: readonly [number, number]): Tensor {
  return cohesin.slice(x, { from: left, to: x.shape[1]! - right });
}

function pool(attrs: Attrs): cohesin.MaxPoolOptions {
  const padding = attrs.mode as 'same' | 'valid' | 'ceil';
  return { size: numberOf(attrs, 'pool'), stride: numberOf(attrs, 'stride'), padding };
}

/** The layer in inference mode. */
function batchNormEval(x: Inputs, attrs: Attrs): ReturnType<GraphCase['trace']> {
  const channels = x.of('gamma').shape[0]!;
  const norm = nn.batchNorm({ channels, epsilon: numberOf(attrs, 'eps') });
  const named = nn.parameters(norm);
  return {
    outputs: { y: norm(x.of('x')) },
    targets: { gamma: named.get('weight')!, beta: named.get('bias')! },
    starts: [
      [named.get('weight')!, 'gamma'],
      [named.get('bias')!, 'beta'],
      [named.get('running_mean')!, 'running_mean'],
      [named.get('running_var')!, 'running_var'],
    ],
  };
}

/** Two layers in training mode, one for each convention of the running variance; y is that of the first. */
function batchNormTrain(x: Inputs, attrs: Attrs): ReturnType<GraphCase['trace']> {
  const options = { channels: x.of('gamma').shape[0]!, epsilon: numberOf(attrs, 'eps') };
  const momentum = numberOf(attrs, 'momentum');
  const biasedLayer = nn.batchNorm({ ...options, momentum, variance: 'biased' });
  const unbiasedLayer = nn.batchNorm({ ...options, momentum, variance: 'unbiased' });
  const both = nn.layer({ biased: biasedLayer, unbiased: unbiasedLayer }, (input: Tensor) => {
    unbiasedLayer(input);
    return biasedLayer(input);
  });
  const named = nn.parameters(both);
  const part = (name: string): Parameter => named.get(name)!;
  const batch = cohesin.foldMoments(cohesin.moments(x.of('x'), { sequences: 1 })); // [1, 2, channels]
  return {
    outputs: {
      y: cohesin.withScope({ training: true }, () => both(x.of('x'))),
      batch_mean: rowOf(batch, 0),
      batch_var_biased: rowOf(batch, 1),
    },
    state: {
      running_mean1: part('biased.running_mean'),
      running_var1_biased: part('biased.running_var'),
      running_var1_unbiased: part('unbiased.running_var'),
    },
    targets: { gamma: part('biased.weight'), beta: part('biased.bias') },
    starts: [
      [part('biased.weight'), 'gamma'],
      [part('biased.bias'), 'beta'],
      [part('biased.running_mean'), 'running_mean0'],
      [part('biased.running_var'), 'running_var0'],
      [part('unbiased.running_var'), 'running_var0'],
    ],
  };
}

/** Row `row` of moments [1, 2, channels] → [channels]. */
function rowOf(moments: Tensor, row: number): Tensor {
  return cohesin.reshape(cohesin.slice(moments, { from: row, to: row + 1 }), [moments.shape[2]!]);
}

/** One-hot x becomes codes; `how` gives (reverse-complement, shift), the same for every sequence. */
function augmentation(how: (attrs: Attrs) => readonly [number, number]): GraphCase {
  return {
    ...graph((x) => cohesin.augmentSequence(x.of('codes'), x.of('augment')), { exact: true }),
    prepare: (inputs, attrs) => {
      const { shape, data } = inputs.get('x')!;
      const [batch, length] = shape as [number, number];
      const codes = Float32Array.from({ length: batch * length }, (_, i) => {
        const found = (data as Float32Array).subarray(4 * i, 4 * i + 4).indexOf(1);
        return found < 0 ? 4 : found;
      });
      const augment = Array.from({ length: batch }, () => how(attrs)).flat();
      return new Map([
        ['codes', hostTensor([batch, length], codes)],
        ['augment', hostTensor([batch, 2], augment)],
      ]);
    },
  };
}

function switchReverse(): GraphCase {
  return {
    ...graph((x) => cohesin.augmentTargets(x.of('y'), x.of('augment'), x.of('pair')), { exact: true }),
    prepare: (inputs) => {
      const batch = inputs.get('y')!.shape[0]!;
      const reversed = Array.from({ length: batch }, () => [1, 0]).flat();
      return new Map([...inputs, ['augment', hostTensor([batch, 2], reversed)]]);
    },
  };
}

function clipGlobal(x: Inputs, attrs: Attrs): ReturnType<GraphCase['trace']> {
  const gradients = [x.of('w'), x.of('b')];
  const [w, b] = cohesin.clipGlobalNorm(numberOf(attrs, 'clip'))(gradients);
  const [first, second] = gradients.map((gradient) => sum(cohesin.square(gradient)));
  return { outputs: { w: w!, b: b!, norm: cohesin.sqrt(cohesin.add(first!, second!)) } };
}

function areas(): HostCase {
  return {
    kind: 'host',
    compute: (inputs) => {
      const [score, label] = [inputs.get('score')!, inputs.get('label')!];
      const tracks = score.shape[1]!;
      const [scores, labels] = [numbers(score), numbers(label)];
      return {
        auroc: auroc(scores, labels, { tracks }).perTrack,
        average_precision: averagePrecision(scores, labels, { tracks }).perTrack,
      };
    },
  };
}

function correlations(): HostCase {
  return {
    kind: 'host',
    compute: (inputs) => {
      const [prediction, target] = [numbers(inputs.get('pred')!), numbers(inputs.get('target')!)];
      const tracks = inputs.get('pred')!.shape[2]!;
      const sums = sequenceSums(prediction, target, { tracks });
      return {
        pearson_per_target: pearson(sums).perTrack,
        r2_per_target: rSquared(sums).perTrack,
        spearman_per_target: spearman(prediction, target, { tracks }).perTrack,
      };
    },
  };
}
