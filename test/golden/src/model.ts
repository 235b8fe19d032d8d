/** Checks a fixture of a model: inference, gradients, batch norm and optimizer steps. */
import type { Device, HostTensor, Safetensors } from '@cohesin/core';
import { fromGolden, type GoldenCase } from '@cohesin/models';
import { metadataJson, numbers, under } from './fixture.ts';
import { absoluteError, type Gates, largest, relativeError, shareBeyond } from './gates.ts';
import {
  type ModelRun,
  type ModelSetup,
  optimizerOf,
  runInference,
  runSteps,
  runTraining,
  type Trained,
} from './model-run.ts';
import { type Attrs, numberOf } from './op-case.ts';
import type { FixtureReport, Measurement } from './report.ts';

export interface ModelOptions {
  readonly file: string;
  readonly gates: Gates;
}

const STEPS = 3;

/** Runs a fixture's model on one leaf, and on two where the batch divides, and measures every quantity. */
export async function checkModel(
  fixture: Safetensors,
  device: Device,
  { file, gates }: ModelOptions,
): Promise<FixtureReport> {
  const config = metadataJson(fixture, 'config') as Attrs;
  const name = String(config.model ?? fixture.metadata.description ?? file);
  const golden = built(config);
  const empty = {
    file,
    format: 'model',
    measurements: [],
    supported: [],
    notChecked: [],
    dispatches: 0,
  } as const;
  if (golden instanceof Error) return { ...empty, notSupported: [`${name}: ${golden.message}`] };
  const check = new ModelCheck(fixture, gates, setupOf(fixture, device, golden), config);
  await check.inference();
  for (const leaves of check.leafCounts()) {
    await check.training(leaves);
    for (const optimizer of check.optimizers()) await check.steps(optimizer, leaves);
  }
  const { measurements, notChecked, dispatches } = check;
  return { ...empty, measurements, supported: [name], notSupported: [], notChecked, dispatches };
}

/** The library's model for a config, or why there is none. */
function built(config: Attrs): GoldenCase | Error {
  try {
    return fromGolden(config);
  } catch (error) {
    return error as Error;
  }
}

function setupOf(fixture: Safetensors, device: Device, golden: GoldenCase): ModelSetup {
  const published = new Map([...under(fixture, 'weight/'), ...under(fixture, 'buffer/')]);
  const start = golden.weights.toCohesin(published);
  return { device, golden, start, batch: golden.inputs(under(fixture, 'input/')) };
}

/** Collects measurements over the runs of one model. */
class ModelCheck {
  readonly measurements: Measurement[] = [];
  readonly notChecked: string[] = [];
  dispatches = 0;
  private readonly fixture: Safetensors;
  private readonly gates: Gates;
  private readonly setup: ModelSetup;
  private readonly config: Attrs;
  /** Parameters whose gradient is 0 but for rounding. */
  private readonly zeroGradient: ReadonlySet<string>;

  constructor(fixture: Safetensors, gates: Gates, setup: ModelSetup, config: Attrs) {
    this.fixture = fixture;
    this.gates = gates;
    this.setup = setup;
    this.config = config;
    this.zeroGradient = new Set(metadataJson(fixture, 'zero_grad_params') as readonly string[]);
  }

  leafCounts(): readonly number[] {
    return this.setup.batch.x.shape[0]! % 2 === 0 ? [1, 2] : [1];
  }

  /** Names of the optimizers whose settings the file has. */
  optimizers(): readonly string[] {
    const keys = Object.keys(this.fixture.metadata).filter((key) => key.startsWith('optimizer_'));
    return keys.map((key) => key.slice('optimizer_'.length));
  }

  async inference(): Promise<void> {
    const { values, dispatches } = await runInference(this.setup);
    this.dispatches += dispatches;
    this.outputs('eval', '', values);
    for (const [name, reference] of under(this.fixture, 'extra/')) {
      const value = values[`extra/${name}`];
      if (value === undefined) this.notChecked.push(`extra/${name}: the model does not give it`);
      else this.relative('extra', `extra/${name}`, value, reference, this.gates.losses);
    }
  }

