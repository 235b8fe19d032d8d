/** BPNet (Avsec et al. 2021) in the forms that it is trained in today; `original.ts` has the paper's. */
import {
  add,
  concat,
  log,
  log1pRelu,
  multiply,
  nn,
  relu,
  reshape,
  slice,
  sum,
  type Tensor,
} from '@cohesin/core';

export interface BpnetOptions {
  /** Which of the published variants below. */
  readonly form?: 'lite' | 'basepair' | 'chrombpnet';
  readonly filters?: number;
  /** Dilated convolutions, the i-th from 1 with dilation 2^i. */
  readonly dilatedLayers?: number;
  /** Profiles: 2 of stranded data, 1 of unstranded. */
  readonly strands?: number;
  /** With 0 there is no control input. */
  readonly controlTracks?: number;
  /** Positions of x at each end that the profile leaves out; `unpaddedTrimming` by default. */
  readonly trimming?: number;
}

export interface BpnetInputs {
  /** One-hot [batch, length, 4]. */
  readonly x: Tensor;
  /** Control reads [batch, length, controlTracks]. */
  readonly control?: Tensor | undefined;
}

/**
 * What `nn.bpnetLoss` takes: logits of one multinomial over positions and strands, [batch, length − 2 · trimming, strands],
 * and log(1 + reads of all strands) [batch, 1].
 */
export type BpnetOutputs = Readonly<Record<'logits' | 'logCounts', Tensor>>;

export type Bpnet = nn.Layer<BpnetInputs, BpnetOutputs>;

const FIRST_SIZE = 21;
const PROFILE_SIZE = 75;
/** Positions on each side of its own that a profile logit weighs. */
const PROFILE_REACH = (PROFILE_SIZE - 1) / 2;

/**
 * BPNet: the shape of a track, and apart from it the number of its reads. By default 2,114 bp → profiles of 1,000 bp on two
 * strands with two control tracks, 114,224 parameters.
 *
 * Published variants, and which this is:
 * - `lite` is bpnet-lite's BPNet: each dilated convolution adds relu(conv(x)) to x. Counts see the log of 1 + the control
 *   reads where the profile looks.
 * - `basepair` is bpnet-lite's BasePairNet, the model of basepairmodels: each adds conv(relu(x)), with a ReLU at the end.
 *   Counts see the log of 2 + the control reads of the profile's own positions.
 * - `chrombpnet` is either model within the ChromBPNet package: as `lite`, but counts average every position that no
 *   padding reaches. In its shallow bias model these are 2,034 of 2,114, of which bpnet-lite averages 1,074.
 * - ChromBPNet's convolutions have no padding; these are padded and cropped, as bpnet-lite's. The two are equal where the
 *   trimming is at least `unpaddedTrimming`. Older versions of bpnet-lite trimmed 2^dilatedLayers.
 * - The paper's model, `originalBpnet`, has transposed convolutions, a head for each factor and a multinomial for each
 *   strand; here one multinomial holds both strands.
 * - Values start as in PyTorch (`lite`, `basepair`) or in Keras (`chrombpnet`).
 *
 * @throws when the trimming is too small for the form; when called, if the control tracks are not those stated.
 */
export function bpnet(options: BpnetOptions = {}): Bpnet {
  const { form = 'lite', filters = 64, dilatedLayers = 8, strands = 2 } = options;
  const { controlTracks = form === 'chrombpnet' ? 0 : 2, trimming = unpaddedTrimming(dilatedLayers) } =
    options;
  const padded = unpaddedTrimming(dilatedLayers) - PROFILE_REACH;
  checkTrimming(trimming, form === 'chrombpnet' ? padded + PROFILE_REACH : PROFILE_REACH);
  const { conv, linear } = form === 'chrombpnet' ? KERAS : TORCH;
  const parts = {
    first: conv({ inputs: 4, outputs: filters, size: FIRST_SIZE }),
    dilated: Array.from({ length: dilatedLayers }, (_, i) =>
      conv({ inputs: filters, outputs: filters, size: 3, dilation: 2 ** (i + 1) }),
    ),
    profile: conv({
      inputs: filters + controlTracks,
      outputs: strands,
      size: PROFILE_SIZE,
      padding: 'valid',
    }),
    counts: linear({ inputs: filters + Math.min(controlTracks, 1), outputs: 1 }),
  };

  const trunk = (x: Tensor): Tensor =>
    form === 'basepair'
      ? relu(parts.dilated.reduce((y, conv) => add(y, conv(relu(y))), parts.first(x)))
      : parts.dilated.reduce((y, conv) => add(y, relu(conv(y))), relu(parts.first(x)));

  return nn.layer(parts, ({ x, control }: BpnetInputs): BpnetOutputs => {
    checkControl(control, controlTracks);
    const length = x.shape[1]!;
    const own = { from: trimming, to: length - trimming };
    const seen = { from: own.from - PROFILE_REACH, to: own.to + PROFILE_REACH };
    const counted = form === 'chrombpnet' ? { from: padded, to: length - padded } : seen;
    const features = trunk(x); // [batch, length, filters]
    const near = slice(features, seen);
    const average = meanOverRows(slice(features, counted)); // [batch, filters]
    if (control === undefined) return { logits: parts.profile(near), logCounts: parts.counts(average) };
    const reads = total(slice(control, form === 'basepair' ? own : seen)); // [batch, 1]
    const logReads = form === 'basepair' ? log(add(reads, 2)) : log1pRelu(reads);
    return {
      logits: parts.profile(concat([near, slice(control, seen)])),
      logCounts: parts.counts(concat([average, logReads])),
    };
  });
}

/** The least trimming with which no prediction sees padding: 37 + 10 + Σ 2^i. */
export function unpaddedTrimming(dilatedLayers: number): number {
  return PROFILE_REACH + (FIRST_SIZE - 1) / 2 + 2 ** (dilatedLayers + 1) - 2;
}

const TORCH = {
  conv: (options: nn.Conv1dLayerOptions): nn.Layer =>
    nn.conv1d({ ...options, ...torchInit(options.inputs * options.size) }),
  linear: (options: nn.LinearOptions): nn.Layer => nn.linear({ ...options, ...torchInit(options.inputs) }),
};

const KERAS = {
  conv: (options: nn.Conv1dLayerOptions): nn.Layer => nn.conv1d({ ...options, init: nn.init.glorotUniform }),
  linear: nn.linear,
};

function torchInit(fanIn: number): Pick<nn.LinearOptions, 'init' | 'biasInit'> {
  return { init: nn.init.torchUniform, biasInit: nn.init.uniform(1 / Math.sqrt(fanIn)) };
}

/** x [batch, rows, channels] → [batch, channels]. */
export function meanOverRows(x: Tensor): Tensor {
  return multiply(sum(x, { from: 1, to: 2 }), 1 / x.shape[1]!);
}

/** x [batch, rows, tracks] → its sum [batch, 1]. */
function total(x: Tensor): Tensor {
  return reshape(sum(x, { from: 1, to: 3 }), [-1, 1]);
}

function checkTrimming(trimming: number, least: number): void {
  if (trimming >= least) return;
  throw new Error(`bpnet: trimming is ${trimming} positions, but the heads look ${least} further; raise it`);
}

function checkControl(control: Tensor | undefined, tracks: number): void {
  const found = control?.shape[2] ?? 0;
  if (found === tracks) return;
  throw new Error(`bpnet: control has ${found} tracks but controlTracks is ${tracks}; they must be equal`);
}
