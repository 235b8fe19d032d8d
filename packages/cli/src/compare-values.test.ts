import type { HostTensor } from '@cohesin/core';
import { expect, test } from 'vitest';
import { compareStates } from './compare-runs.ts';
import { compareValues, differingText } from './compare-values.ts';

test('values that differ are counted, and their distance is in floating-point numbers', () => {
  const a = Float32Array.of(1, 2, -1e-45, 0.25, 3);
  const b = Float32Array.of(1, 2 + 2 ** -22, 1e-45, 0.25, 3 - 3 * 2 ** -22);
  const found = compareValues(a, b)!;
  expect(found).toMatchObject({ count: 3, of: 5, index: 1, ulps: 1, mostUlps: 3 });
  expect(differingText(found)).toBe('3 of 5 values; first [1]: 2 and 2.00000024 (1 ulp), at most 3 ulps');
  expect(compareValues(a, a.slice())).toBeUndefined();
  expect(compareValues(Float32Array.of(0), Float32Array.of(-0))).toMatchObject({ count: 1, ulps: 0 });
  expect(compareValues(Float32Array.of(1), Float32Array.of(Number.NaN))).toMatchObject({
    mostUlps: Number.NaN,
  });
});

test('halves are compared as their bits', () => {
  const found = compareValues(Uint16Array.of(0x3c00, 0x0001), Uint16Array.of(0x3c01, 0x8001));
  expect(found).toMatchObject({ count: 2, values: [1, 1 + 2 ** -10], ulps: 1, mostUlps: 2 });
});

test('states differ in names, shapes, values and the numbers of the host', () => {
  const f32 = (...data: number[]): HostTensor => {
    return { shape: [data.length], dtype: 'f32', data: Float32Array.from(data) };
  };
  const count = (data: number): HostTensor => {
    return { shape: [], dtype: 'f64', data: Float64Array.of(data) };
  };
  const a = new Map([
    ['a', f32(1)],
    ['b', f32(1, 2)],
    ['c', f32(1)],
    ['d', f32(1)],
    ['n', count(1)],
  ]);
  const b = new Map([
    ['a', f32(1)],
    ['b', f32(1, 3)],
    ['c', f32(1, 1)],
    ['n', count(1 + 2 ** -40)],
  ]);
  expect(compareStates(a, b)).toEqual([
    { name: 'b', values: expect.objectContaining({ count: 1, index: 1 }) },
    { name: 'c', reason: 'shapes [1] and [2]' },
    { name: 'd', reason: 'only the first has it' },
    { name: 'n', reason: '1 and 1.0000000000009095' },
  ]);
});
