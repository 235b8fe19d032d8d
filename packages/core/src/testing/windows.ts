/** An op on tensors larger than one binding against the same op on whole tensors. */
import { compile, type Traceable } from '../compile/compile.ts';
import type { Device } from '../device.ts';
import { elementCount, type HostTensor, type TypedArray } from '../host-tensor.ts';
import type { AnyOp } from '../op.ts';
import type { Program } from '../program.ts';
import { type AnySample, asTensors, type Check, call, drawInputs } from './evaluate.ts';
import { expectSameBits } from './values.ts';

const SMALLEST_LIMIT = 256; // bindings begin at multiples of 256 bytes

/** The largest tensor is three times what may be bound: windows, and pages where an op does not say what it touches. */
export function windowCheck(op: AnyOp, sample: AnySample): Check {
  const name = 'in windows equals the whole';
  const values = drawInputs(op, sample);
  const y = call(op, asTensors(values), sample.attrs);
  const read = Object.entries(y.inputs).filter(([input]) => op.shapeOnly?.includes(input) !== true);
  const largest = 4 * Math.max(elementCount(y.shape), ...read.map(([, x]) => elementCount(x.shape)));
  const limit = Math.max(SMALLEST_LIMIT, Math.ceil(largest / 3 / SMALLEST_LIMIT) * SMALLEST_LIMIT);
  const run = async (device: Device): Promise<void> => {
    const outputs = (): Traceable => () => ({ y: call(op, asTensors(values), sample.attrs) });
    const whole = await runAt(device, outputs());
    const parts = await runAt(device, outputs(), limit);
    if (op.kernel.kind !== 'view' && windowCount(parts.program) === 0)
      throw new Error(`${op.name}: nothing ran in windows of ${limit} bytes though a tensor has ${largest}`);
    expectSameBits(`${op.name} in windows of ${limit} bytes`, parts.outputs.y!, whole.outputs.y!);
  };
  return largest > SMALLEST_LIMIT ? { name, run } : { name, skip: 'one binding holds every tensor', run };
}

/** Outputs and program of one run, of a function that draws its parameters from `seed`. */
export async function runAt(
  device: Device,
  fn: Traceable,
  bindingLimit?: number,
  inputs: Readonly<Record<string, HostTensor>> = {},
): Promise<{ readonly outputs: Readonly<Record<string, Float32Array>>; readonly program: Program }> {
  const shapes = Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [name, shape]));
  const limit = bindingLimit === undefined ? {} : { bindingLimit };
  const compiled = await compile(fn, { device, inputs: shapes, ...limit });
  try {
    const results = await compiled(
      Object.fromEntries(
        Object.entries(inputs).map(([name, { data }]): [string, TypedArray] => [name, data]),
      ),
    );
    const outputs = Object.entries(results).map(([name, { data }]) => [name, data as Float32Array] as const);
    return { outputs: Object.fromEntries(outputs), program: compiled.program };
  } finally {
    compiled.close();
    compiled.state.close();
  }
}

/** Dispatches of a program that are one of several windows, or whose tensors are bound in pages. */
export function windowCount(program: Program): number {
  return program.segments
    .flatMap(({ once, leaf }) => [...once, ...leaf])
    .filter(({ window }) => window !== undefined).length;
}
