/** Measures what a model computed against the quantities of its fixture. */
import type { HostTensor, Safetensors } from '@cohesin/core';
import type { Convention } from '@cohesin/models';
import { numbers, under } from './fixture.ts';
import { absoluteError, type Gates, largest, relativeError, shareBeyond } from './gates.ts';
import type { BatchMoments, ModelRun, ModelSetup, Trained, TrainingRun } from './model-run.ts';
import { type Attrs, numberOf } from './op-case.ts';
import type { Measurement } from './report.ts';

/** What all measurements of a model need. */
export interface ModelReference {
  readonly fixture: Safetensors;
  readonly gates: Gates;
  readonly setup: ModelSetup;
  /** The file's `config`. */
  readonly config: Attrs;
}

/** Outputs and loss of a mode. */
export function measureOutputs(
  { fixture, gates }: ModelReference,
  mode: 'eval' | 'train',
  values: ModelRun['values'],
): Measurement[] {
  const outputs = [...under(fixture, `${mode}_output/`)].map(([name, reference]) => {
    const error = relativeError(valuesOf(values[`output/${name}`]), numbers(reference));
    return { group: `${mode} outputs`, tensor: `${mode}_output/${name}`, error, gate: gates.outputs };
  });
  const tensor = `${mode}_loss`;
  const error = relativeError(valuesOf(values.loss), reference(fixture, tensor));
  return [...outputs, { group: 'losses', tensor, error, gate: gates.losses }];
}

/** Scalars the file has besides, as far as the model gives them. */
export function measureExtra(
  { fixture, gates, setup }: ModelReference,
  values: ModelRun['values'],
): { readonly measurements: Measurement[]; readonly notChecked: string[] } {
  const extra = [...under(fixture, 'extra/')];
  const missing = extra.filter(([name]) => values[`extra/${name}`] === undefined);
  return {
    measurements: extra.flatMap(([name, stored]) => {
      const value = values[`extra/${name}`];
      if (value === undefined) return [];
      const error = relativeError(valuesOf(value), numbers(stored));
      const gate = stored.shape.length === 0 ? gates.losses : gates.outputs;
      return [{ group: 'extra', tensor: `extra/${name}`, error, gate }];
    }),
    notChecked: missing.map(
      ([name]) => `extra/${name}: ${setup.golden.unlike?.[name] ?? 'the model does not give it'}`,
    ),
  };
}

/** Gradients of parameters and of x: each by itself, and beside the largest of the model. */
export function measureGradients(
  { fixture, gates, setup }: ModelReference,
  values: ModelRun['values'],
): Measurement[] {
  const own = Object.entries(values).flatMap(([name, value]) =>
    name.startsWith('grad/') ? [[name.slice('grad/'.length), value] as const] : [],
  );
  const found = setup.golden.weights.trainable.fromCohesin(new Map(own));
  const references = under(fixture, 'grad/');
  const scale = Math.max(...[...references.values()].map((stored) => largest(numbers(stored))));
  const compare = (group: string, tensor: string, value: HostTensor | undefined): Measurement[] => {
    const [got, wanted] = [valuesOf(value), reference(fixture, tensor)];
    const beside = absoluteError(got, wanted) / scale;
    return [
      { group, tensor, error: relativeError(got, wanted), gate: gates.gradients },
      { group: `${group} beside the largest`, tensor, error: beside, gate: gates.gradientsOfModel },
    ];
  };
  return [
    ...[...references.keys()].flatMap((name) => compare('grads', `grad/${name}`, found.get(name))),
    ...[...under(fixture, 'grad_input/').keys()].flatMap((name) =>
      compare('grad_input', `grad_input/${name}`, name === 'x' ? values.gradInput : undefined),
    ),
  ];
}

/** Batch statistics, and the running statistics they lead to in all conventions. */
export function measureBatchNorms(model: ModelReference, run: TrainingRun): Measurement[] {
  const { fixture, gates } = model;
  const found = new Map<string, ArrayLike<number>>();
  const norms = normsOf(model, run.norms, [run.values]);
  for (const { module, means, variances, count } of norms)
    found
      .set(`${module}.mean`, means[0]!)
      .set(`${module}.var_biased`, variances[0]!)
      .set(`${module}.count`, [count]);
  return [
    ...[...under(fixture, 'bn_batch/')].map(([name, stored]) => {
      const error = relativeError(found.get(name) ?? [], numbers(stored));
      const gate = name.endsWith('.count') ? 0 : gates.batchNorm;
      return { group: 'bn_batch', tensor: `bn_batch/${name}`, error, gate };
    }),
    ...measureRunning(model, 'bn_running_after1', run.state, gates.batchNorm),
    ...measureOtherConventions(model, 'bn_running_after1', norms, gates.batchNorm),
  ];
}

/** Running statistics in the model's own convention. */
function measureRunning(
  { fixture, setup }: ModelReference,
  quantity: string,
  state: ReadonlyMap<string, HostTensor>,
  gate: number,
): Measurement[] {
  const { weights, runningStatistics } = setup.golden;
  const group = `${quantity} ${runningStatistics}`;
  return [...under(fixture, `${quantity}/${runningStatistics}/`)].map(([name, stored]) => {
    const path = weights.entries.find((entry) => entry.name === name)?.path ?? '';
    const error = relativeError(valuesOf(state.get(path)), numbers(stored));
    return { group, tensor: `${quantity}/${runningStatistics}/${name}`, error, gate };
  });
}

