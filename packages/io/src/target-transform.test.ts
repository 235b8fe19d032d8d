import { expect, test } from 'vitest';
import { poolCoverage, type TargetStep, transformTargets, untransformTargets } from './target-transform.ts';

const STEPS: readonly (readonly [string, readonly TargetStep[]])[] = [
  ['the square root', [{ kind: 'sqrt' }]],
  ['a power', [{ kind: 'power', exponent: 0.75 }]],
  ['a scale', [{ kind: 'scale', factor: 0.3 }]],
  ...(['shifted', 'plain', 'smooth'] as const).map((form): readonly [string, readonly TargetStep[]] => [
    `a ${form} soft clip`,
    [{ kind: 'clipSoft', at: 10, form }],
  ]),
  [
    'several steps',
    [
      { kind: 'power', exponent: 0.75 },
      { kind: 'clipSoft', at: 20, form: 'plain' },
      { kind: 'scale', factor: 2 },
    ],
  ],
];
const VALUES = [0, 0.25, 1, 9.5, 10, 10.5, 384, 40_000];

test.each(STEPS)('%s is undone', (_, steps) => {
  const back = untransformTargets(transformTargets(VALUES, steps), steps);
  VALUES.forEach((value, i) => {
    expect(back[i]).toBeCloseTo(value, 8);
  });
});

test('steps are taken in the order given', () => {
  const clip: TargetStep = { kind: 'clip', at: 32 };
  const scale: TargetStep = { kind: 'scale', factor: 2 };
  expect([...transformTargets([10, 20], [scale, clip])]).toEqual([20, 32]);
  expect([...transformTargets([10, 40], [clip, scale])]).toEqual([20, 64]);
});

test('a soft clip is continuous where it begins, a smooth one in its slope too', () => {
  for (const form of ['shifted', 'plain', 'smooth'] as const) {
    const clip: TargetStep = { kind: 'clipSoft', at: 10, form };
    const [at, above] = transformTargets([10, 10 + 1e-6], [clip]);
    expect(at).toBe(10);
    expect(above).toBeCloseTo(10, 2);
    if (form === 'smooth') expect((above! - at!) / 1e-6).toBeCloseTo(1, 5);
  }
});

test('coverage is pooled to whole bins', () => {
  const coverage = [1, 2, 3, 4, -1, 0];
  expect([...poolCoverage(coverage, { width: 2, statistic: 'sum' })]).toEqual([3, 7, -1]);
  expect([...poolCoverage(coverage, { width: 3, statistic: 'mean' })]).toEqual([2, 1]);
  expect([...poolCoverage(coverage, { width: 2, statistic: 'max' })]).toEqual([2, 4, 0]);
  expect(() => poolCoverage(coverage, { width: 4, statistic: 'sum' })).toThrow(/bins of 4 do not fill 6/);
});
