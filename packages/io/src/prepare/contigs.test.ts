import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Interval, unite, within, without } from '../intervals.ts';
import { divide, findContigs } from './contigs.ts';
import {
  type Core,
  type Cores,
  CutCores,
  filterCores,
  ListedCores,
  splitOverlaps,
  uniqueCores,
} from './cores.ts';
import { unmappableBins } from './sequences.ts';

const at = (chrom: string, startBp: number, endBp: number): Interval => ({ chrom, startBp, endBp });
const length = ({ startBp, endBp }: Interval): number => endBp - startBp;

const listed = (cores: readonly Core[]): Cores => ({
  ...{ length: cores.length, bytesEach: 0, at: (i: number) => cores[i]! },
  [Symbol.iterator]: () => cores[Symbol.iterator](),
});

const intervals = fc.array(
  fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 20 })).map(([start, size]) => at('c', start, start + size)),
  { maxLength: 8 },
);

it('what a set covers of an interval and what it does not make up the interval', () => {
  fc.assert(
    fc.property(intervals, fc.nat(60), fc.nat(30), (rows, start, size) => {
      const [set, whole] = [unite(rows), at('c', start, start + size)];
      const covered = (bp: number): boolean => rows.some(({ startBp, endBp }) => startBp <= bp && bp < endBp);
      const [inside, outside] = [within(set, whole), without(set, whole)];
      for (let bp = whole.startBp; bp < whole.endBp; bp++) {
        expect(inside.filter(([from, to]) => from <= bp && bp < to).length).toBe(covered(bp) ? 1 : 0);
        expect(outside.filter(([from, to]) => from <= bp && bp < to).length).toBe(covered(bp) ? 0 : 1);
      }
      expect(
        [...inside, ...outside].every(([from, to]) => from < to && from >= start && to <= start + size),
      ).toBe(true);
    }),
  );
});

it('contigs avoid gaps, stay in the limit, and are halved until none is too long', () => {
  const chromosomes = new Map([
    ['chr1', 1000],
    ['chr2', 100],
  ]);
  const gaps = unite([at('chr1', 300, 310), at('chr1', 305, 320), at('chr2', 0, 60)]);
  expect(findContigs(chromosomes, { leastBp: 50, breakAboveBp: 400, gaps })).toEqual([
    at('chr1', 0, 300),
    at('chr1', 320, 660),
    at('chr1', 660, 1000),
  ]);
  const limit = unite([at('chr1', 250, 500)]);
  expect(findContigs(chromosomes, { leastBp: 50, breakAboveBp: 1000, gaps, limit })).toEqual([
    at('chr1', 250, 300),
    at('chr1', 320, 500),
  ]);
});

it.each([
  [{ kind: 'fractions', valid: 0.2, test: 0.1 } as const],
  [{ kind: 'folds', folds: 4 } as const],
  [{ kind: 'chromosomes', valid: ['chr0', 'chr1'], test: ['chr2'] } as const],
])('%o: every base of a contig is in one split, neighbours joined', (division) => {
  const chromosomes = new Map(Array.from({ length: 10 }, (_, i) => [`chr${i}`, 6400]));
  const contigs = findContigs(chromosomes, { leastBp: 50, breakAboveBp: 100 });
  let seed = 1;
  const draw = (): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const divided = divide(contigs, division, draw);
  expect(splitOverlaps(listed(divided))).toEqual({ pairs: 0 });
  const total = (split: string): number =>
    divided.filter((c) => c.split === split).reduce((sum, c) => sum + length(c), 0);
  expect(divided.reduce((sum, contig) => sum + length(contig), 0)).toBe(64_000);
  const ends = new Set(divided.map(({ chrom, endBp, split }) => `${chrom} ${endBp} ${split}`));
  expect(divided.filter(({ chrom, startBp, split }) => ends.has(`${chrom} ${startBp} ${split}`))).toEqual([]);
  const shares: Record<string, number[]> = {
    fractions: [total('valid') / 64_000 - 0.2, total('test') / 64_000 - 0.1],
    folds: [0, 1, 2, 3].map((fold) => total(`fold${fold}`) / 64_000 - 0.25),
    chromosomes: [total('valid') / 64_000 - 0.2, total('test') / 64_000 - 0.1],
  };
  expect(Math.max(...shares[division.kind]!.map(Math.abs))).toBeLessThan(0.03);
});

it('sequences start at snapped strides and fit their contig', () => {
  const contig = { ...at('c', 13, 100), split: 'train' };
  const cut = (snapBp: number) =>
    [...new CutCores([contig], { coreBp: 20, strideBp: () => 30, snapBp })].map(({ startBp, endBp }) => [
      startBp,
      endBp,
    ]);
  expect(cut(1)).toEqual([
    [13, 33],
    [43, 63],
    [73, 93],
  ]);
  expect(cut(10)).toEqual([
    [20, 40],
    [50, 70],
    [80, 100],
  ]);
});

it('places along contigs are those that plain loops give, and none is held', () => {
  const contigs = [
    { ...at('a', 3, 50), split: 'train' },
    { ...at('b', 0, 19), split: 'train' }, // too short
    { ...at('c', 7, 95), split: 'test' },
    { ...at('d', 10, 30), split: 'train' },
  ];
  const strideBp = (split: string): number => (split === 'train' ? 10 : 25);
  const cut = new CutCores(contigs, { coreBp: 20, strideBp, snapBp: 5 });
  const expected = contigs.flatMap(({ chrom, startBp, endBp, split }) => {
    const cores: Core[] = [];
    for (let start = 5 * Math.ceil(startBp / 5); start + 20 <= endBp; start += strideBp(split))
      cores.push({ ...at(chrom, start, start + 20), split });
    return cores;
  });
  expect(expected.length).toBe(7);
  expect([...cut]).toEqual(expected);
  expect(cut.bytesEach).toBe(0);
  const late = filterCores(cut, ({ startBp }) => startBp >= 20);
  expect([...late]).toEqual(expected.filter(({ startBp }) => startBp >= 20));
});

it('of places that come twice the first is kept', () => {
  const cores = new ListedCores(10);
  for (const [chrom, start] of [
    ['b', 7],
    ['a', 3],
    ['b', 7],
    ['a', 7],
    ['a', 3],
  ] as const)
    cores.add(chrom, start, 'train');
  expect([...uniqueCores(cores)].map(({ chrom, startBp }) => `${chrom}${startBp}`)).toEqual([
    'b7',
    'a3',
    'a7',
  ]);
});

it('bins are unmappable but for an edge in less than a tenth of a bin', () => {
  const core = { ...at('c', 1000, 1400), split: 'train' };
  const bins = (...spans: [number, number][]): string =>
    unmappableBins(core, unite(spans.map(([start, end]) => at('c', start, end))), 100).join('');
  expect(bins([1100, 1200])).toBe('0100');
  expect(bins([1195, 1305])).toBe('0010');
  expect(bins([1190, 1310])).toBe('0111');
  expect(bins([900, 1011], [1385, 1500])).toBe('1001');
  expect(bins([1195, 1198])).toBe('0000');
});

it('overlaps between splits are counted, within a split they are not', () => {
  const cores = [
    { ...at('a', 0, 100), split: 'train' },
    { ...at('a', 50, 150), split: 'train' },
    { ...at('a', 120, 220), split: 'test' },
    { ...at('b', 0, 100), split: 'test' },
  ];
  expect(splitOverlaps(listed(cores))).toEqual({ pairs: 1, first: [cores[1], cores[2]] });
  expect(splitOverlaps(listed(cores.slice(2)))).toEqual({ pairs: 0 });
});
