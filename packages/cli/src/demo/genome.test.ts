import { f16ToF32 } from '@cohesin/io';
import { expect, test } from 'vitest';
import {
  expectedSignal,
  findSites,
  type GenomeOptions,
  poissonQuantile,
  type Site,
  simulateDataset,
  simulateDna,
  simulateExample,
  TRACKS,
} from './genome.ts';
import { MOTIFS } from './motifs.ts';

const OPTIONS: GenomeOptions = { seed: 4, sequences: { train: 3, valid: 2 }, lengthBp: 2048, binBp: 32 };
const codes = (letters: string): Uint8Array => Uint8Array.from(letters, (letter) => 'ACGTN'.indexOf(letter));
const signalAt = (sites: readonly Site[], track: string, centreBp: number): number => {
  const column = TRACKS.findIndex(({ name }) => name === track);
  return expectedSignal(sites, 1024, 32)[Math.floor(centreBp / 32) * TRACKS.length + column]!;
};
const site = (motif: Site['motif'], centreBp: number): Site => ({ motif, centreBp, strength: 1 });

test('a sequence is the same whatever was made before it', () => {
  const all = [...simulateDataset(OPTIONS)];
  expect(all.map(({ split, chrom, startBp }) => [split, chrom, startBp])).toEqual([
    ['train', 'chr1', 0],
    ['train', 'chr1', 2048],
    ['train', 'chr1', 4096],
    ['valid', 'chr2', 0],
    ['valid', 'chr2', 2048],
  ]);
  const backwards = all
    .toReversed()
    .map(({ split, startBp }) => simulateExample(OPTIONS, split, startBp / 2048));
  expect(backwards.toReversed()).toEqual(all);
  expect(new Set(all.map(({ sequence }) => sequence.join())).size).toBe(5);
  expect(simulateExample({ ...OPTIONS, seed: 5 }, 'train', 0).sequence).not.toEqual(all[0]!.sequence);
});

test('sites are found on both strands where the consensus stands, and not where it is broken', () => {
  const text = `${'A'.repeat(20)}TTACCCG${'A'.repeat(20)}CGGGTAA${'A'.repeat(20)}TTATCCG${'N'.repeat(9)}`;
  expect(findSites(codes(text)).map(({ motif, centreBp }) => [motif, centreBp])).toEqual([
    ['REB1', 23],
    ['REB1', 50],
  ]);
  const ctcf = ['CCGCGAGGTGGCAG', 'CCGCGAGGTGGCAT', 'CCGCGAGGTGGCTT'].map((word) => findSites(codes(word)));
  expect(ctcf.map((sites) => sites.map(({ strength }) => strength.toFixed(2)))).toEqual([
    ['1.00'],
    ['0.78'],
    [],
  ]);
});

test.each([
  ['GATA', 'accessibility'],
  ['CTCF', 'ctcf'],
  ['REB1', 'reb1'],
  ['CTCF', 'activity'],
  ['GATA', 'activity'],
] as const)('a %s site raises %s near it and nothing far away', (motif, track) => {
  const sites = [site(motif, 320)];
  const shoulder = motif === 'CTCF' ? 380 : 320;
  expect(signalAt(sites, track, shoulder)).toBeGreaterThan(1);
  expect(signalAt(sites, track, 800)).toBe(0.2);
});

test('CTCF leaves a footprint between its shoulders', () => {
  const sites = [site('CTCF', 336)];
  expect(signalAt(sites, 'ctcf', 336)).toBeLessThan(0.6 * signalAt(sites, 'ctcf', 380));
});

test('GATA sites within 150 bp make each other 2.5 times as high', () => {
  const height = (distanceBp: number): number => {
    const sites = [site('GATA', 300), site('GATA', 300 + distanceBp)];
    return TRACKS[0]!.height(sites[0]!, sites);
  };
  expect(height(150)).toBe(2.5 * height(151));
});

test('REB1 within 100 bp lowers the activity of GATA to a tenth, and not its accessibility', () => {
  const alone = [site('GATA', 300)];
  const near = [...alone, site('REB1', 400)];
  const far = [...alone, site('REB1', 401)];
  const height = (track: number, sites: readonly Site[]): number => TRACKS[track]!.height(sites[0]!, sites);
  expect(height(3, near)).toBeCloseTo(0.1 * height(3, alone), 12);
  expect(height(3, far)).toBe(height(3, alone));
  expect(height(0, near)).toBe(height(0, alone));
});

test('DNA has few CpG, 42 % GC and some sites of every motif in each 10 kb', () => {
  const dna = simulateDna(100_000, 9);
  const gc = dna.filter((code) => code === 1 || code === 2).length / dna.length;
  const cpg = dna.filter((code, i) => code === 1 && dna[i + 1] === 2).length / dna.length;
  expect(Math.abs(gc - 0.425)).toBeLessThan(0.01);
  expect(cpg).toBeLessThan(0.5 * (gc / 2) ** 2);
  const sites = findSites(dna);
  for (const { name } of MOTIFS) {
    const perTenKb = sites.filter(({ motif }) => motif === name).length / 10;
    expect(perTenKb).toBeGreaterThan(5);
    expect(perTenKb).toBeLessThan(50);
  }
});

test('targets are finite f16, none below 0, with means near 1', () => {
  const options = { ...OPTIONS, sequences: { train: 32 } };
  const values = [...simulateDataset(options)].flatMap(({ targets }) => [
    ...f16ToF32(targets.data as Uint16Array),
  ]);
  expect(values.every((value) => Number.isFinite(value) && value >= 0 && value < 100)).toBe(true);
  for (const track of TRACKS.keys()) {
    const own = values.filter((_, i) => i % TRACKS.length === track);
    const mean = own.reduce((a, b) => a + b, 0) / own.length;
    expect(mean).toBeGreaterThan(0.4);
    expect(mean).toBeLessThan(2);
  }
});

test('Poisson quantiles are those of the distribution function', () => {
  expect([0, 0.13, 0.14, 0.4, 0.41, 0.67, 0.68].map((at) => poissonQuantile(2, at))).toEqual([
    0, 0, 1, 1, 2, 2, 3,
  ]);
  expect(poissonQuantile(0, 0.999)).toBe(0);
  expect(poissonQuantile(100, 1 - 2 ** -32)).toBeLessThan(200);
});

test('a length that is not whole bins is refused', () => {
  expect(() => simulateExample({ ...OPTIONS, lengthBp: 2000 }, 'train', 0)).toThrow(
    '2000 bp are not whole bins of 32 bp',
  );
});
