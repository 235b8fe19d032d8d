/** Row-wise ops where the derived tests do not reach: extreme values, infinities, wrong arguments. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { build } from '../compile/compile.ts';
import { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import { type HostTensor, hostTensor } from '../host-tensor.ts';
import { attentionPool } from '../nn/attention-pool.ts';
import { evaluateOn, noise, parametersOf } from '../nn/golden.ts';
import { parameters } from '../nn/layer.ts';
import { layerNorm, rmsBatchNorm } from '../nn/layer-norm.ts';
import { parameter } from '../parameter.ts';
import { withScope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { relativeError } from '../testing.ts';
import { attentionPool1d } from './attention-pool.ts';
import { layerNormalize } from './layer-norm.ts';
import { logGamma } from './log-gamma.ts';
import { logAddExp, softCap } from './logits.ts';
import { maxPool1d } from './pool.ts';
import { logSoftmax, logSumExp, softmax } from './softmax.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const INFINITY = Number.POSITIVE_INFINITY;

test('masked and huge logits give shares, an infinite one or none at all gives NaN', async () => {
  const x = hostTensor(
    [4, 4],
    [3, -INFINITY, 3, -INFINITY, 3e38, -3e38, 0, 0, 0, INFINITY, 1, 2, ...Array(4).fill(-INFINITY)],
  );
  const out = await evaluateOn(device, { x }, (t) => ({
    p: softmax(t.x),
    l: logSoftmax(t.x),
    s: logSumExp(t.x),
  }));
  const rows = [0.5, 0, 0.5, 0, 1, 0, 0, 0];
  expect([...(out.p!.data as Float32Array)]).toEqual([...rows, ...Array(8).fill(Number.NaN)]);
  expect(relativeError((out.s!.data as Float32Array).subarray(0, 2), [3 + Math.log(2), 3e38])).toBeLessThan(
    1e-6,
  );
  expect((out.l!.data as Float32Array)[1]).toBe(-INFINITY);
  expect([...(out.l!.data as Float32Array)].slice(8)).toEqual(Array(8).fill(Number.NaN));
});

test('a row far from 0 is normalised as one around 0', async () => {
  const offsets = [0, 4096, -65_536]; // whole numbers and eighths: exact in f32
  const base = Float32Array.from({ length: 64 }, (_, i) => ((i * 37) % 64) / 8);
  const x = hostTensor(
    [3, 64],
    offsets.flatMap((offset) => [...base].map((value) => value + offset)),
  );
  const ones = hostTensor([64], new Float32Array(64).fill(1));
  const zeros = hostTensor([64], new Float32Array(64));
  const out = await evaluateOn(device, { x, ones, zeros }, (t) => ({
    y: layerNormalize(t.x, t.ones, t.zeros, { epsilon: 1e-5 }),
  }));
  const y = out.y!.data as Float32Array;
  expect(y.slice(64, 128)).toEqual(y.slice(0, 64));
  expect(y.slice(128)).toEqual(y.slice(0, 64));
});

test('logits of pooled rows far from 0 have the gradient of rows around 0', async () => {
  const rows = Float32Array.from({ length: 48 }, (_, i) => ((i * 37) % 48) / 8); // exact in f32, 4096 higher too
  const x = hostTensor(
    [2, 12, 4],
    [0, 4096].flatMap((offset) => [...rows].map((value) => value + offset)),
  );
  const twice = (shape: readonly number[], seed: number): HostTensor => {
    const { data } = noise(shape, seed);
    return hostTensor([2, ...shape], [...(data as Float32Array), ...(data as Float32Array)]);
  };
  for (const pool of [2, 3]) {
    const inputs = { x, z: twice([12, 4], 1), dy: twice([12 / pool, 4], 2) };
    const out = await evaluateOn(device, inputs, (t) => ({
      dz: gradients(attentionPool1d(t.x, t.z, { pool }), t.dy, [t.z])[0]!,
    }));
    const dz = out.dz!.data as Float32Array;
    expect(dz.slice(48)).toEqual(dz.slice(0, 48));
  }
});

test('log Γ of whole numbers is the logarithm of a factorial, exactly 0 at 1 and 2', async () => {
  const n = [1, 2, 3, 4, 7, 8, 9, 31, 1001, 1e6];
  const out = await evaluateOn(device, { x: hostTensor([n.length], n) }, ({ x }) => ({ y: logGamma(x) }));
  const y = out.y!.data as Float32Array;
  expect([y[0], y[1]]).toEqual([0, 0]);
  n.forEach((value, i) => {
    let expected = 0;
    for (let k = 2; k < value; k++) expected += Math.log(k);
    if (expected > 0) expect(Math.abs(y[i]! / expected - 1)).toBeLessThan(3e-7);
  });
});

test('logarithms of sums do not overflow, and a cap is a bound', async () => {
  const a = hostTensor([3], [1000, -1000, 0]);
  const b = hostTensor([3], [999, -1000, -200]);
  const out = await evaluateOn(device, { a, b }, (t) => ({
    sum: logAddExp(t.a, t.b),
    capped: softCap(t.a, { cap: 5 }),
  }));
  expect(
    relativeError(out.sum!.data as Float32Array, [1000 + Math.log1p(Math.exp(-1)), -1000 + Math.LN2, 0]),
  ).toBeLessThan(1e-7);
  expect([...(out.capped!.data as Float32Array)]).toEqual([5, -5, 0]);
});

test('a large gain turns attention pooling into max-pooling', async () => {
  const x = noise([1, 12, 8], 3);
  const sharp = attentionPool({ channels: 8, pool: 3, gain: 1e6 });
  parameters(sharp);
  const out = await evaluateOn(device, { x }, (t) => ({
    sharp: sharp(t.x),
    max: maxPool1d(t.x, { size: 3 }),
  }));
  expect(relativeError(out.sharp!.data as Float32Array, out.max!.data as Float32Array)).toBeLessThan(1e-6);
});

test('tensors of Enformer that exceed a binding are taken in windows, each bound once', () => {
  const scale = parameter([768], { name: 'scale' });
  const cases: readonly (readonly [readonly number[], (x: Tensor) => Tensor])[] = [
    [[1, 196_608, 768], (x) => attentionPool1d(x, x, { pool: 2 })],
    [[8, 4096, 1536], (x) => softmax(x)],
    [[8, 4096, 1536], (x) => logSoftmax(x, { axis: 1 })],
    [[1, 98_304, 768], (x) => layerNormalize(x, scale, scale, { epsilon: 1e-5 })],
  ];
  for (const [shape, fn] of cases) {
    const step = ({ x }: Readonly<Record<string, Tensor>>): Record<string, Tensor> => {
      const y = fn(x!);
      return { dx: gradients(y, y, [x!])[0]! };
    };
    const { program } = build(step, { inputs: { x: shape }, bindingLimit: 128 * 2 ** 20 });
    const windows = program.segments.flatMap(({ leaf }) => leaf.map(({ window }) => window));
    expect(windows.length).toBeGreaterThan(3);
    expect(windows.map((window) => window?.pages)).toEqual(windows.map(() => 1));
  }
});

test('windows and logits that do not fit are refused', () => {
  const { x, z } = parametersOf({ x: noise([2, 9, 4], 1), z: noise([2, 9, 2], 2) });
  expect(() => attentionPool1d(x!, x!, { pool: 2 })).toThrow(/windows of 2 rows do not fill the 9 rows/);
  expect(() => attentionPool1d(x!, z!, { pool: 3 })).toThrow(/must be that or \[2, 9, 1\]/);
});

test('a softmax over the sequences of a batch is refused: leaves would each take their own', () => {
  for (const fn of [softmax, logSumExp]) {
    const step = ({ x }: Readonly<Record<string, Tensor>>): Record<string, Tensor> => ({
      y: fn(x!, { axis: 0 }),
    });
    expect(() => build(step, { inputs: { x: [4, 3] }, leaves: 2 })).toThrow(/works along the batch axis/);
  }
});

test('wrong axes, channels and uses are refused', () => {
  const { x, gamma } = parametersOf({ x: noise([2, 3], 1), gamma: noise([4], 2) });
  expect(() => softmax(x!, { axis: 2 })).toThrow(/softmax: axis 2 of \[2, 3\]; it must lie in -2…1/);
  expect(() => layerNormalize(x!, gamma!, gamma!, { epsilon: 1e-5 })).toThrow(
    /has 3 channels but gamma or beta is \[4\]/,
  );
  expect(() => layerNorm({ channels: 4 })(x!)).toThrow(/set channels: 3/);
  expect(() => softCap(x!, { cap: 0 })).toThrow(/must be above 0/);
  expect(() => withScope({ training: true }, () => rmsBatchNorm({ channels: 3 })(x!))).toThrow(
    /no training form/,
  );
});
