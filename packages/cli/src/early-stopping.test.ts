import { expect, test } from 'vitest';
import { isOver, validated } from './early-stopping.ts';

const values = [0.1, 0.3, Number.NaN, 0.3, 0.2, 0.4];
const after = (count: number, patience = 3) =>
  values
    .slice(0, count)
    .reduce((before, value, i) => validated(before, 10 * (i + 1), value), { unimproved: 0, patience });

test('the best validation is the first of the highest; equal ones and NaN count as misses', () => {
  expect(after(1)).toEqual({ best: { step: 10, value: 0.1 }, unimproved: 0, patience: 3 });
  expect(after(5)).toEqual({ best: { step: 20, value: 0.3 }, unimproved: 3, patience: 3 });
  expect(after(6)).toEqual({ best: { step: 60, value: 0.4 }, unimproved: 0, patience: 3 });
  expect(validated({ unimproved: 0, patience: 3 }, 10, Number.NaN)).toEqual({ unimproved: 1, patience: 3 });
});

test('training ends after `patience` misses, but not before the least number of epochs', () => {
  const over = (count: number, patience: number, minEpochs = 1): boolean =>
    isOver(after(count, patience), { patience, minEpochs }, count);
  expect([1, 2, 3, 4, 5, 6].filter((count) => over(count, 3))).toEqual([5]);
  expect([1, 2, 3, 4, 5, 6].filter((count) => over(count, 2))).toEqual([4, 5]);
  expect([1, 2, 3, 4, 5, 6].filter((count) => over(count, 0))).toEqual([3, 4, 5]);
  expect([1, 2, 3, 4, 5, 6].filter((count) => over(count, 2, 5))).toEqual([5]);
});
