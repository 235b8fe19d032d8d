/** The `train` part of a file, and the loss and optimizer that it names. */
import {
  adamw,
  clipAdaptive,
  clipGlobalNorm,
  clipPerVariable,
  cyclical1,
  type GradientTransform,
  type LearningRate,
  nn,
  type Optimizer,
  type OptimizerOptions,
  type Plateau,
  rmsprop,
  sgd,
  warmUp,
} from '@cohesin/core';
import { type Fields, fields } from './fields.ts';

const OPTIMIZERS = ['sgd', 'momentum', 'adam', 'adamw'] as const;
const LOSSES = ['poisson', 'poisson_mn', 'mse', 'mse_udot', 'bce'] as const;

/** How a model is trained; where a file is silent, what Basenji's trainer does. */
export interface TrainConfig {
  readonly optimizer: 'sgd' | 'adam' | 'adamw' | 'rmsprop';
  readonly learningRate: number;
  /** Basenji's one cycle, whose lowest rate is `learningRate`: up to `maximal` in so many epochs, down again, then `final`. */
  readonly cycle: { readonly maximal: number; readonly final: number; readonly epochs: number } | undefined;
  /** Steps over which the learning rate rises from 0. */
  readonly warmupSteps: number;
  /** Of `sgd`, in Keras' form. */
  readonly momentum: number;
  /** Of `adam` and `adamw`. */
  readonly betas: readonly [number, number];
  readonly epsilon: number;
  /** Where Adam's epsilon enters: Keras' place, or PyTorch's. */
  readonly adamForm?: 'torch';
  readonly weightDecay: number;
  /** Of `rmsprop`: the decay of the mean square. */
  readonly alpha: number;
  /** The longest gradient of a unit, as a share of its weights' length; comes before the other limits. */
  readonly adaptiveClip: number | undefined;
  /** The longest gradient of each parameter. */
  readonly clipNorm: number | undefined;
  /** The longest gradient of all parameters together. */
  readonly globalClipNorm: number | undefined;
  /** The longest weights of one output unit after an update. */
  readonly maxNorm: number | undefined;
  /** `bce` takes probabilities, `bce_logits_sum` logits, added up over batch and targets; `poisson_full` has all terms. */
  readonly loss: (typeof LOSSES)[number] | 'bce_logits_sum' | 'poisson_full';
  /** Of `poisson_mn`: the weight of the totals. */
  readonly totalWeight: number;
  /** Of `mse_udot`: the weight of differences between tracks. */
  readonly specificityWeight: number;
  /** Of `poisson_mn`: how many times more the middle counts than the ends, and the exponent of the weights between. */
  readonly weightRange: number;
  readonly weightExponent: number;
  /**
   * How batches of several genomes follow each other: one of each in turn (Enformer), or each epoch's in an order of its own
   * (`fit2` of Basenji and baskerville).
   */
  readonly alternation: 'turns' | 'shuffled';
  readonly batchSize: number;
  readonly shuffleBuffer: number | undefined;
  /** Epochs without a better validation Pearson r (`bce`: AUROC) before training ends. */
  readonly patience: number;
  readonly minEpochs: number;
  /** When validation lowers the learning rate; undefined where it does not. */
  readonly plateau: Plateau | undefined;
  /** Passes over the data after which training ends; undefined where the file does not say. */
  readonly maxEpochs: number | undefined;
}

/** Training as stated by `train`. @throws on an unknown option, or values that exclude each other. */
export function readTraining(train: unknown, where = 'train'): TrainConfig {
  const given = fields(train, where);
  const optimizer = given.choice('optimizer', OPTIMIZERS, 'sgd');
  const clipNorm = optional(given, 'clip_norm') ?? optional(given, 'clipnorm');
  const globalClipNorm = optional(given, 'global_clipnorm');
  if (clipNorm !== undefined && globalClipNorm !== undefined) {
    throw new Error(
      `${where}: clip_norm ${clipNorm} and global_clipnorm ${globalClipNorm}; state one of them`,
    );
  }
  const cycle = readCycle(given);
  const config: TrainConfig = {
    optimizer: optimizer === 'momentum' ? 'sgd' : optimizer,
    learningRate: given.number(cycle === undefined ? 'learning_rate' : 'initial_learning_rate', 0.01),
    cycle,
    warmupSteps: given.number('warmup_steps', 0),
    momentum: given.number('momentum', 0.99),
    betas: [given.number('adam_beta1', 0.9), given.number('adam_beta2', 0.999)],
    epsilon: 1e-7, // Keras
    weightDecay: given.number('weight_decay', 0),
    alpha: 0.98,
    adaptiveClip: optional(given, 'agc_clip'),
    clipNorm,
    globalClipNorm,
    maxNorm: undefined,
    loss: given.choice('loss', LOSSES, 'poisson'),
    totalWeight: given.number('total_weight', 1),
    specificityWeight: given.number('spec_weight', 1),
    weightRange: given.number('weight_range', 1),
    weightExponent: given.number('weight_exp', 4),
    alternation: given.choice('alternation', ['turns', 'shuffled'], 'shuffled'),
    batchSize: given.integer('batch_size', 64),
    shuffleBuffer: optional(given, 'shuffle_buffer'),
    patience: given.integer('patience', 20),
    minEpochs: given.integer('train_epochs_min', 1),
    plateau: readPlateau(given),
    maxEpochs: optional(given, 'train_epochs_max') ?? optional(given, 'train_epochs'),
  };
  given.finish();
  return config;
}

