/** Models of the BPNet family by name and parameters: what they read, what they are trained on, and how. */
import { add, concat, log1pRelu, multiply, nn, reshape, slice, sum, type Tensor } from '@cohesin/core';
import { type Fields, fields } from '../builder/fields.ts';
import { readTraining, type TrainConfig } from '../builder/training.ts';
import { chrombpnet } from '../chrombpnet/model.ts';
import { chrombpnetKerasWeights } from '../chrombpnet/weights.ts';
import type { Published, PublishedWeights } from '../load-weights.ts';
import { type BpnetInputs, type BpnetOutputs, bpnet, unpaddedTrimming } from './model.ts';
import { originalBpnet, type StrandPair } from './original.ts';
import { bpnetKerasWeights, bpnetTorchWeights, originalBpnetWeights } from './weights.ts';

export const PROFILE_MODELS = [
  'bpnet',
  'bpnet-lite',
  'basepairnet',
  'chrombpnet',
  'chrombpnet-bias',
] as const;
export type ProfileModelName = (typeof PROFILE_MODELS)[number];

/** What a data set says of itself to a model that is made to fit it. */
export interface ProfileData {
  /** Tracks that are predicted. */
  readonly identifiers: readonly string[];
  /** Tracks that are read. */
  readonly controls: number;
  /** For each predicted track the one it becomes on the other strand, where the data say so. */
  readonly strandPair: readonly (number | undefined)[];
}

/** What a model of profiles reads and gives, in bp. */
export interface ProfileConfig {
  readonly sequenceLengthBp: number;
  /** Positions predicted, in the middle of the sequence. */
  readonly targetLength: number;
  readonly tracks: number;
  readonly controls: number;
  /** Positions to either side of those predicted at which control tracks are read. */
  readonly controlReachBp: number;
  /** For each track, and each control track, the one it becomes on the other strand. */
  readonly strandPair: readonly number[];
  readonly controlPair: readonly number[];
  /** Tracks whose reads are counted together, under one multinomial: one group, or one a strand. */
  readonly groups: readonly (readonly number[])[];
  readonly augment: { readonly reverseComplement: boolean; readonly jitterBp: number };
  /** What the squared error of each group's log count weighs beside its profile; undefined until the data are known. */
  readonly countWeight: number | undefined;
}

/** A model of the BPNet family, fitted to its data. */
export interface BuiltProfileModel extends Published {
  /** x one-hot [batch, length, 4] (and control tracks) → logits [batch, targetLength, tracks], logCounts [batch, groups]. */
  readonly model: nn.Layer<BpnetInputs, BpnetOutputs>;
  /** The prediction without the enzyme's bias, of a ChromBPNet. */
  readonly withoutBias?: (inputs: BpnetInputs) => BpnetOutputs;
  /** The bias model by itself, whose weights go under `bias.`, of a ChromBPNet. */
  readonly bias?: Published;
  /** Parameters that training leaves as they are. */
  readonly frozen: readonly string[];
  /** Prediction and reads [batch, targetLength, tracks] → scalar. */
  readonly loss: (prediction: BpnetOutputs, target: Tensor) => Tensor;
  readonly config: ProfileConfig;
  readonly train: TrainConfig;
  /** Parameters in full: they build the same model again, whatever the data. */
  readonly params: Readonly<Record<'model' | 'train', Readonly<Record<string, unknown>>>>;
}

/** Whether parameters describe a model of this family. */
export function isProfileModel(params: unknown): boolean {
  const name =
    typeof params === 'string' ? params : (params as { model?: { name?: unknown } } | null)?.model?.name;
  return PROFILE_MODELS.includes(name as ProfileModelName);
}

/**
 * A model of the BPNet family from its name, or from `{ model: { name, seq_length, filters, dilated_layers, trimming,
 * tracks, controls, augment_rc, augment_jitter, count_weight, … }, train: { learning_rate, batch_size, … } }`. What is not
 * stated is as published, and tracks are those of the data.
 *
 * Published variants, and which this is: `bpnet` is the paper's (1,000 bp, a task for each two tracks), `bpnet-lite` and
 * `basepairnet` are bpnet-lite's models, `chrombpnet` and its `chrombpnet-bias` those of the ChromBPNet package. Gradients
 * are clipped to length 1 together, as bpnet-lite did: counts make the first steps wild.
 *
 * @throws when an option is unknown or has no sense, naming its place
 */
