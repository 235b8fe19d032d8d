import fc from 'fast-check';
import { expect, test } from 'vitest';
import { vectorMemory, wideAdder } from './add-wide.ts';

const ROOM = 512; // bytes of each operand

test('sums of 64-bit integers are those of BigInt, also odd numbers of them, negative ones, and where they overflow', () => {
  const memory = vectorMemory(3 * ROOM);
  const add = wideAdder(memory);
  const at = (bytes: number): BigInt64Array => new BigInt64Array(memory.buffer, bytes, ROOM / 8);
  const pairs = fc.array(
    fc.tuple(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n)),
    {
      maxLength: ROOM / 8 - 1,
    },
  );
  fc.assert(
    fc.property(pairs, fc.boolean(), (words, swapped) => {
      const [total, part] = swapped ? [ROOM, 0] : [0, ROOM];
      at(0).fill(7n);
      at(ROOM).fill(7n);
      at(2 * ROOM).fill(7n);
      for (const [i, [a, b]] of words.entries()) [at(total)[i], at(part)[i]] = [a, b];
      add(total, part, words.length);
      const sums = words.map(([a, b]) => BigInt.asIntN(64, a + b));
      expect([...at(total).subarray(0, words.length)]).toEqual(sums);
      expect([...at(part).subarray(0, words.length)]).toEqual(words.map(([, b]) => b));
      const pad = words.length % 2;
      expect(
        at(total)
          .subarray(words.length + pad)
          .every((word) => word === 7n),
      ).toBe(true);
      expect(at(2 * ROOM).every((word) => word === 7n)).toBe(true);
    }),
  );
});
