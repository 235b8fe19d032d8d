import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compile } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import type { HostTensor } from '../host-tensor.ts';
import { evaluateOn, noise, opFixtures, parametersOf } from '../nn/golden.ts';
import { declaredOp, type Reference } from '../op.ts';
import type { Safetensors } from '../safetensors.ts';
import type { Tensor } from '../tensor.ts';
import { relativeError } from '../testing.ts';
import { multiply } from './arithmetic.ts';
import { rowChunks } from './moments.ts';
import { affineNormalize, batchNormalize, foldMoments, moments } from './normalize.ts';
import { sum } from './reduce.ts';

let device: Device;
let fixtures: Safetensors;
beforeAll(async () => {
  device = await Device.open();
  fixtures = await opFixtures();
});
afterAll(() => device.close());

const float64 = ({ shape, data }: HostTensor): Reference => ({
  shape,
  data: Float64Array.from(data as Float32Array),
});

test('rows are cut into at most 64 chunks of at least 64 rows that cover them all', () => {
  for (const rows of [1, 63, 64, 65, 127, 128, 4095, 4096, 4097, 196_608]) {
    const { chunks, rowsPerChunk } = rowChunks(rows);
    expect(chunks).toBeLessThanOrEqual(64);
    expect(rowsPerChunk).toBeGreaterThanOrEqual(Math.min(rows, 64));
    expect((chunks - 1) * rowsPerChunk).toBeLessThan(rows);
    expect(chunks * rowsPerChunk).toBeGreaterThanOrEqual(rows);
  }
});

/** Moves the channels of `[batch, channels, …]` to the end. */
function channelsLast({ shape, dtype, data }: HostTensor): HostTensor {
  const [batch = 1, channels = 1, ...rest] = shape;
  const positions = rest.reduce((a, b) => a * b, 1);
  const moved = Float32Array.from({ length: data.length }, (_, i) => {
    const channel = i % channels;
    const row = Math.floor(i / channels);
    return (data as Float32Array)[
      (Math.floor(row / positions) * channels + channel) * positions + (row % positions)
    ]!;
  });
  return { shape: [batch, ...rest, channels], dtype, data: moved };
}

const TRAIN = ['1d_eps1e-3', '1d_eps1e-5', '1d_large_mean', '2d_eps1e-3', 'dense_eps1e-5'];

describe.each(TRAIN)('golden batchnorm_train_%s', (name) => {
  const at = (key: string): HostTensor => fixtures.tensors.get(`batchnorm_train_${name}/${key}`)!;
  const { outputTolerance, gradientTolerance } = name.includes('large')
    ? { outputTolerance: 1e-4, gradientTolerance: 1e-3 } // the mean, 1e4 deviations away, is itself rounded
    : { outputTolerance: 1e-5, gradientTolerance: 1e-4 };

  test.each([1, 'all'] as const)('is met with partial statistics of %s sequences', async (partial) => {
    const { eps: epsilon } = JSON.parse(fixtures.metadata.cases!)[`batchnorm_train_${name}`];
    const values = {
      x: channelsLast(at('in/x')),
      gamma: at('in/gamma'),
      beta: at('in/beta'),
      dy: channelsLast(at('cot/y')),
    };
    const batch = values.x.shape[0]!;
    const sequences = partial === 'all' ? batch : partial;
    const count = values.x.data.length / values.gamma.data.length;
    const out = await evaluateOn(device, values, ({ x, gamma, beta, dy }) => {
      const folded = foldMoments(moments(x, { sequences }));
      const y = batchNormalize(x, folded, gamma, beta, { epsilon, sequences, count });
      const [dx, dgamma, dbeta] = gradients(y, dy, [x, gamma, beta]);
      return { y, folded, dx: dx!, dgamma: dgamma!, dbeta: dbeta! };
    });
    const error = (key: string, expected: HostTensor): number =>
      relativeError(out[key]!.data as Float32Array, expected.data as Float32Array);
    const statistics = [
      ...(at('out/batch_mean').data as Float32Array),
      ...(at('out/batch_var_biased').data as Float32Array),
    ];
    const channels = statistics.length / 2;
    const folded = out.folded!.data as Float32Array;
    expect(relativeError(folded.subarray(0, channels), statistics.slice(0, channels))).toBeLessThan(1e-5);
    expect(relativeError(folded.subarray(channels), statistics.slice(channels))).toBeLessThan(
      outputTolerance,
    );
    expect(error('y', channelsLast(at('out/y')))).toBeLessThan(outputTolerance);
    expect(error('dx', channelsLast(at('grad/x')))).toBeLessThan(gradientTolerance);
    expect(error('dgamma', at('grad/gamma'))).toBeLessThan(gradientTolerance);
    expect(error('dbeta', at('grad/beta'))).toBeLessThan(gradientTolerance);
  });
});

