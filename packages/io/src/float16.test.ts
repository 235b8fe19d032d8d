import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { copyF16, f16ToF32, f32ToF16, firstNonFiniteF16 } from './float16.ts';

const ALL = Uint16Array.from({ length: 65_536 }, (_, code) => code);
const isNaN16 = (code: number) => (code & 0x7c00) === 0x7c00 && (code & 0x3ff) !== 0;

describe('half precision', () => {
  it('survives the way to f32 and back, every code', () => {
    const values = f16ToF32(ALL);
    const back = f32ToF16(values);
    const wrong = ALL.filter((code) => (isNaN16(code) ? !Number.isNaN(values[code]) : back[code] !== code));
    expect([...wrong]).toEqual([]);
  });

  it('has the values of IEEE 754', () => {
    const codes = Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x3555, 0x7c00, 0xfc00);
    const expected = [1, -2, 65_504, 2 ** -24, 2 ** -14, 0.333251953125, Infinity, -Infinity];
    expect([...f16ToF32(codes)]).toEqual(expected);
  });

  it('rounds to the nearest code, ties to even', () => {
    const finite = [...f16ToF32(ALL.subarray(0, 0x7c00))];
    fc.assert(
      fc.property(
        fc.nat(0x7bfe),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.boolean(),
        (code, share, negative) => {
          const [low, high] = [finite[code]!, finite[code + 1]!];
          const value = Math.fround(low + (high - low) * share);
          const [below, above] = [value - low, high - value];
          const nearest = below < above || (below === above && code % 2 === 0) ? code : code + 1;
          expect(f32ToF16([negative ? -value : value])[0]).toBe(nearest | (negative ? 0x8000 : 0));
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('overflows to infinity from half a step above 65 504, and keeps NaN', () => {
    const codes = f32ToF16([65_504, 65_519, 65_520, 1e30, -1e30, NaN, 2 ** -25, 2 ** -25 * 1.01]);
    expect([...codes]).toEqual([0x7bff, 0x7bff, 0x7c00, 0x7c00, 0xfc00, 0x7e00, 0, 1]);
    expect(firstNonFiniteF16(codes)).toBe(2);
    expect(firstNonFiniteF16(codes.subarray(0, 2))).toBe(-1);
  });

  it('is copied from any byte to shared memory, every bit, and looked at on the way', () => {
    const finite = ALL.filter((code) => (code & 0x7c00) !== 0x7c00);
    for (const [from, length] of [
      [0, finite.length],
      [1, finite.length - 1],
      [3, 20_001],
      [2, 1],
    ] as const) {
      const written = new Uint8Array(from + 2 * length);
      written.set(new Uint8Array(finite.buffer, 0, 2 * length), from);
      const bytes = written.subarray(from);
      const into = new Uint8Array(new SharedArrayBuffer(2 * length + 2), 0, 2 * length);
      expect(copyF16(bytes, into)).toBe(true);
      expect(Buffer.compare(into, bytes)).toBe(0);
      for (const at of [0, length >> 1, length - 1]) {
        const damaged = bytes.slice();
        damaged[2 * at + 1]! |= 0x7c;
        expect(copyF16(damaged, into)).toBe(false);
      }
    }
  });
});
