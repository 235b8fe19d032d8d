/** Checks a fixture of ops: every case on a device, or on the host where the library computes it there. */
import {
  add,
  type Compiled,
  compile,
  constant,
  type Device,
  gradients,
  type HostTensor,
  multiply,
  type Parameter,
  parameter,
  type Safetensors,
  sum,
  type Tensor,
} from '@cohesin/core';
import { metadataJson, numbers, toOurs, under } from './fixture.ts';
import { absoluteError, type Gates, relativeError } from './gates.ts';
import type { Attrs, GraphCase, Inputs, OpCase, OptimizerCase } from './op-case.ts';
import { OPS } from './op-table.ts';
import type { FixtureReport, Measurement } from './report.ts';

export interface OpsOptions {
  readonly file: string;
  readonly gates: Gates;
  /** Whether a case is wanted. */
  readonly wanted: (name: string) => boolean;
}

/** Runs every wanted case of a fixture and measures its outputs and gradients. */
export async function checkOps(
  fixture: Safetensors,
  device: Device,
  { file, gates, wanted }: OpsOptions,
): Promise<FixtureReport> {
  const cases = metadataJson(fixture, 'cases') as Readonly<Record<string, Attrs>>;
  const measurements: Measurement[] = [];
  const supported: string[] = [];
  const notSupported: string[] = [];
  let dispatches = 0;
  for (const [name, attrs] of Object.entries(cases).filter(([candidate]) => wanted(candidate))) {
    const found = caseOf(name, attrs);
    if (found === undefined) {
      notSupported.push(name);
      continue;
    }
    supported.push(name);
    const run = await runCase(found, caseTensors(fixture, name), attrs, device);
    dispatches += run.dispatches;
    measurements.push(...measured(name, attrs, found, run, gates));
  }
  return { file, format: 'ops', measurements, supported, notSupported, notChecked: [], dispatches };
}

/** The code for a case, if there is some. */
function caseOf(name: string, attrs: Attrs): OpCase | undefined {
  const found = OPS[String(attrs.op)];
  const short = name.slice(name.indexOf('/') + 1);
  if (found?.kind === 'graph') return found.supports?.(attrs) === false ? undefined : found;
  if (found?.kind === 'optimizer') return found.optimizer(attrs, short) && found;
  return found;
}

interface CaseTensors {
  /** The name without its group: `adamw` of `optim/adamw`. */
  readonly name: string;
  readonly inputs: ReadonlyMap<string, HostTensor>;
  readonly cotangents: ReadonlyMap<string, HostTensor>;
  readonly outputs: ReadonlyMap<string, HostTensor>;
  readonly gradients: ReadonlyMap<string, HostTensor>;
}

/** Cases of a group share its inputs: `optim/adamw` has `optim/in/…` and `optim/out/adamw/…`. */
function caseTensors(fixture: Safetensors, name: string): CaseTensors {
  const [group, short] = name.split('/') as [string, string | undefined];
  const own = short === undefined ? '' : `${short}/`;
  return {
    name: short ?? name,
    inputs: under(fixture, `${group}/in/`),
    cotangents: under(fixture, `${group}/cot/${own}`),
    outputs: under(fixture, `${group}/out/${own}`),
    gradients: under(fixture, `${group}/grad/${own}`),
  };
}

interface CaseRun {
  /** Values and references by `out/…` and `grad/…`. */
  readonly pairs: readonly {
    readonly name: string;
    readonly values: ArrayLike<number>;
    readonly reference: ArrayLike<number>;
  }[];
  readonly dispatches: number;
  /** Why the case could not be run. */
  readonly failure?: string;
}

async function runCase(found: OpCase, tensors: CaseTensors, attrs: Attrs, device: Device): Promise<CaseRun> {
  try {
    if (found.kind === 'graph') return await runGraph(found, tensors, attrs, device);
    if (found.kind === 'optimizer') return await runOptimizer(found, tensors, attrs, device);
    const values = found.compute(tensors.inputs, attrs, tensors.name) ?? {};
    const pairs = [...tensors.outputs].map(([name, reference]) => {
      return { name: `out/${name}`, values: values[name] ?? [], reference: numbers(reference) };
    });
    return { pairs, dispatches: 0 };
  } catch (error) {
    return { pairs: [], dispatches: 0, failure: error instanceof Error ? error.message : String(error) };
  }
}

function measured(
  name: string,
  attrs: Attrs,
  found: OpCase,
  { pairs, failure }: CaseRun,
  gates: Gates,
): Measurement[] {
  const op = String(attrs.op);
  if (failure !== undefined)
    return [{ group: op, tensor: name, error: Number.POSITIVE_INFINITY, gate: 0, note: failure }];
  const exact = found.kind === 'graph' && found.exact === true;
  const largeMean = name.includes('large_mean');
  return pairs.map(({ name: tensor, values, reference }) => {
    const isOutput = tensor.startsWith('out/');
    const [ordinary, large] = isOutput
      ? [gates.opOutputs, gates.largeMeanOutputs]
      : [gates.opGradients, gates.largeMeanGradients];
    return {
      group: `${op} ${isOutput ? 'outputs' : 'gradients'}`,
      tensor: `${name}/${tensor}`,
      error: exact ? absoluteError(values, reference) : relativeError(values, reference),
      gate: exact ? 0 : largeMean ? large : ordinary,
    };
  });
}

