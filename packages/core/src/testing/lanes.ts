/** Test support, in a process of its own: prints what kernels give on this adapter, as JSON. Not part of the library. */
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { layerNormalize } from '../ops/layer-norm.ts';
import { matmul } from '../ops/matmul.ts';
import { sum } from '../ops/reduce.ts';
import { softmax } from '../ops/softmax.ts';
import { parameter } from '../parameter.ts';
import type { Tensor } from '../tensor.ts';
import { evaluateOnDevice } from './evaluate.ts';
import { compileSmallStep, smallStepResult } from './small-network.ts';
import { randomTensor } from './values.ts';

/** What the process prints. */
export interface LaneResults {
  readonly description: string;
  readonly subgroupSizes: readonly [min: number, max: number];
  readonly values: Readonly<Record<string, readonly number[]>>;
}

const tensor = (name: string, seed: number, ...shape: readonly number[]): Tensor =>
  parameter(shape, { name, init: () => randomTensor(shape, { seed }).data as Float32Array });

const device = await Device.open();
const a = tensor('a', 1, 37, 101); // rows and columns that no number of lanes divides
const ops = {
  matmul: matmul(a, tensor('b', 2, 101, 45)),
  softmax: softmax(a),
  layerNormalize: layerNormalize(a, tensor('gamma', 3, 101), tensor('beta', 4, 101), { epsilon: 1e-5 }),
  sum: sum(a, { from: 0, to: 1 }),
};
const software = await evaluateOnDevice(device, ops);
// workgroup memory and barriers, which this driver makes of its lanes
const gpu = await compile(() => ops, { device, inputs: {}, target: { kind: 'gpu' } });
const forGpu = Object.entries(await gpu({})).map(
  ([name, { data }]) => [`${name} for a GPU`, data as Float32Array] as const,
);
const step = await compileSmallStep({ device });
const values = { ...software, ...Object.fromEntries(forGpu), ...(await smallStepResult(step)) };
const { description, subgroupSizes } = device.info;
const lists = Object.fromEntries(Object.entries(values).map(([name, own]) => [name, [...own]]));
process.stdout.write(JSON.stringify({ description, subgroupSizes, values: lists } satisfies LaneResults));
step.close();
gpu.close();
await device.close();