export function profileModel(params: unknown, data: ProfileData): BuiltProfileModel {
  const file = fields(typeof params === 'string' ? { model: { name: params } } : params, 'params');
  const given = fields(file.value('model'), 'model');
  const stated = (file.value('train') ?? {}) as Readonly<Record<string, unknown>>;
  file.finish();
  const name = given.choice('name', PROFILE_MODELS);
  const published = PUBLISHED[name];
  const train = { ...published.train, ...stated };
  if ('loss' in stated) throw new Error('train.loss: the loss of this model is its own; leave it out');
  const size = readSize(given, name, data);
  const built = published.build(given, size);
  const config = readConfig(given, size, built, published.jitterBp);
  given.finish();
  return {
    ...built,
    config,
    loss: lossOf(built.separate, config.countWeight ?? 1),
    train: { ...readTraining(train), ...published.optimizer },
    params: { model: explicit(params, name, size, config), train },
  };
}

interface Size {
  readonly lengthBp: number;
  readonly tracks: number;
  readonly controls: number;
  readonly tasks: readonly string[];
  readonly strandPair: readonly number[];
}

function readSize(given: Fields, name: ProfileModelName, data: ProfileData): Size {
  const tracks = given.integer('tracks', data.identifiers.length);
  const controls = count(given, 'controls', data.controls);
  const pairs = given.value('strand_pair') as readonly number[] | undefined;
  const strandPair =
    pairs ?? Array.from({ length: tracks }, (_, i) => data.strandPair[i] ?? flipped(i, tracks));
  if (
    strandPair.length !== tracks ||
    !strandPair.every((pair) => Number.isInteger(pair) && pair >= 0 && pair < tracks)
  )
    throw new Error(
      `model.strand_pair: expected ${tracks} tracks below ${tracks}, found ${JSON.stringify(strandPair)}`,
    );
  const { single, strands } = PUBLISHED[name];
  if (single && (tracks !== 1 || controls > 0))
    throw new Error(
      `${name}: the data have ${tracks} tracks and ${controls} control tracks; this model has one unstranded track and no control`,
    );
  if (strands && (tracks % 2 !== 0 || ![0, 2, tracks].includes(controls)))
    throw new Error(
      `${name}: the data have ${tracks} tracks and ${controls} control tracks; each task has two strands, and two control tracks of its own or of all`,
    );
  const tasks = (given.value('tasks') as readonly string[] | undefined) ?? taskNames(data.identifiers);
  return {
    lengthBp: given.integer('seq_length', PUBLISHED[name].lengthBp),
    tracks,
    controls,
    tasks,
    strandPair,
  };
}

/** Of two strands each is the other's, as bpnet-lite and BPNet turn them. */
const flipped = (track: number, tracks: number): number => (tracks % 2 === 0 ? track ^ 1 : track);

/** What the identifiers of two strands share, or a number. */
function taskNames(identifiers: readonly string[]): string[] {
  const names = Array.from({ length: Math.floor(identifiers.length / 2) }, (_, task) => {
    const [a, b] = [identifiers[2 * task]!, identifiers[2 * task + 1]!];
    const shared = [...a].findIndex((letter, i) => letter !== b[i]);
    return a.slice(0, shared < 0 ? a.length : shared).replaceAll(/\W+|[\W_]+$/g, '');
  });
  return new Set(names).size === names.length && !names.includes('')
    ? names
    : names.map((_, i) => `task${i}`);
}

interface Parts extends Pick<BuiltProfileModel, 'model' | 'withoutBias' | 'bias' | 'frozen' | 'published'> {
  readonly trimming: number;
  readonly controlReachBp: number;
  /** Each track has a multinomial of its own. */
  readonly separate: boolean;
}

interface PublishedForm {
  readonly lengthBp: number;
  readonly jitterBp: number;
  /** One track and no control. */
  readonly single?: true;
  /** Tracks come in pairs of strands. */
  readonly strands?: true;
  readonly train: Readonly<Record<string, unknown>>;
  readonly optimizer: Partial<TrainConfig>;
  readonly build: (given: Fields, size: Size) => Parts;
}

