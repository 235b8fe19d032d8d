/** Checks a fixture of a model: inference, gradients, batch norm and optimizer steps. */
import { type Device, type HostTensor, hostTensor, type Safetensors } from '@cohesin/core';
import { fromGolden, type GoldenCase, goldenInputs } from '@cohesin/models';
import { metadataJson, under } from './fixture.ts';
import type { Gates } from './gates.ts';
import {
  type ModelReference,
  measureBatchNorms,
  measureExtra,
  measureGradients,
  measureOutputs,
  measureSteps,
} from './model-measure.ts';
import {
  type ModelSetup,
  optimizerOf,
  runInference,
  runSteps,
  runTraining,
  withZeroGradients,
} from './model-run.ts';
import type { Attrs } from './op-case.ts';
import type { FixtureReport, Measurement } from './report.ts';

export interface ModelOptions {
  readonly file: string;
  readonly gates: Gates;
  /** Whether a part is wanted: `inference/1`, `training/1`, `adam/2` (leaves after the slash). */
  readonly wanted: (part: string) => boolean;
}

/** Runs a fixture's model on one leaf, and on two where the batch divides, and measures every quantity. */
export async function checkModel(
  fixture: Safetensors,
  device: Device,
  { file, gates, wanted }: ModelOptions,
): Promise<FixtureReport> {
  const model = referenceOf(fixture, device, gates);
  if (model instanceof Error) return { ...nothing(file), notSupported: [`the model: ${model.message}`] };
  const parts = partsOf(model).filter(({ name }) => wanted(name));
  const results: Result[] = [];
  for (const part of parts) results.push(await tried(part));
  return {
    ...nothing(file),
    measurements: results.flatMap(({ measurements }) => measurements),
    supported: parts.map(({ name }) => name),
    notChecked: results.flatMap(({ notChecked = [] }) => notChecked),
    dispatches: results.reduce((total, { dispatches }) => total + dispatches, 0),
  };
}

/** The library's model of a fixture with the file's weights, or why there is none. */
function referenceOf(fixture: Safetensors, device: Device, gates: Gates): ModelReference | Error {
  try {
    const config = metadataJson(fixture, 'config') as Attrs;
    return { fixture, gates, setup: setupOf(fixture, device), config };
  } catch (error) {
    return error as Error;
  }
}

/** The model that a fixture describes, with its weights and its batch. @throws when this library has none. */
export function setupOf(fixture: Safetensors, device: Device): ModelSetup {
  const golden = fromGolden(metadataJson(fixture, 'config'));
  const published = new Map([...under(fixture, 'weight/'), ...under(fixture, 'buffer/')]);
  const start = fromZero(golden, golden.weights.toCohesin(published));
  return { device, golden, start, batch: goldenInputs(fixture.tensors) };
}

/** With debiased averages that have seen no step, as the file's begin. */
function fromZero(
  { runningStatistics }: GoldenCase,
  start: ReadonlyMap<string, HostTensor>,
): ReadonlyMap<string, HostTensor> {
  if (runningStatistics !== 'sonnet') return start;
  return new Map(
    [...start].map(([path, tensor]) => [
      path,
      path.endsWith('.running_power') ? hostTensor(tensor.shape, [1]) : tensor,
    ]),
  );
}

function nothing(file: string): FixtureReport {
  const lists = { measurements: [], supported: [], notSupported: [], notChecked: [] };
  return { file, format: 'model', ...lists, dispatches: 0 };
}

interface Result {
  readonly measurements: readonly Measurement[];
  readonly notChecked?: readonly string[];
  readonly dispatches: number;
}

interface Part {
  readonly name: string;
  run(): Promise<Result>;
}

/** Inference, then for each number of leaves a training pass and the steps of each optimizer. */
function partsOf(model: ModelReference): readonly Part[] {
  const { fixture, setup } = model;
  const leafCounts = setup.batch.x!.shape[0]! % 2 === 0 ? [1, 2] : [1];
  const optimizers = Object.keys(fixture.metadata).flatMap((key) =>
    key.startsWith('optimizer_') ? [key.slice('optimizer_'.length)] : [],
  );
  const training = leafCounts.flatMap((leaves): Part[] => [
    { name: `training/${leaves}`, run: async () => named(await trainingPass(model, leaves), leaves) },
    ...optimizers.map((optimizer) => ({
      name: `${optimizer}/${leaves}`,
      run: async () => named(await steps(model, optimizer, leaves), leaves),
    })),
  ]);
  return [{ name: 'inference/1', run: () => inference(model) }, ...training];
}

async function inference(model: ModelReference): Promise<Result> {
  const { values, dispatches } = await runInference(model.setup);
  const extra = measureExtra(model, values);
  return {
    ...extra,
    measurements: [...measureOutputs(model, 'eval', values), ...extra.measurements],
    dispatches,
  };
}

async function trainingPass(model: ModelReference, leaves: number): Promise<Result> {
  const run = await runTraining(model.setup, leaves);
  const measurements = [
    ...measureOutputs(model, 'train', run.values),
    ...measureGradients(model, run.values),
    ...measureBatchNorms(model, run),
  ];
  return { measurements, dispatches: run.dispatches };
}

async function steps(model: ModelReference, name: string, leaves: number): Promise<Result> {
  const { fixture, setup } = model;
  const settings = metadataJson(fixture, `optimizer_${name}`) as Attrs;
  const zero = new Set(metadataJson(fixture, 'zero_grad_params') as readonly string[]);
  const entries = setup.golden.weights.entries.filter((entry) => zero.has(entry.name));
  const optimizer = withZeroGradients(optimizerOf(settings), new Set(entries.map(({ path }) => path)));
  const trained = await runSteps(setup, { optimizer, leaves, steps: 3 });
  return {
    measurements: measureSteps(model, name, trained, settings),
    dispatches: trained.dispatches,
  };
}

function named(result: Result, leaves: number): Result {
  if (leaves === 1) return result;
  const suffix = ` (${leaves} leaves)`;
  const renamed = result.measurements.map((measured) => ({ ...measured, group: measured.group + suffix }));
  return { ...result, measurements: renamed };
}

/** A part that fails, by a NaN gradient for one, is a miss with the message. */
async function tried({ name, run }: Part): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    const note = error instanceof Error ? error.message : String(error);
    const miss = { group: name, tensor: 'failed', error: Number.POSITIVE_INFINITY, gate: 0, note };
    return { measurements: [miss], dispatches: 0 };
  }
}
