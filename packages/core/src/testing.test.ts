import { afterAll, beforeAll, expect, it } from 'vitest';
import { Device } from './device.ts';
import { defineOp, type MapKernel, type Op } from './op.ts';
import { multiply } from './ops/arithmetic.ts';
import { mapReference } from './ops/broadcast.ts';
import { perElement } from './ops/per-element.ts';
import { constant, input } from './parameter.ts';
import { checkOp, interpret, randomTensor, relativeError } from './testing.ts';

let device: Device;

beforeAll(async () => {
  device = await Device.open();
});

afterAll(async () => {
  await device.close();
});

/** Twice x, right in everything unless something is replaced. */
function declareTwice(name: string, wrong: Partial<Op<readonly ['x'], undefined>>): void {
  defineOp()({
    name,
    inputs: ['x'],
    infer: ({ x }) => ({ shape: x.shape, dtype: 'f32' }),
    kernel: twice,
    gradient: (dy) => ({ x: () => multiply(dy, 2) }),
    reference: mapReference<['x']>(({ x }) => 2 * x),
    samples: [{ inputs: { x: [6, 7] }, attrs: undefined }],
    ...wrong,
  });
}

const twice: MapKernel<readonly ['x'], undefined> = { kind: 'map', expression: ({ x }) => `(${x} + ${x})` };

/** Names of the checks of an op that fail, without its signature. */
async function failing(name: string): Promise<string[]> {
  const names: string[] = [];
  for (const check of checkOp(name)) {
    if (check.skip !== undefined) continue;
    await check.run(device).catch(() => names.push(check.name.replace(/^.*?\)\s/, '')));
  }
  return names;
}

it('an op that is right passes all its checks', async () => {
  declareTwice('twice', {});
  expect(checkOp('twice').map(({ name }) => name)).toEqual([
    'twice([6, 7]) equals its float64 reference',
    'twice([6, 7]) has the gradient of central differences',
    'twice([6, 7]) cut along axis0 equals the whole',
    'twice([6, 7]) cut along axis1 equals the whole',
    'twice([6, 7]) in windows equals the whole',
    'twice([6, 7]) passes NaN on',
    'twice([6, 7]) has a reference that hides no NaN',
  ]);
  expect(await failing('twice')).toEqual([]);
});

it('a kernel that is off by 1e-4 is found', async () => {
  declareTwice('offTwice', { kernel: { kind: 'map', expression: ({ x }) => `(2.0001 * ${x})` } });
  expect(await failing('offTwice')).toEqual(['equals its float64 reference']);
});

it('a gradient that is off by 1e-4 is found', async () => {
  declareTwice('steepTwice', { gradient: (dy) => ({ x: () => multiply(dy, 2.0002) }) });
  expect(await failing('steepTwice')).toEqual(['has the gradient of central differences']);
});

it('a kernel that swallows NaN is found', async () => {
  declareTwice('deafTwice', {
    kernel: { kind: 'map', expression: ({ x }) => `(2.0 * clamp(${x}, -9.0, 9.0))` },
  });
  expect(await failing('deafTwice')).toEqual(['passes NaN on']);
});

it('a kernel that swallows NaN like its reference is found', async () => {
  declareTwice('mutedTwice', {
    kernel: { kind: 'map', expression: ({ x }) => `(2.0 * clamp(${x}, -9.0, 9.0))` },
    reference: mapReference<['x']>(({ x }) => (x > 9 ? 18 : x > -9 ? 2 * x : -18)),
  });
  expect(await failing('mutedTwice')).toEqual(['has a reference that hides no NaN']);
});

it('an axis that is not what it says is found', async () => {
  // Sums of neighbours along the first axis, declared as if rows were independent.
  const kernel = {
    kind: 'shader' as const,
    body: (_: unknown, y: { shape: readonly number[]; dtype: 'f32' | 'u32' | 'i32' | 'f16' | 'u8' }) =>
      perElement(y, `store(i, load_x(i) + load_x((i + ${y.shape[1]}u) % ${y.shape[0]! * y.shape[1]!}u));`),
  };
  declareTwice('mixedTwice', {
    kernel,
    axes: 'rows columns -> rows columns',
    gradient: () => ({}),
    reference: ({ x }) => x.data.map((value, i) => value + x.data[(i + x.shape[1]!) % x.data.length]!),
  });
  expect(await failing('mixedTwice')).toEqual(['cut along rows equals the whole']);
});

it('random tensors depend on the seed and the element only', () => {
  const long = randomTensor([100], { seed: 7, range: [2, 5] }).data as Float32Array;
  expect(randomTensor([10], { seed: 7, range: [2, 5] }).data).toEqual(long.subarray(0, 10));
  expect(Math.min(...long)).toBeGreaterThanOrEqual(2);
  expect(Math.max(...long)).toBeLessThan(5);
  const whole = randomTensor([100], { seed: 1, range: [0, 3], integers: true }).data as Float32Array;
  expect(new Set(whole)).toEqual(new Set([0, 1, 2]));
});

it('the relative error is infinite where only one side is NaN', () => {
  expect(relativeError([1, 2.5], [1, 2])).toBe(0.25);
  expect(relativeError([Number.NaN, 1], [Number.NaN, 1])).toBe(0);
  expect(relativeError([Number.NaN, 1], [0, 1])).toBe(Number.POSITIVE_INFINITY);
  expect(relativeError([0, 1], [Number.NaN, 1])).toBe(Number.POSITIVE_INFINITY);
  expect(relativeError([1], [1, 1])).toBe(Number.POSITIVE_INFINITY);
});

it('the interpreter evaluates a graph in float64 and names a source without value', () => {
  const x = input('x', [2]);
  const y = multiply(x, constant(1 / 3));
  const [result] = interpret([y], new Map([[x, { shape: [2], data: Float64Array.of(3, 1) }]]));
  expect([...result!.data]).toEqual([1, 1 / 3]);
  expect(() => interpret([y], new Map())).toThrow('input [2] has no value; give it one');
});