  async training(leaves: number): Promise<void> {
    const run = await runTraining(this.setup, leaves);
    this.dispatches += run.dispatches;
    const suffix = suffixOf(leaves);
    this.outputs('train', suffix, run.values);
    this.gradients(suffix, run.values);
    this.batchNorms(suffix, run);
  }

  async steps(name: string, leaves: number): Promise<void> {
    const settings = metadataJson(this.fixture, `optimizer_${name}`) as Attrs;
    const trained = await runSteps(this.setup, { optimizer: optimizerOf(settings), leaves, steps: STEPS });
    this.dispatches += trained.dispatches;
    const suffix = suffixOf(leaves);
    const curve = `loss_curve_${name}`;
    this.measure(
      curve + suffix,
      curve,
      relativeError(trained.losses, this.reference(curve)),
      this.gates.lossCurve,
    );
    this.weightsAfter(name, suffix, trained, settings);
    this.runningAfter(name, suffix, trained);
  }

  private outputs(mode: 'eval' | 'train', suffix: string, values: ModelRun['values']): void {
    for (const [name, reference] of under(this.fixture, `${mode}_output/`)) {
      const tensor = `${mode}_output/${name}`;
      this.relative(
        `${mode} outputs${suffix}`,
        tensor,
        values[`output/${name}`],
        reference,
        this.gates.outputs,
      );
    }
    const loss = this.fixture.tensors.get(`${mode}_loss`)!;
    this.relative(`losses${suffix}`, `${mode}_loss`, values.loss, loss, this.gates.losses);
  }

  private gradients(suffix: string, values: ModelRun['values']): void {
    const own = Object.entries(values).flatMap(([name, value]) =>
      name.startsWith('grad/') ? [[name.slice('grad/'.length), value] as const] : [],
    );
    const found = this.setup.golden.weights.trainable.fromCohesin(new Map(own));
    const references = under(this.fixture, 'grad/');
    const scale = Math.max(...[...references.values()].map((reference) => largest(numbers(reference))));
    const compare = (
      group: string,
      name: string,
      value: HostTensor | undefined,
      reference: HostTensor,
    ): void => {
      this.relative(`${group}${suffix}`, name, value, reference, this.gates.gradients);
      const beside = absoluteError(valuesOf(value), numbers(reference)) / scale;
      this.measure(`${group} beside the largest${suffix}`, name, beside, this.gates.gradientsOfModel);
    };
    for (const [name, reference] of references) compare('grads', `grad/${name}`, found.get(name), reference);
    for (const [name, reference] of under(this.fixture, 'grad_input/'))
      compare('grad_input', `grad_input/${name}`, name === 'x' ? values.gradInput : undefined, reference);
  }

  private batchNorms(suffix: string, run: Awaited<ReturnType<typeof runTraining>>): void {
    const found = new Map<string, ArrayLike<number>>();
    for (const { path, count } of run.norms) {
      const module = this.moduleOf(path);
      const moments = valuesOf(run.values[`moments/${path}`]); // [1, 2, channels]
      const [mean, variance] = [moments.slice(0, moments.length / 2), moments.slice(moments.length / 2)];
      found.set(`${module}.mean`, mean).set(`${module}.var_biased`, variance).set(`${module}.count`, [count]);
      this.otherConvention(suffix, path, { mean, variance, count });
    }
    for (const [name, reference] of under(this.fixture, 'bn_batch/')) {
      const error = relativeError(found.get(name) ?? [], numbers(reference));
      this.measure(`bn_batch${suffix}`, name, error, name.endsWith('.count') ? 0 : this.gates.batchNorm);
    }
    this.running('bn_running_after1', suffix, run.state, this.gates.batchNorm);
  }

