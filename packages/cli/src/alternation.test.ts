import { expect, test } from 'vitest';
import { genomeAt } from './alternation.ts';

const counts = (order: readonly number[]): number[] =>
  [0, 1, 2].map((i) => order.filter((x) => x === i).length);

test('in turns, genomes follow each other whatever their sizes', () => {
  const plan = { batchesPerEpoch: [5, 2, 1], seed: 1, alternation: 'turns' } as const;
  expect([0, 1, 2, 3, 4].map((step) => genomeAt(step, plan))).toEqual([0, 1, 2, 0, 1]);
});

test('shuffled, each epoch has every batch of each genome, in another order', () => {
  const plan = { batchesPerEpoch: [5, 2, 1], seed: 1, alternation: 'shuffled' } as const;
  const epoch = (first: number): number[] => Array.from({ length: 8 }, (_, i) => genomeAt(first + i, plan));
  expect(counts(epoch(0))).toEqual([5, 2, 1]);
  expect(counts(epoch(8))).toEqual([5, 2, 1]);
  expect(epoch(0)).not.toEqual(epoch(8));
  expect(epoch(0)).toEqual(epoch(0));
});
