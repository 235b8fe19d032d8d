/** Rows by a workgroup each, as on GPUs, here on whatever device there is: the derived tests see the other kernels. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import type { KernelTarget } from '../kernel.ts';
import type { Reference } from '../op.ts';
import { layerNormalize, rmsNormalize } from '../ops/layer-norm.ts';
import { logSoftmax, logSumExp, softmax } from '../ops/softmax.ts';
import { type Parameter, parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { interpret, randomTensor, relativeError } from '../testing.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const TOLERANCE = 1e-5; // up to 1,036 terms in f32
const GPU: KernelTarget = { kind: 'gpu' };

function drawn(name: string, shape: readonly number[], seed: number): Parameter {
  return parameter(shape, {
    name,
    init: () => randomTensor(shape, { seed, range: [-3, 3] }).data as Float32Array,
  });
}

type Row = (x: Tensor, scale: Tensor, shift: Tensor) => Tensor;

const OPS: readonly (readonly [string, Row])[] = [
  ['softmax', (x) => softmax(x)],
  ['log softmax', (x) => logSoftmax(x)],
  ['log sum exp', (x) => logSumExp(x)],
  ['layer norm', (x, scale, shift) => layerNormalize(x, scale, shift, { epsilon: 1e-5 })],
  ['RMS norm', (x, scale, shift) => rmsNormalize(x, scale, shift, { epsilon: 1e-5 })],
];
/** In fours with a remainder of the workgroup, and not in fours. */
const LENGTHS = [1036, 331];

test.each(OPS)('%s of long rows and its gradients equal their float64 references', async (_, row) => {
  for (const length of LENGTHS) {
    const named = {
      x: drawn('x', [5, length], 1),
      scale: drawn('scale', [length], 2),
      shift: drawn('shift', [length], 3),
    };
    const y = row(named.x, named.scale, named.shift);
    const seed = drawn('seed', y.shape, 4);
    const targets = Object.values(y.inputs).includes(named.scale) ? Object.values(named) : [named.x];
    const outputs: Record<string, Tensor> = { y };
    gradients(y, seed, targets).forEach((gradient, i) => {
      outputs[`d${targets[i]!.name}`] = gradient;
    });
    const run = await compile(() => outputs, { device, inputs: {}, target: GPU });
    expect(run.program.shaders.filter((code) => code.includes('workgroupBarrier')).length).toBeGreaterThan(1);
    const results = await run({});
    run.close();
    run.state.close();
    const values = new Map([...Object.values(named), seed].map((held) => [held as Tensor, startOf(held)]));
    const exact = interpret(Object.values(outputs), values);
    Object.keys(outputs).forEach((name, i) => {
      const error = relativeError(results[name]!.data as Float32Array, exact[i]!.data);
      expect(error, `${name} of ${length}`).toBeLessThan(TOLERANCE);
    });
  }
});

function startOf({ shape, initializer }: Parameter): Reference {
  return { shape, data: Float64Array.from(initializer(shape, 0)) };
}
