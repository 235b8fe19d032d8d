/** Running ops for their tests: in float64 through the references, or on a device. */
import { compile } from '../compile/compile.ts';
import type { Device } from '../device.ts';
import { topologicalOrder } from '../graph.ts';
import { elementCount, type HostTensor, hostTensor } from '../host-tensor.ts';
import type { AnyOp, Reference, Sample } from '../op.ts';
import { Parameter, parameter } from '../parameter.ts';
import { hashName } from '../random.ts';
import { StateStore } from '../state.ts';
import { Tensor } from '../tensor.ts';
import { randomTensor } from './values.ts';

/** One derived test. */
export interface Check {
  /** A sentence about the op. */
  readonly name: string;
  /** Why there is nothing to test here; shown in the report. */
  readonly skip?: string;
  /** @throws with the numbers when the op is wrong. */
  run(device: Device): Promise<void>;
}

/** A sample with its types erased. */
export type AnySample = Sample<readonly string[], unknown>;

/**
 * Evaluates tensors in float64 through the references of their ops.
 *
 * @param values of the sources: inputs, parameters and scalars
 * @throws when a source has no value or an op no reference
 */
export function interpret(outputs: readonly Tensor[], values: ReadonlyMap<Tensor, Reference>): Reference[] {
  const known = new Map<Tensor, Reference>(values);
  for (const node of topologicalOrder(outputs)) {
    if (!known.has(node)) known.set(node, interpretNode(node, known));
  }
  return outputs.map((output) => known.get(output)!);
}

function interpretNode(node: Tensor, known: ReadonlyMap<Tensor, Reference>): Reference {
  const { shape, op } = node;
  if (op.name === 'constant')
    return { shape, data: Float64Array.of((node.attrs as { value: number }).value) };
  if (op.kernel.kind === 'source') throw new Error(`${node} has no value; give it one`);
  if (op.reference === undefined) throw new Error(`${node}: op '${op.name}' has no reference; add one`);
  const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, x]) => [name, known.get(x)!]));
  const data = op.reference(inputs, node.attrs);
  if (data.length !== elementCount(shape))
    throw new Error(
      `${node}: its reference gives ${data.length} values, but the shape holds ${elementCount(shape)}`,
    );
  return { shape, data };
}

/** Compiles and runs tensors on a device; the parameters they depend on start from their initialisers. */
export async function evaluateOnDevice<K extends string>(
  device: Device,
  outputs: Readonly<Record<K, Tensor>>,
): Promise<Record<K, Float32Array>> {
  const state = stateOf(device, Object.values(outputs));
  const compiled = await compile(() => outputs, { device, inputs: {}, state });
  try {
    const results = await compiled({});
    return Object.fromEntries(
      Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]),
    ) as Record<K, Float32Array>;
  } finally {
    compiled.close();
    state.close();
  }
}

/** Room for all parameters, also for those of which only the shape is used. */
function stateOf(device: Device, outputs: readonly Tensor[]): StateStore {
  const parameters = topologicalOrder(outputs).filter((node) => node instanceof Parameter);
  const state = new StateStore(device);
  state.allocate(parameters.map(({ name, shape }) => ({ name, shape, slot: 0 })));
  state.write(
    new Map(
      parameters.map(({ name, shape, initializer }) => [name, hostTensor(shape, initializer(shape, 0))]),
    ),
  );
  return state;
}

export type Values = Readonly<Record<string, HostTensor>>;

/** Inputs of a sample, drawn anew from its op's name: every op sees other numbers. */
export function drawInputs(op: AnyOp, { inputs, range, integers }: AnySample): Values {
  return Object.fromEntries(
    op.inputs.map((name) => {
      const own = range?.[name];
      const seed = hashName(`${op.name}.${name}`);
      const options = {
        seed,
        integers: integers?.includes(name) === true,
        ...(own === undefined ? {} : { range: own }),
      };
      return [name, randomTensor(inputs[name]!, options)];
    }),
  );
}

/** Parameters that hold the values: unlike inputs they are not a batch, so no axis of theirs is special. */
export function asTensors(values: Values, prefix = ''): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(values).map(([name, { shape, data }]) => [
      name,
      parameter(shape, { name: prefix + name, init: () => data as Float32Array }),
    ]),
  );
}

export function call(op: AnyOp, inputs: Readonly<Record<string, Tensor>>, attrs: unknown): Tensor {
  return new Tensor(op, inputs, attrs, op.infer(inputs, attrs));
}

export function asReference({ shape, data }: HostTensor): Reference {
  return { shape, data: Float64Array.from(data as Float32Array) };
}

export function referenceOf(op: AnyOp, values: Values, attrs: unknown): Float64Array {
  if (op.reference === undefined) throw new Error(`op '${op.name}' has samples but no reference; add one`);
  const inputs = Object.fromEntries(Object.entries(values).map(([name, x]) => [name, asReference(x)]));
  return op.reference(inputs, attrs);
}
