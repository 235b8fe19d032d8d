import { expect, test } from 'vitest';
import type { Counters } from '../counters.ts';
import { adam, afterValidation, type Plateau } from './index.ts';

/** Learning rates after each validation. */
function rates(values: readonly number[], better: 'higher' | 'lower', plateau: Plateau): number[] {
  const optimizer = adam({ learningRate: 1 });
  let counters: Counters = optimizer.counters();
  return values.map((value) => {
    counters = optimizer.advance(
      afterValidation(JSON.parse(JSON.stringify(counters)), value, better, plateau),
    );
    return optimizer.scalars(counters).learningRate!;
  });
}

// Expected: torch.optim.lr_scheduler.ReduceLROnPlateau of PyTorch 2.13, from a rate of 1.
test('the rate goes down as PyTorch lowers it: on more misses than patience, by more than a threshold, to a least', () => {
  const losses = [
    10,
    9,
    9.0005,
    8.9995,
    9.2,
    8.999,
    9,
    9,
    9,
    9,
    9,
    7,
    7,
    Number.NaN,
    7,
    7,
    7,
    7,
    7,
    7,
    7,
    7,
    7,
  ];
  const expected = [
    1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125, 0.1, 0.1, 0.1,
    0.1, 0.1, 0.1,
  ];
  expect(rates(losses, 'lower', { factor: 0.5, patience: 2, least: 0.1 })).toEqual(expected);
});

test('what is to rise counts as better when it rises by the threshold', () => {
  const values = [0.1, 0.3, Number.NaN, 0.3, 0.2, 0.30002, 0.30005, 0.4, 0.39, 0.38, 0.37, 0.4, 0.4];
  const steps = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4];
  const found = rates(values, 'higher', { factor: 0.1, patience: 1 });
  for (const [i, rate] of found.entries()) expect(rate).toBeCloseTo(10 ** -steps[i]!, 12);
});
