import { expect, test } from 'vitest';
import { jensenShannon } from './profile-metrics.ts';

test('profiles that share nothing are log 2 apart, equal ones 0, whatever their totals', () => {
  const nats = jensenShannon([1, 3, 0, 0, 2, 4], [0, 0, 5, 1, 2, 0], { length: 3 });
  expect(nats[0]).toBeCloseTo(Math.LN2, 15);
  const [same] = jensenShannon([1, 2, 3], [10, 20, 30], { length: 3 });
  expect(same).toBeCloseTo(0, 15);
});

test('a profile without counts has no divergence', () => {
  expect(jensenShannon([0, 0], [1, 1], { length: 2 })[0]).toBeNaN();
});

test('sizes that do not fit are refused', () => {
  expect(() => jensenShannon([1, 2, 3], [1, 2], { length: 3 })).toThrow(/3 and 2 values/);
  expect(() => jensenShannon([1, 2, 3], [1, 2, 3], { length: 2 })).toThrow(/both must be \[rows, 2\]/);
});
