/** Models by name or file. */
import { readFile } from 'node:fs/promises';
import { akita } from './akita/model.ts';
import { basenji2 } from './basenji/model.ts';
import { basenji1 } from './basenji1/model.ts';
import { basenji1Weights } from './basenji1/weights.ts';
import { basset } from './basset/model.ts';
import { bassetWeights } from './basset/weights.ts';
import { borzoi } from './borzoi/model.ts';
import { PROFILE_MODELS } from './bpnet/built.ts';
import { type BuilderOptions, type BuiltModel, modelFromParams } from './builder/model.ts';
import { readTraining } from './builder/training.ts';

const NAMED: Readonly<Record<string, () => BuiltModel>> = {
  basset: () => bassetAsPublished(),
  basenji2: () => basenji2(),
  basenji1: () => basenji1AsPublished(),
  akita: () => akita(),
  borzoi: () => borzoi(),
};

/** Names of published models. `namedModel` builds those whose sizes need no data set. */
export const MODEL_NAMES: readonly string[] = [...Object.keys(NAMED), 'enformer', ...PROFILE_MODELS];

/**
 * A published model by name (`basset`, `basenji2`, `basenji1`, `akita`, `borzoi`), or the model of a Basenji or baskerville parameter file.
 *
 * @throws when there is no such name, the file cannot be read, or it describes no model that can be built.
 */
export async function namedModel(nameOrPath: string, options: BuilderOptions = {}): Promise<BuiltModel> {
  const make = Object.hasOwn(NAMED, nameOrPath) ? NAMED[nameOrPath] : undefined;
  if (make !== undefined) return make();
  if (MODEL_NAMES.includes(nameOrPath))
    throw new Error(`${nameOrPath} takes its heads from a data set; only training and evaluation build it`);
  const known = MODEL_NAMES.join(', ');
  if (!nameOrPath.endsWith('.json')) {
    throw new Error(
      `no model is called '${nameOrPath}'; there are ${known}, or give the path of a params .json`,
    );
  }
  const text = await readFile(nameOrPath, 'utf8').catch((cause: unknown) => {
    throw new Error(`${nameOrPath}: cannot read the parameter file; give its path, or one of ${known}`, {
      cause,
    });
  });
  return fromText(text, nameOrPath, options);
}

function fromText(text: string, path: string, options: BuilderOptions): BuiltModel {
  try {
    return modelFromParams(JSON.parse(text), options);
  } catch (cause) {
    throw new Error(`${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** Basset with sizes and training (Torch7's RMSprop, cross-entropy summed, weights at most 7 long) of its paper. */
function bassetAsPublished(): BuiltModel {
  const [lengthBp, targets] = [600, 164];
  const model = basset({ lengthBp, targets });
  return {
    model,
    predict: model.predict,
    config: {
      sequenceLengthBp: lengthBp,
      targetLength: 1,
      targets,
      binBp: lengthBp,
      cropBp: 0,
      outputShape: [targets],
      link: model.link,
      augment: { reverseComplement: false, shiftBp: 0 },
      strandPair: undefined,
    },
    train: {
      ...readTraining({ learning_rate: 0.002, batch_size: 128, patience: 10 }),
      optimizer: 'rmsprop',
      alpha: 0.98,
      maxNorm: 7,
      loss: 'bce_logits_sum',
    },
    published: () => [{ format: 'torch', map: bassetWeights(model) }],
  };
}

/** Basenji1 with the sizes and training of its paper; the augmentation is the paper's, its parameter file states none. */
function basenji1AsPublished(): BuiltModel {
  const [lengthBp, targets] = [131_072, 4_229];
  const model = basenji1({ lengthBp, targets });
  const { binBp, bins } = model;
  return {
    model,
    predict: model,
    config: {
      sequenceLengthBp: lengthBp,
      targetLength: bins,
      targets,
      binBp,
      cropBp: (lengthBp - bins * binBp) / 2,
      outputShape: [bins, targets],
      link: 'exp_linear',
      augment: { reverseComplement: true, shiftBp: 3 },
      strandPair: undefined,
    },
    train: {
      ...readTraining({
        optimizer: 'adam',
        learning_rate: 0.002_063,
        adam_beta1: 0.97,
        adam_beta2: 0.98,
        global_clipnorm: 1, // where params.txt is silent
        batch_size: 2,
      }),
      epsilon: 1e-8, // TensorFlow 1
      loss: 'poisson_full',
    },
    published: () => [{ format: 'torch', map: basenji1Weights(model) }],
  };
}