/** Inputs and cotangents as parameters, so that no axis is a batch; gradients of all outputs together. */
async function runGraph(
  found: GraphCase,
  tensors: CaseTensors,
  attrs: Attrs,
  device: Device,
): Promise<CaseRun> {
  const ours = (name: string, tensor: HostTensor): HostTensor => toOurs(tensor, found.layouts?.[name]);
  const file = mapped(tensors.inputs, ours);
  const inputs = mapped(found.prepare?.(file, attrs) ?? file, (name, value) => held(`in/${name}`, value));
  const cotangents = mapped(tensors.cotangents, (name, value) => held(`cot/${name}`, ours(name, value)));
  let state: Readonly<Record<string, Parameter>> = {};
  let starts: readonly (readonly [Parameter, string])[] = [];
  const program = await compile(
    () => {
      const traced = found.trace(reading(inputs), attrs);
      ({ state = {}, starts = [] } = traced);
      const targets = [...tensors.gradients.keys()].map(
        (name) => traced.targets?.[name] ?? reading(inputs).of(name),
      );
      const all = totalGradients(traced.outputs, cotangents, targets);
      const named = [...tensors.gradients.keys()].map((name, i) => [`grad/${name}`, all[i]!] as const);
      return { ...prefixed('out/', traced.outputs), ...Object.fromEntries(named) };
    },
    { device, inputs: {} },
  );
  program.state.write(new Map(starts.map(([parameter, from]) => [parameter.name, file.get(from)!])));
  const values = await program({});
  const after = await program.state.read(Object.values(state).map(({ name }) => name));
  for (const [name, { name: held }] of Object.entries(state)) values[`out/${name}`] = after.get(held)!;
  return closed(program, [
    ...comparisons('out/', values, tensors.outputs, ours),
    ...comparisons('grad/', values, tensors.gradients, ours),
  ]);
}

/** Five steps from the same start, with the gradients of the file. */
async function runOptimizer(
  found: OptimizerCase,
  tensors: CaseTensors,
  attrs: Attrs,
  device: Device,
): Promise<CaseRun> {
  const ours = (name: string, tensor: HostTensor): HostTensor =>
    toOurs(tensor, name.endsWith('w') ? 'reversed' : 'same');
  const inputs = mapped(tensors.inputs, ours);
  const names = ['w', 'b'];
  const weights = names.map((name) => held(name, inputs.get(name)!));
  const slopes = names.map((name) => held(`gradient/${name}`, inputs.get(`grad0_${name}`)!));
  const optimizer = found.optimizer(attrs, tensors.name)!;
  const update = (): Record<string, Tensor> => {
    optimizer.update(weights, slopes);
    return {};
  };
  const program = await compile(Object.assign(update, { counters: optimizer }), { device, inputs: {} });
  const values: Record<string, HostTensor> = {};
  for (let step = 0; inputs.has(`grad${step}_w`); step++) {
    program.state.write(
      new Map(names.map((name, i) => [slopes[i]!.name, inputs.get(`grad${step}_${name}`)!])),
    );
    await program({});
    for (const [name, value] of await program.state.read(names))
      values[`out/step${step + 1}/${name}`] = value;
  }
  return closed(program, comparisons('out/', values, tensors.outputs, ours));
}

function closed(program: Compiled, pairs: CaseRun['pairs']): CaseRun {
  const dispatches = program.executor.dispatchCount;
  program.close();
  program.state.close();
  return { pairs, dispatches };
}

/** Values beside references in our layout; a value that is missing or has another shape compares as empty. */
function comparisons(
  prefix: string,
  values: Readonly<Record<string, HostTensor>>,
  references: ReadonlyMap<string, HostTensor>,
  ours: (name: string, tensor: HostTensor) => HostTensor,
): CaseRun['pairs'] {
  return [...references].map(([name, stored]) => {
    const reference = ours(name, stored);
    const value = values[prefix + name];
    const fits = value?.shape.join() === reference.shape.join();
    return { name: prefix + name, values: fits ? numbers(value!) : [], reference: numbers(reference) };
  });
}

/** Gradients of Σ cotangent · output over the outputs that have one; a scalar without has 1. */
function totalGradients(
  outputs: Readonly<Record<string, Tensor>>,
  cotangents: ReadonlyMap<string, Tensor>,
  targets: readonly Tensor[],
): readonly Tensor[] {
  if (targets.length === 0) return [];
  const seeds = cotangents.size > 0 ? cotangents : new Map([['y', constant(1)]]);
  const weighted = [...seeds].map(([name, seed]) => sum(multiply(outputs[name]!, seed)));
  return gradients(
    weighted.reduce((a, b) => add(a, b)),
    constant(1),
    targets,
  );
}

/** A parameter that starts with these values. */
function held(name: string, { shape, data }: HostTensor): Parameter {
  return parameter(shape, { name, init: () => Float32Array.from(data as Float32Array) });
}

function reading(inputs: ReadonlyMap<string, Parameter>): Inputs {
  const maybe = (name: string): Parameter | undefined => inputs.get(name);
  const of = (name: string): Parameter => {
    const found = maybe(name);
    if (found === undefined)
      throw new Error(`the case has no input ${name}; it has ${[...inputs.keys()].join(', ')}`);
    return found;
  };
  return { of, maybe };
}

function mapped<V, W>(from: ReadonlyMap<string, V>, fn: (name: string, value: V) => W): Map<string, W> {
  return new Map([...from].map(([name, value]) => [name, fn(name, value)]));
}

function prefixed(prefix: string, tensors: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]));
}
