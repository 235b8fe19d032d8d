/** Runs a model of a fixture on a device: inference, one training pass with all gradients, and optimizer steps. */
import {
  adam,
  type Compiled,
  type CompileOptions,
  compile,
  constant,
  type Device,
  type Example,
  gradients,
  type HostTensor,
  multiply,
  nn,
  type Optimizer,
  rmsprop,
  sgd,
  type Tensor,
  type Traceable,
  trainStep,
  withScope,
} from '@cohesin/core';
import type { GoldenCase, Tensors } from '@cohesin/models';
import { type Attrs, numberOf } from './op-case.ts';

/** A model with the values it starts from and its one batch. */
export interface ModelSetup {
  readonly device: Device;
  readonly golden: GoldenCase;
  /** By dotted path: weights and running statistics. */
  readonly start: ReadonlyMap<string, HostTensor>;
  /** By the name of the input. */
  readonly batch: Readonly<Record<string, HostTensor>>;
}

/** Values by name, after one run. */
export interface ModelRun {
  readonly values: Readonly<Record<string, HostTensor>>;
  readonly state: ReadonlyMap<string, HostTensor>;
  readonly dispatches: number;
}

/** Batch statistics of a batch norm, by the layer's path. */
export interface BatchMoments {
  readonly path: string;
  /** Rows behind them. */
  readonly count: number;
}

const WHOLE_STEP = { group: 'step', sequences: 1 } as const;

/** Inference mode: `output/…`, `extra/…` and `loss`. */
export function runInference(setup: ModelSetup): Promise<ModelRun> {
  const { golden } = setup;
  return runOnce(setup, 1, (inputs) => {
    const [prediction, extra] = withScope({ training: false }, () => {
      const predicted = golden.predict(inputs);
      return [predicted, golden.extra?.(predicted, inputs) ?? {}] as const;
    });
    return {
      loss: golden.loss(prediction, inputs),
      ...prefixed('output/', golden.outputs?.(prediction, inputs) ?? prediction),
      ...prefixed('extra/', extra),
    };
  });
}

/** A training pass, with the batch norms that lay on its way. */
export interface TrainingRun extends ModelRun {
  readonly norms: readonly BatchMoments[];
}

/**
 * Training mode: `output/…`, `loss`, `grad/<path>` of every trainable parameter, `gradInput`, and `moments/<path>`
 * [1, 2, channels] of every batch norm listed in `norms`.
 */
export async function runTraining(setup: ModelSetup, leaves: number): Promise<TrainingRun> {
  const { golden } = setup;
  const trained = [...nn.parameters(golden.model)].filter(([, { trainable }]) => trainable);
  let norms: readonly BatchMoments[] = [];
  const run = await runOnce(setup, leaves, (inputs) => {
    const prediction = withScope({ training: true }, () =>
      nn.withBatchNorm(WHOLE_STEP, () => golden.predict(inputs)),
    );
    const loss = golden.loss(prediction, inputs);
    const slopes = gradients(loss, constant(1), [inputs.x!, ...trained.map(([, parameter]) => parameter)]);
    const found = batchNorms(Object.values(prediction));
    norms = found.map(({ path, count }) => ({ path, count }));
    return {
      loss,
      ...prefixed('output/', golden.outputs?.(prediction, inputs) ?? prediction),
      gradInput: slopes[0]!,
      ...Object.fromEntries(trained.map(([path], i) => [`grad/${path}`, slopes[i + 1]!])),
      ...Object.fromEntries(found.map(({ path, moments }) => [`moments/${path}`, moments])),
    };
  });
  return { ...run, norms };
}

/** Losses and batch statistics before each of the steps and after the last, and the state after the last. */
export interface Trained {
  readonly losses: readonly number[];
  readonly norms: readonly BatchMoments[];
  /** `moments/<path>` [1, 2, channels] of every batch norm. */
  readonly moments: readonly Readonly<Record<string, HostTensor>>[];
  readonly state: ReadonlyMap<string, HostTensor>;
  readonly dispatches: number;
}