const EVALUATION = ['1d_eps1e-3', '1d_eps1e-5', '1d_large_mean', '2d_eps1e-3', 'dense_eps1e-5'];

test.each(EVALUATION)('golden batchnorm_eval_%s is met', async (name) => {
  const at = (key: string): HostTensor => fixtures.tensors.get(`batchnorm_eval_${name}/${key}`)!;
  const { eps: epsilon } = JSON.parse(fixtures.metadata.cases!)[`batchnorm_eval_${name}`];
  const values = {
    x: channelsLast(at('in/x')),
    mean: at('in/running_mean'),
    variance: at('in/running_var'),
    gamma: at('in/gamma'),
    beta: at('in/beta'),
    dy: channelsLast(at('cot/y')),
  };
  const out = await evaluateOn(device, values, ({ x, mean, variance, gamma, beta, dy }) => {
    const y = affineNormalize(x, mean, variance, gamma, beta, { epsilon });
    const [dx, dgamma, dbeta] = gradients(y, dy, [x, gamma, beta]);
    return { y, dx: dx!, dgamma: dgamma!, dbeta: dbeta! };
  });
  const error = (key: string, expected: HostTensor): number =>
    relativeError(out[key]!.data as Float32Array, expected.data as Float32Array);
  expect(error('y', channelsLast(at('out/y')))).toBeLessThan(1e-5);
  expect(error('dx', channelsLast(at('grad/x')))).toBeLessThan(1e-4);
  expect(error('dgamma', at('grad/gamma'))).toBeLessThan(1e-4);
  expect(error('dbeta', at('grad/beta'))).toBeLessThan(1e-4);
});

test('variances keep their digits when the mean is thousands of deviations away', async () => {
  const x = noise([2, 999, 3], 1);
  const shifted = { ...x, data: (x.data as Float32Array).map((v) => 4096 + Math.round(v * 1024) / 1024) };
  const values = { x: shifted };
  const { m } = await evaluateOn(device, values, ({ x }) => ({ m: moments(x, { sequences: 2 }) }));
  for (let channel = 0; channel < 3; channel++) {
    const column = [...shifted.data].filter((_, i) => i % 3 === channel);
    const mean = column.reduce((a, b) => a + b, 0) / column.length;
    const variance = column.reduce((a, b) => a + (b - mean) ** 2, 0) / column.length;
    expect(Math.abs((m!.data as Float32Array)[3 + channel]! / variance - 1)).toBeLessThan(1e-4); // the fixtures' gate: chunk means near 4096 are off by 2e-4
  }
});