const CYCLE = [
  'initial_learning_rate',
  'maximal_learning_rate',
  'final_learning_rate',
  'train_epochs_cycle1',
] as const;

function readCycle(given: Fields): TrainConfig['cycle'] {
  const missing = CYCLE.filter((name) => !given.has(name));
  if (missing.length === CYCLE.length) return undefined;
  given.skip('learning_rate'); // the trainer passes over it
  if (missing.length > 0)
    throw new Error(
      `${given.where}: ${missing.join(', ')} missing; a cycle of the learning rate needs ${CYCLE.join(', ')}`,
    );
  return {
    maximal: given.number('maximal_learning_rate'),
    final: given.number('final_learning_rate'),
    epochs: given.number('train_epochs_cycle1'),
  };
}

/** `{ factor, patience, threshold, min_lr }`, named as in PyTorch and with its defaults. */
function readPlateau(given: Fields): Plateau | undefined {
  if (!given.has('reduce_lr_on_plateau')) return undefined;
  const stated = fields(given.value('reduce_lr_on_plateau'), `${given.where}.reduce_lr_on_plateau`);
  const plateau = {
    factor: stated.number('factor', 0.1),
    patience: stated.number('patience', 10),
    threshold: stated.number('threshold', 1e-4),
    least: stated.number('min_lr', 0) / given.number('learning_rate', 0.01),
  };
  stated.finish();
  if (plateau.factor > 0 && plateau.factor < 1) return plateau;
  throw new Error(`${stated.where}.factor: expected a number between 0 and 1, found ${plateau.factor}`);
}

function optional(given: Fields, name: string): number | undefined {
  return given.has(name) ? given.number(name) : undefined;
}

/** The loss of a model trained so. */
export function lossOf({
  loss,
  totalWeight,
  specificityWeight,
  weightRange,
  weightExponent,
}: TrainConfig): nn.Loss {
  const weights = { range: weightRange, exponent: weightExponent };
  switch (loss) {
    case 'poisson':
      return nn.poissonLoss;
    case 'poisson_mn':
      return (p, t) =>
        nn.poissonMultinomialLoss(p, t, { totalWeight, ...(weightRange === 1 ? {} : { weights }) });
    case 'mse':
      return nn.mseLoss;
    case 'mse_udot':
      return (p, t) => nn.mseUdotLoss(p, t, { udotWeight: specificityWeight });
    case 'bce':
      return nn.bceProbabilities;
    case 'bce_logits_sum':
      return (logits, t) => nn.bceWithLogits(logits, t, { reduction: 'sum' });
    case 'poisson_full':
      return nn.fullPoissonLoss;
  }
}

/**
 * The optimizer of a model trained so: Keras' forms, for `rmsprop` Torch7's. Where genomes take turns, the learning rate
 * changes once all had theirs.
 *
 * @param stepsPerEpoch of all genomes together; a cycle counts epochs
 * @param rateFactors what the learning rate of some parameters is multiplied by, as `OptimizerOptions` has it
 */
export function optimizerOf(
  config: TrainConfig,
  {
    rateFactors = {},
    genomes = 1,
    stepsPerEpoch = 1,
  }: Pick<OptimizerOptions, 'rateFactors'> & {
    readonly genomes?: number;
    readonly stepsPerEpoch?: number;
  } = {},
): Optimizer {
  const { momentum, alpha, weightDecay, betas, epsilon, maxNorm, adamForm: form = 'keras' } = config;
  const [beta1, beta2] = betas;
  const shared = {
    learningRate: rateOf(config, config.alternation === 'turns' ? genomes : 1, stepsPerEpoch),
    rateFactors,
    ...clipOf(config),
    ...(maxNorm === undefined ? {} : { maxNorm }),
  };
  switch (config.optimizer) {
    case 'sgd':
      return sgd({ ...shared, momentum, form: 'keras' });
    case 'adam':
      return adamw({ ...shared, beta1, beta2, epsilon, weightDecay: 0, form });
    case 'adamw':
      return adamw({ ...shared, beta1, beta2, epsilon, weightDecay, form });
    case 'rmsprop':
      return rmsprop({ ...shared, alpha });
  }
}

function rateOf(
  { learningRate, cycle, warmupSteps }: TrainConfig,
  turns: number,
  stepsPerEpoch: number,
): LearningRate {
  if (warmupSteps === 0 && cycle === undefined) return learningRate;
  const rise = warmUp({ peak: learningRate, warmup: warmupSteps });
  const stepSize = (cycle?.epochs ?? 0) * stepsPerEpoch;
  const then = cycle && cyclical1({ initial: learningRate, ...cycle, stepSize });
  return (step) => {
    const turn = Math.floor(step / turns);
    return then === undefined || turn < warmupSteps ? rise(turn) : then(turn - warmupSteps);
  };
}

function clipOf({ adaptiveClip, clipNorm, globalClipNorm }: TrainConfig): { clip?: GradientTransform } {
  const clips = [
    ...(adaptiveClip === undefined ? [] : [clipAdaptive(adaptiveClip)]),
    ...(clipNorm === undefined ? [] : [clipPerVariable(clipNorm)]),
    ...(globalClipNorm === undefined ? [] : [clipGlobalNorm(globalClipNorm)]),
  ];
  if (clips.length === 0) return {};
  return {
    clip: (gradients, parameters) => clips.reduce((clipped, clip) => clip(clipped, parameters), gradients),
  };
}