const ADAM = { optimizer: 'adam', learning_rate: 1e-3, batch_size: 64, global_clipnorm: 1 };
const CHROMBPNET_TRAIN = { ...ADAM, patience: 5, train_epochs_max: 50 };
/** bpnet-lite's command line. */
const LITE_TRAIN = {
  ...ADAM,
  train_epochs_max: 100,
  reduce_lr_on_plateau: { factor: 0.5, patience: 5, threshold: 1e-4, min_lr: 1e-4 },
};
const TORCH: Partial<TrainConfig> = { adamForm: 'torch', epsilon: 1e-8 };

const PUBLISHED: Readonly<Record<ProfileModelName, PublishedForm>> = {
  bpnet: {
    lengthBp: 1000,
    jitterBp: 200,
    strands: true,
    train: { ...ADAM, learning_rate: 4e-3, batch_size: 128, patience: 5, train_epochs_max: 200 },
    optimizer: {},
    build: original,
  },
  'bpnet-lite': {
    lengthBp: 2114,
    jitterBp: 128,
    train: LITE_TRAIN,
    optimizer: TORCH,
    build: (given, size) => single(given, size, 'lite', { filters: 64, dilatedLayers: 8 }),
  },
  basepairnet: {
    lengthBp: 2114,
    jitterBp: 128,
    train: LITE_TRAIN,
    optimizer: TORCH,
    build: (given, size) => single(given, size, 'basepair', { filters: 64, dilatedLayers: 8 }),
  },
  'chrombpnet-bias': {
    lengthBp: 2114,
    jitterBp: 0,
    single: true,
    train: CHROMBPNET_TRAIN,
    optimizer: {},
    build: biasModel,
  },
  chrombpnet: {
    lengthBp: 2114,
    jitterBp: 500,
    single: true,
    train: CHROMBPNET_TRAIN,
    optimizer: {},
    build: factorized,
  },
};

interface Layers {
  readonly filters: number;
  readonly dilatedLayers: number;
}

function readLayers(given: Fields, { filters, dilatedLayers }: Layers): Layers {
  return {
    filters: given.integer('filters', filters),
    dilatedLayers: count(given, 'dilated_layers', dilatedLayers),
  };
}

function single(
  given: Fields,
  { tracks, controls }: Size,
  form: 'lite' | 'basepair' | 'chrombpnet',
  published: Layers,
  unpadded = 0,
): Parts {
  const layers = readLayers(given, published);
  const trimming = count(given, 'trimming', Math.max(unpadded, unpaddedTrimming(layers.dilatedLayers)));
  const model = bpnet({ form, ...layers, strands: tracks, controlTracks: controls, trimming });
  return {
    model,
    frozen: [],
    trimming,
    controlReachBp: form === 'basepair' || form === 'lite' ? 37 : 0,
    separate: false,
    published: () => publishedOf(form, model),
  };
}

function publishedOf(
  form: 'lite' | 'basepair' | 'chrombpnet',
  model: nn.AnyLayer,
): readonly PublishedWeights[] {
  const torch: PublishedWeights = { format: 'torch', map: bpnetTorchWeights(model) };
  return form === 'chrombpnet' ? [{ format: 'keras', map: bpnetKerasWeights(model) }, torch] : [torch];
}

const BIAS: Layers = { filters: 128, dilatedLayers: 4 };
const ACCESSIBILITY: Layers = { filters: 512, dilatedLayers: 8 };

/** The window of the bias model is that of the ChromBPNet it is made for, whose own layers see further. */
function biasModel(given: Fields, size: Size): Parts {
  return single(given, size, 'chrombpnet', BIAS, unpaddedTrimming(ACCESSIBILITY.dilatedLayers));
}

function factorized(given: Fields): Parts {
  const accessibility = readLayers(given, ACCESSIBILITY);
  const inner = fields(given.value('bias') ?? {}, 'model.bias');
  const bias = readLayers(inner, BIAS);
  inner.finish();
  const trimming = count(given, 'trimming', unpaddedTrimming(accessibility.dilatedLayers));
  const model = chrombpnet({ accessibility, bias, trimming });
  const alone = bpnet({ form: 'chrombpnet', ...bias, strands: 1, trimming });
  return {
    model: nn.layer({ ...model.parts }, ({ x }: BpnetInputs) => model(x)),
    withoutBias: ({ x }) => model.accessibility({ x }),
    bias: { model: alone, published: () => publishedOf('chrombpnet', alone) },
    frozen: model.frozen,
    trimming,
    controlReachBp: 0,
    separate: false,
    published: () => [
      { format: 'keras', map: chrombpnetKerasWeights(model) },
      { format: 'torch', map: bpnetTorchWeights(model) },
    ],
  };
}

