import type { Traceable } from './compile/compile.ts';
import { gradients } from './grad.ts';
import { lossSeed, unscaled } from './loss-scale.ts';
import { type AnyLayer, parameters } from './nn/layer.ts';
import type { Loss } from './nn/loss.ts';
import { type BatchNormGroup, withBatchNorm } from './nn/norm.ts';
import { leafSum } from './ops/leaf-sum.ts';
import type { Optimizer } from './optim/optimizer.ts';
import type { Parameter } from './parameter.ts';
import { withScope } from './scope.ts';
import type { Tensor } from './tensor.ts';

type Inputs = Readonly<Record<string, Tensor>>;

/** What a model is trained on: x goes in, y is what should come out. */
export interface Example {
  readonly x: Tensor;
  readonly y: Tensor;
}

export interface TrainStepOptions {
  readonly model: (x: Tensor) => Tensor;
  /** The layer whose parameters are trained; the model itself by default. */
  readonly trained?: AnyLayer;
  readonly loss: Loss;
  readonly optimizer: Optimizer;
  /** Sequences that share batch-norm statistics: each alone by default. */
  readonly batchNorm?: BatchNormGroup;
  /** Makes x and y from the step's inputs (decoding, augmentation); by default they are the inputs `x` and `y`. */
  readonly prepare?: (inputs: Inputs) => Example;
}

/**
 * One training step as a function to compile: forward, loss, gradients added up over leaves as integers, update.
 * Its output is `loss` `[]`. Gradients of all trainable parameters flow; running statistics move with the update.
 */
export function trainStep(options: TrainStepOptions): Traceable {
  const {
    model,
    loss,
    optimizer,
    prepare = sameNames,
    batchNorm = { group: 'sequence', sequences: 1 },
  } = options;
  const trained = trainable(options.trained ?? (model as unknown as AnyLayer));
  const step = (inputs: Inputs): Record<string, Tensor> => {
    const { x, y } = prepare(inputs);
    const value = withScope({ training: true }, () => withBatchNorm(batchNorm, () => loss(model(x), y)));
    const sums = gradients(value, lossSeed(), trained).map((gradient, i) => {
      const { name } = trained[i]!;
      return withScope({ path: name, phase: 'U' }, () => leafSum(unscaled(gradient), name));
    });
    optimizer.update(trained, sums);
    return { loss: value };
  };
  return Object.assign(step, { counters: optimizer });
}

/** A model's prediction in inference mode as a function to compile: `prediction`. Takes the same options as `trainStep`. */
export function predictStep(options: Pick<TrainStepOptions, 'model' | 'trained' | 'prepare'>): Traceable {
  const { model, prepare = sameNames } = options;
  parameters(options.trained ?? (model as unknown as AnyLayer)); // names them
  return (inputs) => ({ prediction: withScope({ training: false }, () => model(prepare(inputs).x)) });
}

function trainable(model: AnyLayer): Parameter[] {
  return [...parameters(model).values()].filter((parameter) => parameter.trainable);
}

function sameNames({ x, y }: Inputs): Example {
  if (x === undefined)
    throw new Error("trainStep: there is no input 'x'; name the inputs x and y or pass 'prepare'");
  return { x, y: y ?? x };
}
