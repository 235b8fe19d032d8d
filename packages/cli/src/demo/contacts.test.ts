import { f16ToF32 } from '@cohesin/io';
import { expect, test } from 'vitest';
import { expectedContacts, simulateMaps } from './contacts.ts';
import { findSites, type Site, simulateDataset } from './genome.ts';

const site = (motif: Site['motif'], centreBp: number, strength: number): Site => ({
  motif,
  centreBp,
  strength,
});

test('pairs across a CTCF site have fewer contacts than pairs on one side, by its strength; other motifs play no part', () => {
  const [lengthBp, binBp] = [1024, 256]; // bins 0 to 3, middles at 128, 384, 640 and 896
  const pairs = ['0-2', '0-3', '1-3'];
  const contacts = (sites: readonly Site[]) =>
    Object.fromEntries([...expectedContacts(sites, lengthBp, binBp)].map((value, k) => [pairs[k], value]));
  expect(contacts([site('GATA', 200, 1), site('REB1', 700, 1)])).toEqual({ '0-2': 0, '0-3': 0, '1-3': 0 });
  // A site between the middles of bins 0 and 1: a quarter of its strength is expected in each bin.
  expect(contacts([site('CTCF', 200, 0.8)])).toEqual({
    '0-2': expect.closeTo(0.5 * 0.8 * (2 / 4 - 1), 12),
    '0-3': expect.closeTo(0.5 * 0.8 * (3 / 4 - 1), 12),
    '1-3': expect.closeTo(0.5 * 0.8 * (2 / 4), 12),
  });
});

test('maps are of the same DNA as the tracks, with noise of standard deviation 0.2', () => {
  const options = { seed: 3, sequences: { train: 2, test: 1 }, lengthBp: 8192, binBp: 256 };
  const maps = [...simulateMaps(options)];
  const tracks = [...simulateDataset(options)];
  expect(maps.map(({ split, sequence }) => ({ split, sequence }))).toEqual(
    tracks.map(({ split, sequence }) => ({ split, sequence })),
  );
  const noise = maps.flatMap(({ sequence, targets }) => {
    const expected = expectedContacts(findSites(sequence), 8192, 256);
    expect(targets.data).toHaveLength(465);
    return [...f16ToF32(targets.data as Uint16Array)].map((value, k) => value - expected[k]!);
  });
  const mean = noise.reduce((a, b) => a + b, 0) / noise.length;
  const variance = noise.reduce((sum, value) => sum + (value - mean) ** 2, 0) / noise.length;
  expect(Math.abs(mean)).toBeLessThan(0.02);
  expect(Math.sqrt(variance)).toBeCloseTo(0.2, 1);
});