/** Steps of the product's training step from the start, on the same batch. */
export async function runSteps(
  setup: ModelSetup,
  { optimizer, leaves, steps }: { optimizer: Optimizer; leaves: number; steps: number },
): Promise<Trained> {
  const step = goldenStep(setup.golden, optimizer);
  let norms: readonly BatchMoments[] = [];
  const observed = (inputs: Tensors): Tensors => {
    const traced = step(inputs);
    const found = batchNorms(Object.values(traced));
    norms = found.map(({ path, count }) => ({ path, count }));
    return {
      ...traced,
      ...Object.fromEntries(found.map(({ path, moments }) => [`moments/${path}`, moments])),
    };
  };
  const program = await started(setup, { leaves }, Object.assign(observed, { counters: optimizer }));
  const losses: number[] = [];
  const moments: Readonly<Record<string, HostTensor>>[] = [];
  const once = async (): Promise<void> => {
    const { loss: value, ...statistics } = await program(setup.batch);
    losses.push(Number(value!.data[0]));
    moments.push(statistics);
  };
  for (let i = 0; i < steps; i++) await once();
  const state = await program.state.read([...setup.start.keys()]);
  await once();
  const dispatches = program.executor.dispatchCount;
  close(program);
  return { losses, norms, moments, state, dispatches };
}

/** The product's training step of a fixture's model; x and y are all of the fixture's inputs. */
export function goldenStep({ model, predict, loss }: GoldenCase, optimizer: Optimizer): Traceable {
  const prepare = (inputs: Tensors): Example<Tensors, Tensors> => ({ x: inputs, y: inputs });
  return trainStep({ model: predict, trained: model, loss, optimizer, batchNorm: WHOLE_STEP, prepare });
}

/**
 * The optimizer with the gradients of some parameters, by dotted path, set to 0: what they are in exact arithmetic. Their
 * rounding noise would become whole steps under Adam and RMSProp.
 */
export function withZeroGradients(optimizer: Optimizer, paths: ReadonlySet<string>): Optimizer {
  const update: Optimizer['update'] = (parameters, slopes) => {
    const kept = slopes.map((slope, i) => (paths.has(parameters[i]!.name) ? multiply(slope, 0) : slope));
    optimizer.update(parameters, kept);
  };
  return { ...optimizer, update };
}

/** The optimizer that `optimizer_<name>` in the metadata describes. @throws for one it does not know. */
export function optimizerOf(settings: Attrs): Optimizer {
  const learningRate = numberOf(settings, 'lr');
  switch (settings.step) {
    case 'sgd_step':
      return sgd({ learningRate, momentum: numberOf(settings, 'mu') });
    case 'adam_step':
      return adam({
        learningRate,
        beta1: numberOf(settings, 'b1'),
        beta2: numberOf(settings, 'b2'),
        epsilon: numberOf(settings, 'eps'),
      });
    case 'rmsprop_torch7_step':
      return rmsprop({
        learningRate,
        alpha: numberOf(settings, 'alpha'),
        epsilon: numberOf(settings, 'eps'),
      });
    default:
      throw new Error(
        `optimizer step ${JSON.stringify(settings.step)} is not known here; add it to optimizerOf`,
      );
  }
}

async function runOnce(setup: ModelSetup, leaves: number, fn: Traceable): Promise<ModelRun> {
  const program = await started(setup, { leaves }, fn);
  const values = await program(setup.batch);
  const state = await program.state.read();
  const dispatches = program.executor.dispatchCount;
  close(program);
  return { values, state, dispatches };
}

/** A function of the fixture's inputs, compiled, with the model's state where it starts from. */
export async function started(
  { device, start, batch }: ModelSetup,
  options: Partial<CompileOptions>,
  fn: Traceable,
): Promise<Compiled> {
  const inputs = Object.fromEntries(Object.entries(batch).map(([name, { shape }]) => [name, shape]));
  const program = await compile(fn, { device, inputs, ...options });
  program.state.write(new Map([...start].filter(([path]) => program.state.has(path))));
  return program;
}

function close(program: Compiled): void {
  program.close();
  program.state.close();
}

/** Every batch norm below some tensors: the statistics it normalised with. */
function batchNorms(predicted: readonly Tensor[]): readonly (BatchMoments & { readonly moments: Tensor })[] {
  const seen = new Set<Tensor>();
  const found: (BatchMoments & { readonly moments: Tensor })[] = [];
  const visit = (node: Tensor): void => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const source of Object.values(node.inputs)) visit(source);
    if (node.op.name !== 'batchNormalize') return;
    const { count } = node.attrs as { readonly count: number };
    found.push({ path: node.path, count, moments: node.inputs.mean! });
  };
  for (const prediction of predicted) visit(prediction);
  return found;
}

function prefixed(prefix: string, tensors: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]));
}
