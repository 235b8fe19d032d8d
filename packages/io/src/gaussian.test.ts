import { expect, test } from 'vitest';
import { smoothMap } from './gaussian.ts';

test('a single contact becomes a Gaussian that sums to 1 and reaches 4 deviations', () => {
  const [height, width, deviation] = [23, 19, 2];
  const map = new Float64Array(height * width);
  map[11 * width + 9] = 1;
  const smooth = smoothMap(map, { height, width, deviation });
  expect(smooth.reduce((sum, value) => sum + value)).toBeCloseTo(1, 14);
  const at = (row: number, column: number): number => smooth[row * width + column]!;
  expect(at(13, 9) / at(11, 9)).toBeCloseTo(Math.exp(-4 / 8), 14);
  expect(at(14, 5) / at(11, 9)).toBeCloseTo(Math.exp(-25 / 8), 14);
  expect(at(3, 9)).toBeGreaterThan(0);
  expect(at(2, 9)).toBe(0);
});

test('zeros outside take their share at the edge', () => {
  const smooth = smoothMap(new Float64Array(9 * 9).fill(1), { height: 9, width: 9, deviation: 1 });
  expect(smooth[4 * 9 + 4]).toBeCloseTo(1, 14);
  expect(smooth[0]).toBeLessThan(0.5);
});

test('a map that is not height × width is refused with both counts', () => {
  expect(() => smoothMap([1, 2, 3], { height: 2, width: 2, deviation: 1 })).toThrow('3 values for 2 × 2 = 4');
});