/** The paper's model, its tasks side by side: two tracks each. */
function original(given: Fields, { tracks, controls, tasks }: Size): Parts {
  const { filters, dilatedLayers } = readLayers(given, { filters: 64, dilatedLayers: 9 });
  const profileSize = given.integer('profile_size', 25);
  const biasWindows = controls > 0 ? [1, 50] : [];
  const model = originalBpnet({ tasks, filters, dilatedLayers, profileSize, biasWindows });
  const controlOf = (control: Tensor, task: number): StrandPair => {
    const from = controls === tracks ? 2 * task : 0;
    const profile = controls === 2 ? control : slice(control, { axis: 2, from, to: from + 2 });
    return { profile, logCounts: log1pRelu(sum(profile, { from: 1, to: 2 })) }; // [batch, 2]
  };
  const all = nn.layer({ ...model.parts }, ({ x, control }: BpnetInputs): BpnetOutputs => {
    const bias = control && Object.fromEntries(tasks.map((task, i) => [task, controlOf(control, i)]));
    const found = Object.values(model({ x, ...(bias && { bias }) }));
    return {
      logits: concat(found.map(({ logits }) => logits)),
      logCounts: concat(found.map(({ logCounts }) => logCounts)),
    };
  });
  return {
    model: all,
    frozen: [],
    trimming: 0,
    controlReachBp: 0,
    separate: true,
    published: () => [{ format: 'torch', map: originalBpnetWeights(model) }],
  };
}

const ORIGINAL_WEIGHT = 10; // Avsec et al. 2021: λ; each task's error is the mean of two strands'

function readConfig(given: Fields, size: Size, parts: Parts, publishedJitter: number): ProfileConfig {
  const { lengthBp, tracks, controls, strandPair } = size;
  const targetLength = lengthBp - 2 * parts.trimming;
  if (targetLength < 1)
    throw new Error(
      `model.seq_length: ${lengthBp} bp less a trimming of ${parts.trimming} at each end leave nothing; raise it, or lower dilated_layers`,
    );
  const countWeight = given.has('count_weight')
    ? given.number('count_weight')
    : parts.separate
      ? ORIGINAL_WEIGHT / 2
      : undefined;
  const all = Array.from({ length: tracks }, (_, i) => i);
  return {
    sequenceLengthBp: lengthBp,
    targetLength,
    tracks,
    controls,
    controlReachBp: parts.controlReachBp,
    strandPair,
    controlPair: Array.from({ length: controls }, (_, i) => flipped(i, controls)),
    groups: parts.separate ? all.map((i) => [i]) : [all],
    augment: {
      reverseComplement: given.flag('augment_rc', true),
      jitterBp: count(given, 'augment_jitter', publishedJitter),
    },
    countWeight,
  };
}

/** The sum over groups of the multinomial's mean over sequences and `countWeight` times the squared error of log counts. */
function lossOf(separate: boolean, countWeight: number): BuiltProfileModel['loss'] {
  if (!separate) return (prediction, target) => nn.bpnetLoss(prediction, target, { countWeight });
  return ({ logits, logCounts }, target) => {
    const groups = logCounts.shape[1]!;
    const wanted = log1pRelu(reshape(sum(target, { from: 1, to: 2 }), [-1, groups])); // [batch, groups]
    const counts = multiply(nn.mseLoss(logCounts, wanted), countWeight * groups);
    return add(multiply(nn.multinomialLoss(logits, target), groups), counts);
  };
}

function explicit(
  params: unknown,
  name: ProfileModelName,
  { lengthBp, tracks, controls, strandPair, tasks }: Size,
  { countWeight }: ProfileConfig,
): Record<string, unknown> {
  const stated = typeof params === 'string' ? {} : (params as { model: Record<string, unknown> }).model;
  return {
    ...stated,
    name,
    seq_length: lengthBp,
    tracks,
    controls,
    strand_pair: strandPair,
    ...(PUBLISHED[name].strands && { tasks }),
    ...(countWeight !== undefined && { count_weight: countWeight }),
  };
}

/** A whole number of at least 0. */
function count(given: Fields, name: string, otherwise: number): number {
  const found = given.number(name, otherwise);
  if (Number.isInteger(found) && found >= 0) return found;
  throw new Error(`${given.where}.${name}: expected a whole number ≥ 0, found ${found}`);
}
