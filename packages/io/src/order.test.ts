import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { epochOrder } from './order.ts';

const shards = fc.array(fc.nat(9), { maxLength: 9 });
const shuffle = fc.record({ seed: fc.nat(2 ** 31), buffer: fc.integer({ min: 1, max: 40 }) });
const total = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count, 0);
const naturals = (length: number) => Array.from({ length }, (_, i) => i);

describe('the order of an epoch', () => {
  it('holds every record once, read and handed out', () => {
    fc.assert(
      fc.property(shards, fc.nat(1000), shuffle, (counts, epoch, options) => {
        const { arrival, emission } = epochOrder(counts, epoch, options);
        for (const order of [arrival, emission]) {
          expect([...order].sort((a, b) => a - b)).toEqual(naturals(total(counts)));
        }
      }),
    );
  });

  it('never hands out a record before the buffer has taken it', () => {
    fc.assert(
      fc.property(shards, fc.nat(1000), shuffle, (counts, epoch, options) => {
        const { arrival, emission } = epochOrder(counts, epoch, options);
        const arrivedAt = new Map([...arrival].map((id, at) => [id, at]));
        emission.forEach((id, step) => {
          expect(arrivedAt.get(id)).toBeLessThan(step + options.buffer);
        });
      }),
    );
  });

  it('reads each shard from front to back, four at a time', () => {
    const { arrival } = epochOrder([5, 0, 5, 5, 5, 5], 0, { seed: 3, buffer: 1 });
    const ids = [...arrival];
    for (let shard = 0; shard < 5; shard++) {
      const own = ids.filter((id) => Math.floor(id / 5) === shard);
      expect(own).toEqual(own.toSorted((a, b) => a - b));
    }
    expect(new Set(ids.slice(0, 20).map((id) => Math.floor(id / 5))).size).toBe(4);
    expect(new Set(ids.slice(0, 4).map((id) => id % 5))).toEqual(new Set([0]));
  });

  it('is file order without a shuffle, and read order with a buffer of one', () => {
    expect([...epochOrder([2, 0, 3], 5).emission]).toEqual([0, 1, 2, 3, 4]);
    const { arrival, emission } = epochOrder([2, 9, 3], 5, { seed: 1, buffer: 1 });
    expect(emission).toEqual(arrival);
  });

  it('depends on seed and epoch, and on nothing else', () => {
    const counts = [20, 20, 20];
    const order = (seed: number, epoch: number) =>
      [...epochOrder(counts, epoch, { seed, buffer: 16 }).emission].join();
    const all = [order(1, 0), order(1, 1), order(2, 0), order(2 ** 40 + 1, 0)];
    expect(new Set(all).size).toBe(4);
    expect(order(1, 1)).toBe(all[1]);
  });

  it('is this order, so that a run can be resumed by a later version', () => {
    const { emission } = epochOrder([4, 3, 5], 2, { seed: 7, buffer: 4 });
    expect([...emission]).toMatchInlineSnapshot(`
      [
        4,
        7,
        5,
        1,
        6,
        0,
        2,
        9,
        10,
        11,
        8,
        3,
      ]
    `);
  });

  it('puts a record anywhere about equally often when the buffer holds all', () => {
    const counts = new Uint32Array(8);
    for (let epoch = 0; epoch < 4000; epoch++) {
      counts[epochOrder([8], epoch, { seed: 5, buffer: 8 }).emission.indexOf(3)]!++;
    }
    // 500 expected; 4.5 standard deviations of a binomial are 94.
    for (const count of counts) expect(Math.abs(count - 500)).toBeLessThan(94);
  });

  it('refuses a buffer or a seed that makes no sense', () => {
    expect(() => epochOrder([1], 0, { seed: 0, buffer: 0 })).toThrow(/buffer >= 1, found 0 and 0/);
    expect(() => epochOrder([1], 0, { seed: 0.5, buffer: 1 })).toThrow(/integer >= 0/);
  });
});
