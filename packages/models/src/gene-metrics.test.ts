import { expect, test } from 'vitest';
import { type Gene, geneCollector } from './gene-metrics.ts';

const BINS = 6;
const GENES: readonly Gene[] = [
  {
    name: 'two exons, one before the bins',
    chrom: 'chr1',
    strand: '+',
    spans: [
      [95, 111],
      [125, 140],
    ],
  },
  { name: 'in two sequences', chrom: 'chr1', strand: '-', spans: [[148, 183]] },
  { name: 'the whole of one', chrom: 'chr2', strand: '+', spans: [[100, 160]] },
  { name: 'within one', chrom: 'chr2', strand: '-', spans: [[131, 159]] },
  { name: 'elsewhere', chrom: 'chr3', strand: '-', spans: [[131, 159]] },
];

/** [bins, 2] of the sequence s. */
const values = (of: (bin: number, s: number) => readonly number[], s: number): number[] =>
  Array.from({ length: BINS }, (_, bin) => of(bin, s)).flat();
const predicted = (s: number): number[] =>
  values((i, k) => [((7 * i + 3 * k) % 11) * 0.5, ((5 * i + k) % 7) * 0.3 + 0.1], s);
const target = (s: number): number[] =>
  values((i, k) => [((4 * i + 5 * k) % 9) * 0.5, ((3 * i + 2 * k) % 5) * 0.7], s);

// Expected: the steps of baskerville's hound_eval_genes.py in NumPy, for tracks + and − of one measurement.
test('genes take their strand, bins of all their exons and sequences, and logarithms as baskerville does', () => {
  const collector = geneCollector(GENES, {
    tracks: 2,
    binBp: 10,
    byStrand: [
      { plus: 0, minus: 1 },
      { plus: 0, minus: 1 },
    ],
  });
  for (const [s, [chrom, startBp]] of (
    [
      ['chr1', 100],
      ['chr1', 160],
      ['chr2', 100],
    ] as const
  ).entries())
    collector.add({ chrom, startBp }, predicted(s), target(s));
  const { genes, pearson, r2, within } = collector.metrics();
  expect(genes).toBe(4);
  for (const track of [0, 1]) {
    expect(pearson.perTrack[track]).toBeCloseTo(0.8161641308556957, 12);
    expect(r2.perTrack[track]).toBeCloseTo(0.05737549565995381, 12);
    expect(within.perTrack[track]).toBeCloseTo(0.09609893504511174, 12);
  }
});

test('genes of no sequence are said to be', () => {
  const collector = geneCollector(GENES, { tracks: 2, binBp: 10 });
  collector.add({ chrom: '1', startBp: 100 }, predicted(0), target(0));
  expect(() => collector.metrics()).toThrow(/no gene lies in the bins of these sequences/);
});
