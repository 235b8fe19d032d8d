import type { Traceable } from './compile/compile.ts';
import { gradients } from './grad.ts';
import { lossSeed, unscaled } from './loss-scale.ts';
import { type AnyLayer, matching, parameters } from './nn/layer.ts';
import { type BatchNormGroup, withBatchNorm, withFrozen } from './nn/norm.ts';
import { leafSum } from './ops/leaf-sum.ts';
import type { Optimizer } from './optim/optimizer.ts';
import { withScope } from './scope.ts';
import { Tensor } from './tensor.ts';

type Inputs = Readonly<Record<string, Tensor>>;

/** What a model is trained on: x goes in, y is what should come out. Either may be a record of tensors. */
export interface Example<In = Tensor, Target = Tensor> {
  readonly x: In;
  readonly y: Target;
}

export interface TrainStepOptions<In = Tensor, Out = Tensor, Target = Tensor> {
  readonly model: (x: In) => Out;
  /** The layer whose parameters are trained; the model itself by default. */
  readonly trained?: AnyLayer;
  /**
   * Parameters of it that keep their values, by dotted path, `*` for any characters (`bias.*`): they get no gradient and
   * no moments. A batch norm whose scale and shift are frozen normalises with its running statistics and keeps them, as in
   * Keras; dropout goes on.
   */
  readonly frozen?: readonly string[];
  /** (prediction, target) → scalar `[]`, a sum of terms of single sequences. */
  readonly loss: (prediction: Out, target: Target) => Tensor;
  readonly optimizer: Optimizer;
  /** Sequences that share batch-norm statistics: each alone by default. */
  readonly batchNorm?: BatchNormGroup;
  /**
   * Makes x and y from the step's inputs (decoding, augmentation, records of several inputs); by default they are the
   * inputs `x` and `y`.
   */
  readonly prepare?: (inputs: Inputs) => Example<In, Target>;
}

/**
 * One training step as a function to compile: forward, loss, gradients added up over leaves as integers, update.
 * Its output is `loss` `[]`. Gradients of all trainable parameters flow; running statistics move with the update.
 */
export function trainStep<In = Tensor, Out = Tensor, Target = Tensor>(
  options: TrainStepOptions<In, Out, Target>,
): Traceable {
  const { model, loss, optimizer, frozen, batchNorm = { group: 'sequence', sequences: 1 } } = options;
  const prepare = options.prepare ?? (sameNames as Prepare<In, Target>);
  const layer = trainedLayer(options);
  const kept = new Set((frozen ?? []).flatMap((pattern) => matching(layer, pattern)));
  const trained = [...parameters(layer).values()].filter(
    (parameter) => parameter.trainable && !kept.has(parameter),
  );
  const forward: typeof model = (x) => withFrozen(kept, () => withBatchNorm(batchNorm, () => model(x)));
  const step = (inputs: Inputs): Record<string, Tensor> => {
    const { x, y } = prepare(inputs);
    const value = withScope({ training: true }, () => loss(forward(x), y));
    const sums = gradients(value, lossSeed(), trained).map((gradient, i) => {
      const { name } = trained[i]!;
      return withScope({ path: name, phase: 'U' }, () => leafSum(unscaled(gradient), name));
    });
    optimizer.update(trained, sums);
    return { loss: value };
  };
  return Object.assign(step, { counters: optimizer });
}

/**
 * A model's prediction in inference mode as a function to compile: `prediction`, or the tensors of the record that it is.
 * Takes the same options as `trainStep`.
 */
export function predictStep<In = Tensor, Out extends Tensor | Inputs = Tensor, Target = Tensor>(
  options: Pick<TrainStepOptions<In, Out, Target>, 'model' | 'trained' | 'prepare'>,
): Traceable {
  const { model } = options;
  const prepare = options.prepare ?? (sameNames as Prepare<In, Target>);
  parameters(trainedLayer(options)); // names them
  return (inputs) => {
    const prediction = withScope({ training: false }, () => model(prepare(inputs).x));
    return prediction instanceof Tensor ? { prediction } : prediction;
  };
}

function trainedLayer({ model, trained }: { readonly model: object; readonly trained?: AnyLayer }): AnyLayer {
  if (trained !== undefined) return trained;
  if (isLayer(model)) return model;
  throw new Error("the model is a plain function; pass the layer that holds its parameters as 'trained'");
}

const isLayer = (model: object): model is AnyLayer => 'parts' in model;

type Prepare<In, Target> = (inputs: Inputs) => Example<In, Target>;

function sameNames({ x, y }: Inputs): Example {
  if (x === undefined)
    throw new Error("trainStep: there is no input 'x'; name the inputs x and y or pass 'prepare'");
  return { x, y: y ?? x };
}
