/** The `train` part of a file, and the loss and optimizer that it names. */
import {
  adamw,
  clipGlobalNorm,
  clipPerVariable,
  type GradientTransform,
  type LearningRate,
  nn,
  type Optimizer,
  type OptimizerOptions,
  rmsprop,
  sgd,
  warmUp,
} from '@cohesin/core';
import { type Fields, fields } from './fields.ts';

const OPTIMIZERS = ['sgd', 'momentum', 'adam', 'adamw'] as const;
const LOSSES = ['poisson', 'poisson_mn', 'mse', 'bce'] as const;

/** How a model is trained; where a file is silent, what Basenji's trainer does. */
export interface TrainConfig {
  readonly optimizer: 'sgd' | 'adam' | 'adamw' | 'rmsprop';
  readonly learningRate: number;
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
  /** Of `poisson_mn`: how much more positions in the middle count than those at the ends. Only 1 can be trained. */
  readonly weightRange: number;
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
  const config: TrainConfig = {
    optimizer: optimizer === 'momentum' ? 'sgd' : optimizer,
    learningRate: given.number('learning_rate', 0.01),
    warmupSteps: given.number('warmup_steps', 0),
    momentum: given.number('momentum', 0.99),
    betas: [given.number('adam_beta1', 0.9), given.number('adam_beta2', 0.999)],
    epsilon: 1e-7, // Keras
    weightDecay: given.number('weight_decay', 0),
    alpha: 0.98,
    clipNorm,
    globalClipNorm,
    maxNorm: undefined,
    loss: given.choice('loss', LOSSES, 'poisson'),
    totalWeight: given.number('total_weight', 1),
    weightRange: given.number('weight_range', 1),
    alternation: given.choice('alternation', ['turns', 'shuffled'], 'shuffled'),
    batchSize: given.integer('batch_size', 64),
    shuffleBuffer: optional(given, 'shuffle_buffer'),
    patience: given.integer('patience', 20),
    minEpochs: given.integer('train_epochs_min', 1),
    maxEpochs: optional(given, 'train_epochs_max') ?? optional(given, 'train_epochs'),
  };
  given.skip('weight_exp');
  given.finish();
  return config;
}

function optional(given: Fields, name: string): number | undefined {
  return given.has(name) ? given.number(name) : undefined;
}

/** The loss of a model trained so. @throws when it weights positions, which no loss here does. */
export function lossOf({ loss, totalWeight, weightRange }: TrainConfig): nn.Loss {
  if (loss === 'poisson_mn' && weightRange !== 1)
    throw new Error(
      `train.weight_range: positions are not weighted here, found ${weightRange}; set it to 1 to train with equal weights`,
    );
  switch (loss) {
    case 'poisson':
      return nn.poissonLoss;
    case 'poisson_mn':
      return (p, t) => nn.poissonMultinomialLoss(p, t, { totalWeight, form: 'baskerville' });
    case 'mse':
      return nn.mseLoss;
    case 'bce':
      return nn.bceProbabilities;
    case 'bce_logits_sum':
      return (logits, t) => nn.bceWithLogits(logits, t, { reduction: 'sum' });
    case 'poisson_full':
      return nn.fullPoissonLoss;
  }
}

/**
/**
 * The optimizer of a model trained so: Keras' forms, for `rmsprop` Torch7's. Where genomes take turns, the learning rate
 * changes once all had theirs.
 *
 * @param rateFactors what the learning rate of some parameters is multiplied by, as `OptimizerOptions` has it
 */
export function optimizerOf(
  config: TrainConfig,
  {
    rateFactors = {},
    genomes = 1,
  }: Pick<OptimizerOptions, 'rateFactors'> & { readonly genomes?: number } = {},
): Optimizer {
  const { momentum, alpha, weightDecay, betas, epsilon, maxNorm, adamForm: form = 'keras' } = config;
  const [beta1, beta2] = betas;
  const shared = {
    learningRate: rateOf(config, config.alternation === 'turns' ? genomes : 1),
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

function rateOf({ learningRate, warmupSteps }: TrainConfig, turns: number): LearningRate {
  if (warmupSteps === 0) return learningRate;
  const rate = warmUp({ peak: learningRate, warmup: warmupSteps });
  return (step) => rate(Math.floor(step / turns));
}

function clipOf({ clipNorm, globalClipNorm }: TrainConfig): { clip?: GradientTransform } {
  if (clipNorm !== undefined) return { clip: clipPerVariable(clipNorm) };
  return globalClipNorm === undefined ? {} : { clip: clipGlobalNorm(globalClipNorm) };
}
