/** Test support: reference fixtures, and functions of tensors run on a device. Not part of the library. */
import { fileURLToPath } from 'node:url';
import { compile } from '../compile/compile.ts';
import type { Device } from '../device.ts';
import type { HostTensor } from '../host-tensor.ts';
import { type Parameter, parameter } from '../parameter.ts';
import { readSafetensors, type Safetensors } from '../safetensors.ts';
import type { Tensor } from '../tensor.ts';
import { randomTensor } from '../testing.ts';

const OPS = new URL('../../../../test/fixtures/ops/ops_public.safetensors', import.meta.url);

/** The op fixtures: `<case>/in|cot|out|grad/<name>`, and their attributes as JSON in the metadata. */
export function opFixtures(): Promise<Safetensors> {
  return readSafetensors(fileURLToPath(OPS));
}

/** f32 parameters that start with these values. */
export function parametersOf(values: Readonly<Record<string, HostTensor>>): Record<string, Parameter> {
  return Object.fromEntries(
    Object.entries(values).map(([name, { shape, data }]) => [
      name,
      parameter(shape, { name, init: () => Float32Array.from(data as Float32Array) }),
    ]),
  );
}

/** Outputs of a function of tensors with these values, all of them held whole. */
export async function evaluateOn<N extends string>(
  device: Device,
  values: Readonly<Record<N, HostTensor>>,
  fn: (tensors: Record<N, Parameter>) => Readonly<Record<string, Tensor>>,
): Promise<Record<string, HostTensor>> {
  const tensors = parametersOf(values) as Record<N, Parameter>;
  const run = await compile(() => fn(tensors), { device, inputs: {} });
  const outputs = await run({});
  run.close();
  return outputs;
}

/** Reproducible values in `range`. */
export function noise(
  shape: readonly number[],
  seed: number,
  range: readonly [number, number] = [-1, 1],
): HostTensor {
  return randomTensor(shape, { seed, range });
}