/** A batch norm with the statistics of its batches, one of each step. */
interface Norm {
  readonly path: string;
  readonly module: string;
  readonly means: readonly Float64Array[];
  readonly variances: readonly Float64Array[];
  readonly count: number;
}

function normsOf(
  model: ModelReference,
  norms: readonly BatchMoments[],
  steps: readonly Readonly<Record<string, HostTensor>>[],
): Norm[] {
  return norms.map(({ path, count }) => {
    const moments = steps.map((values) => valuesOf(values[`moments/${path}`])); // each [1, 2, channels]
    const means = moments.map((values) => values.slice(0, values.length / 2));
    const variances = moments.map((values) => values.slice(values.length / 2));
    return { path, module: moduleOf(model, path), means, variances, count };
  });
}

/** The conventions the layers do not follow, from the statistics of the batches and the momentum of the file. */
function measureOtherConventions(
  { fixture, setup, config }: ModelReference,
  quantity: string,
  norms: readonly Norm[],
  gate: number,
): Measurement[] {
  const others = CONVENTIONS.filter(
    (convention) =>
      convention !== setup.golden.runningStatistics && under(fixture, `${quantity}/${convention}/`).size > 0,
  );
  if (others.length === 0) return []; // a model without batch norm states no momentum
  const momentum = numberOf(config, 'bn_momentum');
  return others.flatMap((convention) =>
    norms.flatMap(({ path, module, means, variances, count }) => {
      const correction = convention === 'torch' ? count / (count - 1) : 1;
      const measured = (part: string, batches: readonly Float64Array[]): Measurement => {
        const tensor = `${quantity}/${convention}/${module}.${part}`;
        const start = valuesOf(setup.start.get(`${path}.${part}`));
        const error = relativeError(
          averaged(start, batches, { momentum, convention }),
          reference(fixture, tensor),
        );
        return { group: `${quantity} ${convention}, by formula`, tensor, error, gate };
      };
      const corrected = variances.map((values) => values.map((value) => value * correction));
      return [measured('running_mean', means), measured('running_var', corrected)];
    }),
  );
}

const CONVENTIONS: readonly Convention[] = ['torch', 'keras', 'sonnet'];

/** A running statistic after batches: from its start, or with `sonnet` from 0 and divided by 1 − momentumᵗ. */
function averaged(
  start: Float64Array,
  batches: readonly Float64Array[],
  { momentum, convention }: { readonly momentum: number; readonly convention: Convention },
): Float64Array {
  const debiased = convention === 'sonnet';
  const moved = batches.reduce(
    (running, batch) => running.map((value, i) => momentum * value + (1 - momentum) * batch[i]!),
    debiased ? start.map(() => 0) : start,
  );
  return debiased ? moved.map((value) => value / (1 - momentum ** batches.length)) : moved;
}

/** Losses, weights and running statistics of optimizer steps; `settings` are the optimizer's. */
export function measureSteps(
  model: ModelReference,
  optimizer: string,
  trained: Trained,
  settings: Attrs,
): Measurement[] {
  const { fixture, gates } = model;
  const curve = `loss_curve_${optimizer}`;
  const error = relativeError(trained.losses, reference(fixture, curve));
  const running = `bn_running_after3_${optimizer}`;
  return [
    { group: curve, tensor: curve, error, gate: gates.lossCurve },
    ...measureWeights(model, `after3_${optimizer}`, trained, settings),
    ...measureRunning(model, running, trained.state, gates.runningAfterSteps),
    ...measureOtherConventions(
      model,
      running,
      normsOf(model, trained.norms, trained.moments.slice(0, -1)), // the last one comes after the last step
      gates.runningAfterSteps,
    ),
  ];
}

/** SGD by its largest error; Adam and RMSProp by the share of weights that went elsewhere. */
function measureWeights(
  { fixture, gates, setup }: ModelReference,
  group: string,
  trained: Trained,
  settings: Attrs,
): Measurement[] {
  const after = setup.golden.weights.fromCohesin(trained.state);
  const distance = gates.adaptiveDistance * numberOf(settings, 'lr');
  return [...under(fixture, `${group}/`)].map(([name, stored]) => {
    const [value, wanted] = [valuesOf(after.get(name)), numbers(stored)];
    const tensor = `${group}/${name}`;
    if (settings.step !== 'sgd_step')
      return { group, tensor, error: shareBeyond(value, wanted, distance), gate: gates.adaptiveShare };
    const start = reference(fixture, `weight/${name}`);
    const update = (values: Float64Array): Float64Array => values.map((now, i) => now - start[i]!);
    return { group, tensor, error: relativeError(update(value), update(wanted)), gate: gates.sgdUpdate };
  });
}

/** The file's name of a batch norm. */
function moduleOf({ setup }: ModelReference, path: string): string {
  const mean = setup.golden.weights.entries.find((entry) => entry.path === `${path}.running_mean`);
  return mean?.name.slice(0, -'.running_mean'.length) ?? path;
}

function reference({ tensors }: Safetensors, name: string): Float64Array {
  return valuesOf(tensors.get(name));
}

/** The values; none where the tensor is missing, which then compares as infinitely far. */
function valuesOf(tensor: HostTensor | undefined): Float64Array {
  return tensor === undefined ? new Float64Array(0) : numbers(tensor);
}
