/** Test support: reference fixtures, and functions of tensors run on a device. Not part of the library. */
import { fileURLToPath } from 'node:url';
import { compile } from '../compile/compile.ts';
import type { Device } from '../device.ts';
import { elementCount, type HostTensor } from '../host-tensor.ts';
import { type Parameter, parameter } from '../parameter.ts';
import { readSafetensors, type Safetensors } from '../safetensors.ts';
import type { Tensor } from '../tensor.ts';

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

/** The largest |a − b| over the largest |b|; NaN counts as infinite. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} values against ${b.length}`);
  let scale = 0;
  let worst = 0;
  for (let i = 0; i < b.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    scale = Math.max(scale, Math.abs(b[i]!));
    worst = difference <= worst ? worst : Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
  }
  return worst === 0 ? 0 : worst / scale;
}

/** Reproducible values in [low, high). */
export function noise(
  shape: readonly number[],
  seed: number,
  [low, high]: readonly [number, number] = [-1, 1],
): HostTensor {
  let state = Math.imul(seed + 1, 0x9e37_79b1) >>> 0;
  const data = Float32Array.from({ length: elementCount(shape) }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return low + (high - low) * (state / 2 ** 32);
  });
  return { shape, dtype: 'f32', data };
}
