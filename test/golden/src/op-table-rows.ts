/** Cases of row-wise ops and of the losses and metrics made of them. */
import * as cohesin from '@cohesin/core';
import { multiply, nn, type Parameter, type Tensor } from '@cohesin/core';
import { binTargets, type SumStatistic } from '@cohesin/io';
import { jensenShannon } from '@cohesin/models';
import { numbers } from './fixture.ts';
import {
  type Attrs,
  type GraphCase,
  graph,
  type HostCase,
  type Inputs,
  numberOf,
  type OpCase,
} from './op-case.ts';

const PROFILES = { logits: 'channels-last', target: 'channels-last' } as const;

const axisOf = (attrs: Attrs): cohesin.AxisOption => ({ axis: numberOf(attrs, 'axis') });

export const ROW_OPS: Readonly<Record<string, OpCase>> = {
  softmax: graph((x, attrs) => cohesin.softmax(x.of('x'), axisOf(attrs))),
  log_softmax: graph((x, attrs) => cohesin.logSoftmax(x.of('x'), axisOf(attrs))),
  logsumexp: graph((x) => {
    const one = x.maybe('x');
    return one === undefined ? cohesin.logAddExp(x.of('a'), x.of('b')) : cohesin.logSumExp(one);
  }),
  soft_cap: graph((x, attrs) => cohesin.softCap(x.of('x'), { cap: numberOf(attrs, 'cap') })),
  layernorm: rowNorm(nn.layerNorm),
  rmsnorm: rowNorm(nn.rmsNorm),
  rms_batchnorm_eval: { kind: 'graph', trace: rmsBatchNorm },
  // The library draws its own masks (random.test.ts); this is what it then computes.
  dropout: graph((x, attrs) =>
    multiply(x.of('x'), multiply(x.of('mask'), 1 / (1 - numberOf(attrs, 'rate')))),
  ),
  poisson_clamped: graph((x) => nn.clampedPoissonLoss(x.of('pred'), x.of('target'))),
  mse_udot: graph((x, attrs) =>
    nn.mseUdotLoss(x.of('pred'), x.of('target'), { udotWeight: numberOf(attrs, 'udot_weight') }),
  ),
  multinomial_nll: graph((x) => nn.multinomialLoss(x.of('logits'), x.of('target')), { layouts: PROFILES }),
  multinomial_nll_joint: graph(
    (x) => nn.multinomialLoss(x.of('logits'), x.of('target'), { strands: 'joint' }),
    { layouts: PROFILES },
  ),
  bpnet_mixture: graph(
    (x, attrs) =>
      nn.bpnetLoss({ logits: x.of('logits'), logCounts: x.of('logcounts') }, x.of('target'), {
        countWeight: numberOf(attrs, 'count_loss_weight'),
      }),
    { layouts: PROFILES },
  ),
  alphagenome_multinomial: graph((x, attrs) =>
    nn.alphaGenomeLoss(x.of('pred'), x.of('target'), {
      resolution: numberOf(attrs, 'multinomial_resolution'),
      positionalWeight: numberOf(attrs, 'positional_weight'),
    }),
  ),
  attention_pool: attentionPool(true),
  softmax_pool_shared: attentionPool(false),
  jensenshannon: divergences(),
  basenji_targets: targets(),
};

/** A layer whose weight and bias start from gamma and beta. */
function rowNorm(make: (options: nn.RowNormLayerOptions) => nn.Layer): GraphCase {
  const trace = (x: Inputs, attrs: Attrs): ReturnType<GraphCase['trace']> => {
    const norm = make({ channels: x.of('gamma').shape[0]!, epsilon: numberOf(attrs, 'eps') });
    return { outputs: { y: norm(x.of('x')) }, ...parts(norm, { gamma: 'weight', beta: 'bias' }) };
  };
  return { kind: 'graph', trace };
}

function rmsBatchNorm(x: Inputs, attrs: Attrs): ReturnType<GraphCase['trace']> {
  const norm = nn.rmsBatchNorm({ channels: x.of('scale').shape[0]!, epsilon: numberOf(attrs, 'eps') });
  return {
    outputs: { y: norm(x.of('x')) },
    ...parts(norm, { scale: 'weight', offset: 'bias', var_ema: 'running_var' }),
  };
}

/** The weight `[in, out]` of the layer is the file's w `[out, in]`. */
function attentionPool(perChannel: boolean): GraphCase {
  const trace = (x: Inputs, attrs: Attrs): ReturnType<GraphCase['trace']> => {
    const pool = attrs.pool === undefined ? 2 : numberOf(attrs, 'pool');
    const made = nn.attentionPool({ channels: x.of('x').shape[2]!, pool, perChannel });
    return { outputs: { y: made(x.of('x')) }, ...parts(made, { w: 'weight' }) };
  };
  return { kind: 'graph', layouts: { x: 'channels-last', y: 'channels-last', w: 'reversed' }, trace };
}

/** Parameters of a layer by the file's names for them, as targets of gradients and with their starts. */
function parts(
  norm: nn.Layer,
  names: Readonly<Record<string, string>>,
): Pick<ReturnType<GraphCase['trace']>, 'targets' | 'starts'> {
  const named = nn.parameters(norm);
  const found = Object.entries(names).map(([file, ours]): [string, Parameter] => [file, named.get(ours)!]);
  return {
    targets: Object.fromEntries<Tensor>(found),
    starts: found.map(([file, parameter]) => [parameter, file] as const),
  };
}

function divergences(): HostCase {
  return {
    kind: 'host',
    compute: (inputs) => {
      const [a, b] = [inputs.get('a')!, inputs.get('b')!];
      const nats = jensenShannon(numbers(a), numbers(b), { length: a.shape[1]! });
      return { jsd_nats: nats, js_distance: nats.map(Math.sqrt) };
    },
  };
}

function targets(): HostCase {
  return {
    kind: 'host',
    compute: (inputs, { pool_width: poolWidthBp }) => {
      const binned = (statistic: SumStatistic, clipSoft?: number, published = false): Float64Array => {
        const track = { statistic, scale: 1, ...(clipSoft === undefined ? {} : { clipSoft }) };
        const coverage = Float32Array.from(numbers(inputs.get('coverage')!));
        return binTargets(coverage, track, { ...WHOLE, poolWidthBp: Number(poolWidthBp), published }).values;
      };
      return {
        sum: binned('sum'),
        mean: binned('mean'),
        sum_sqrt: binned('sum_sqrt'),
        sum_clip_soft100: binned('sum', 100),
        sum_clip_soft100_baskerville_old: binned('sum_sqrt', 20, true),
      };
    },
  };
}

const WHOLE = { blacklist: [], interpolate: false, precision: 'f64' } as const;