describe('batchNormalize over groups of 2 sequences', () => {
  const attrs = { epsilon: 1e-3, sequences: 2, count: 14 };
  const shapes = { x: [4, 7, 3], gamma: [3], beta: [3], dy: [4, 7, 3] };
  const values = Object.fromEntries(
    Object.entries(shapes).map(([name, shape], i) => [name, noise(shape, 20 + i)]),
  );
  const run = () =>
    evaluateOn(device, values, ({ x, gamma, beta, dy }) => {
      const y = batchNormalize(x!, moments(x!, { sequences: 2 }), gamma!, beta!, attrs);
      const [dx, dgamma, dbeta] = gradients(y, dy!, [x!, gamma!, beta!]);
      return { y, x: dx!, gamma: dgamma!, beta: dbeta! };
    });

  /** The output in float64 with one input moved, through the references of the ops that make it. */
  function reference(moved?: { readonly name: string; readonly by: Float64Array }): Float64Array {
    const inputs = Object.fromEntries(
      Object.entries(values).map(([name, x]) => {
        const { shape, data } = float64(x);
        return [name, { shape, data: name === moved?.name ? data.map((v, i) => v + moved.by[i]!) : data }];
      }),
    );
    const ref = (
      op: string,
      of: Record<string, Reference>,
      attributes: unknown,
      shape: readonly number[],
    ) => ({
      shape,
      data: declaredOp(op).reference!(of, attributes),
    });
    const chunks = ref('chunkMoments', { x: inputs.x! }, attrs, [2, 1, 2, 3]);
    const mean = ref('mergeMoments', { x: chunks }, { rows: 14 }, [2, 2, 3]);
    const { x, gamma, beta } = inputs as Record<'x' | 'gamma' | 'beta', Reference>;
    return declaredOp('batchNormalize').reference!({ x, mean, variance: mean, gamma, beta }, attrs);
  }

  test('equals the float64 reference', async () => {
    expect(relativeError((await run()).y!.data as Float32Array, reference())).toBeLessThan(1e-5);
  });

  test.each(['x', 'gamma', 'beta'])('has the gradient of %s that central differences give', async (name) => {
    const gradient = (await run())[name]!.data as Float32Array;
    const dy = values.dy!.data as Float32Array;
    const slope = Float64Array.from(gradient, (_, i) => {
      const by = new Float64Array(gradient.length);
      by[i] = 1e-4;
      const [above, below] = [reference({ name, by }), reference({ name, by: by.map((v) => -v) })];
      return above.reduce((total, y, k) => total + (dy[k]! * (y - below[k]!)) / 2e-4, 0);
    });
    expect(relativeError(gradient, slope)).toBeLessThan(1e-5);
  });
});

describe('split over leaves', () => {
  const x = noise([6, 70, 5], 3);
  const dy = noise([6, 70, 5], 4);
  const { gamma, beta } = parametersOf({ gamma: noise([5], 5, [0.5, 2]), beta: noise([5], 6) });

  async function run(group: 'sequence' | 'step', sequences: number, leaves: number) {
    const step = (inputs: Readonly<Record<string, Tensor>>): Record<string, Tensor> => {
      const parts = moments(inputs.x!, { sequences });
      const statistics = group === 'step' ? foldMoments(parts) : parts;
      const count = (group === 'step' ? 6 : sequences) * 70;
      const y = batchNormalize(inputs.x!, statistics, gamma!, beta!, { epsilon: 1e-3, sequences, count });
      const loss = sum(multiply(y, y));
      const [dx, dgamma, dbeta] = gradients(y, inputs.dy!, [inputs.x!, gamma!, beta!]);
      return { y, loss, dx: dx!, dgamma: dgamma!, dbeta: dbeta! };
    };
    const shape = [6, 70, 5];
    const compiled = await compile(step, { device, inputs: { x: shape, dy: shape }, leaves });
    const out = await compiled({ x: x.data, dy: dy.data });
    compiled.close();
    return out;
  }

  test.each([
    ['step', 1, 2],
    ['step', 1, 6],
    ['step', 2, 3],
    ['sequence', 1, 3],
    ['sequence', 2, 3],
  ] as const)(
    '%s statistics in parts of %i on %i leaves have the bits of one leaf',
    async (group, n, leaves) => {
      const [whole, split] = [await run(group, n, 1), await run(group, n, leaves)];
      expect(split.y!.data).toEqual(whole.y!.data);
      expect(split.dx!.data).toEqual(whole.dx!.data);
      for (const key of ['loss', 'dgamma', 'dbeta']) {
        const error = relativeError(split[key]!.data as Float64Array, whole[key]!.data as Float64Array);
        expect(error).toBeLessThan(1e-5); // partial sums, added in another order
      }
    },
  );
});

test('errors name both sides', () => {
  const { x, gamma } = parametersOf({ x: noise([3, 4, 5], 1), gamma: noise([4], 1) });
  expect(() => moments(x!, { sequences: 2 })).toThrow(/3 sequences do not fill groups of 2/);
  const m = moments(x!, { sequences: 1 });
  expect(() => batchNormalize(x!, m, gamma!, gamma!, { epsilon: 1e-3, sequences: 1, count: 4 })).toThrow(
    /5 channels but gamma or beta is \[4\]/,
  );
});
