import fc from 'fast-check';
import { expect, test } from 'vitest';
import { dealLeaves } from './deal.ts';

test('every leaf of every sequence is dealt once, and each rank has the same order of rounds', () => {
  const cuts = fc.record({
    sequences: fc.integer({ min: 1, max: 6 }),
    parts: fc.integer({ min: 2, max: 8 }),
    ranks: fc.integer({ min: 1, max: 12 }),
    replicas: fc.option(fc.integer({ min: 1, max: 6 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(cuts, ({ sequences, parts, ranks, replicas }) => {
      fc.pre((replicas ?? 1) <= ranks && ranks <= sequences * parts);
      const cut = { leaves: sequences * parts, leavesPerSequence: parts };
      let deal: ReturnType<typeof dealLeaves>;
      try {
        deal = dealLeaves(cut, ranks, replicas);
      } catch (error) {
        // Without `replicas` some number of them fits.
        expect((error as Error).message).toMatch(
          `only ${parts} leaves at a time: ${replicas} ${replicas === 1 ? 'replica' : 'replicas'} would leave some without any`,
        );
        expect(replicas).toBeLessThan(ranks);
        return;
      }
      const dealt = deal.ranks.flatMap((shares) =>
        shares.flatMap(({ round, leaves }) => leaves.map((leaf) => round * parts + leaf)),
      );
      expect(dealt.sort((a, b) => a - b)).toEqual(Array.from({ length: cut.leaves }, (_, i) => i));
      const orders = deal.ranks.map((shares) => shares.map(({ round }) => round));
      for (const one of orders)
        for (const other of orders)
          expect(one.filter((round) => other.includes(round))).toEqual(
            other.filter((round) => one.includes(round)),
          );
      for (const [round, members] of deal.rounds.entries())
        expect(members).toEqual([...orders.keys()].filter((rank) => orders[rank]!.includes(round)));
    }),
  );
});

test('replicas divide ranks into groups with sequences of their own; a sequence between two comes first', () => {
  const text = (sequences: number, ranks: number, replicas?: number): string[] =>
    dealLeaves({ leaves: 4 * sequences, leavesPerSequence: 4 }, ranks, replicas).ranks.map((shares) =>
      shares.map(({ round, leaves }) => `${round}:${leaves.join('')}`).join(' '),
    );
  expect(text(2, 2)).toEqual(['0:01 1:01', '0:23 1:23']);
  expect(text(2, 2, 2)).toEqual(['0:0123', '1:0123']);
  expect(text(2, 4, 2)).toEqual(['0:01', '0:23', '1:01', '1:23']);
  expect(text(3, 2, 2)).toEqual(['1:01 0:0123', '1:23 2:0123']);
  expect(text(2, 8)).toEqual(['0:0', '0:1', '0:2', '0:3', '1:0', '1:1', '1:2', '1:3']);
});

test('a deal that leaves a rank idle, or replicas that cannot be, is refused with what to change', () => {
  const parts = { leaves: 8, leavesPerSequence: 4 };
  expect(() => dealLeaves(parts, 6, 1)).toThrow(
    /6 devices but only 4 leaves at a time: 1 replica would leave some without any; use more replicas, up to 6/,
  );
  expect(() => dealLeaves(parts, 9)).toThrow(/9 devices but only 8 leaves; use at most 8 devices/);
  expect(() => dealLeaves(parts, 4, 5)).toThrow(/replicas is 5 but there are 4 devices; choose .* 1 to 4/);
  expect(() => dealLeaves({ leaves: 8, leavesPerSequence: 1 }, 2, 2)).toThrow(
    /replicas is 2 but sequences are not cut into parts; leave replicas out/,
  );
});