  /** The convention the model does not follow, from the statistics of the batch and the momentum of the file. */
  private otherConvention(
    suffix: string,
    path: string,
    batch: { mean: Float64Array; variance: Float64Array; count: number },
  ): void {
    const other = this.setup.golden.runningStatistics === 'torch' ? 'keras' : 'torch';
    const momentum = numberOf(this.config, 'bn_momentum');
    const correction = other === 'torch' ? batch.count / (batch.count - 1) : 1;
    const moved = (part: string, values: Float64Array, scale: number): void => {
      const start = valuesOf(this.setup.start.get(`${path}.${part}`));
      const next = values.map((value, i) => momentum * start[i]! + (1 - momentum) * scale * value);
      const name = `bn_running_after1/${other}/${this.moduleOf(path)}.${part}`;
      const error = relativeError(next, this.reference(name));
      this.measure(`bn_running_after1 ${other}, by formula${suffix}`, name, error, this.gates.batchNorm);
    };
    moved('running_mean', batch.mean, 1);
    moved('running_var', batch.variance, correction);
  }

  /** Running statistics in the model's own convention. */
  private running(group: string, suffix: string, state: ReadonlyMap<string, HostTensor>, gate: number): void {
    const own = this.setup.golden.runningStatistics;
    for (const [name, reference] of under(this.fixture, `${group}/${own}/`)) {
      const path = this.setup.golden.weights.entries.find((entry) => entry.name === name)?.path;
      const value = path === undefined ? undefined : state.get(path);
      this.relative(`${group} ${own}${suffix}`, `${group}/${own}/${name}`, value, reference, gate);
    }
  }

  private weightsAfter(optimizer: string, suffix: string, trained: Trained, settings: Attrs): void {
    const { weights } = this.setup.golden;
    const after = weights.fromCohesin(trained.state);
    const sgdLike = settings.step === 'sgd_step';
    const group = `after${STEPS}_${optimizer}`;
    for (const [name, stored] of under(this.fixture, `${group}/`)) {
      if (this.zeroGradient.has(name)) continue;
      const [value, reference] = [valuesOf(after.get(name)), numbers(stored)];
      const start = this.reference(`weight/${name}`);
      const error = sgdLike
        ? relativeError(updates(value, start), updates(reference, start))
        : shareBeyond(value, reference, this.gates.adaptiveDistance * numberOf(settings, 'lr'));
      const gate = sgdLike ? this.gates.sgdUpdate : this.gates.adaptiveShare;
      this.measure(group + suffix, `${group}/${name}`, error, gate);
    }
  }

  private runningAfter(optimizer: string, suffix: string, trained: Trained): void {
    const group = `bn_running_after${STEPS}_${optimizer}`;
    this.running(group, suffix, trained.state, this.gates.batchNorm);
    const own = this.setup.golden.runningStatistics;
    if (suffix !== '') return;
    for (const convention of ['torch', 'keras', 'sonnet'].filter((other) => other !== own))
      if (under(this.fixture, `${group}/${convention}/`).size > 0)
        this.notChecked.push(`${group}/${convention}: the model's layers follow ${own}`);
  }

  private moduleOf(path: string): string {
    const entry = this.setup.golden.weights.entries.find(
      (candidate) => candidate.path === `${path}.running_mean`,
    );
    return entry?.name.slice(0, -'.running_mean'.length) ?? path;
  }

  private reference(name: string): Float64Array {
    return valuesOf(this.fixture.tensors.get(name));
  }

  private relative(
    group: string,
    tensor: string,
    value: HostTensor | undefined,
    reference: HostTensor,
    gate: number,
  ): void {
    this.measure(group, tensor, relativeError(valuesOf(value), numbers(reference)), gate);
  }

  private measure(group: string, tensor: string, error: number, gate: number): void {
    this.measurements.push({ group, tensor, error, gate });
  }
}

const suffixOf = (leaves: number): string => (leaves === 1 ? '' : ` (${leaves} leaves)`);

/** The values; none where the tensor is missing, which then compares as infinitely far. */
function valuesOf(tensor: HostTensor | undefined): Float64Array {
  return tensor === undefined ? new Float64Array(0) : numbers(tensor);
}

function updates(after: Float64Array, start: Float64Array): Float64Array {
  return after.map((value, i) => value - start[i]!);
}
