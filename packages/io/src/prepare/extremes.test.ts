import fc from 'fast-check';
import { expect, it } from 'vitest';
import { f16ToF32, f32ToF16 } from '../float16.ts';
import { holdTo, ValueCounts } from './extremes.ts';

const value = fc.float({ min: -1000, max: 1000, noNaN: true });

it('quantiles of counted values are those of the sorted ones', () => {
  fc.assert(
    fc.property(
      fc.array(value, { minLength: 1, maxLength: 60 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (values, q) => {
        const bits = f32ToF16(values);
        const counts = new ValueCounts();
        counts.add(bits.subarray(0, 7));
        counts.add(bits.subarray(7));
        const sorted = f16ToF32(bits).sort();
        const place = q * (sorted.length - 1);
        const [low, high] = [sorted[Math.floor(place)]!, sorted[Math.ceil(place)]!];
        expect(counts.quantile(q)).toBeCloseTo(low + (high - low) * (place % 1), 9);
      },
    ),
  );
});

it('values beyond a limit are held to it on both sides of 0, and counted', () => {
  const bits = f32ToF16([1, -3, 2.5, 7, -0, 2]);
  expect(holdTo(bits, 2.5)).toBe(2);
  expect([...f16ToF32(bits)]).toEqual([1, -2.5, 2.5, 2.5, -0, 2]);
});
