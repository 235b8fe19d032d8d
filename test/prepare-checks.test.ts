/** What `prepare` finds wrong with its inputs before it writes, and how it ends when it finds something later. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { planPrepare, runPrepare } from '@cohesin/io';
import { writeBigWig } from '@cohesin/io/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TOY_LENGTHS, toyValues, writeToy } from './toy-genome.ts';
import { toyPrepare } from './toy-prepare.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'checks-'));
  writeToy(folder);
});
afterAll(() => rm(folder, { recursive: true }));

const { inToy, track, options, problems } = toyPrepare(() => folder);

describe('prepare', () => {
  it('finds everything wrong before it writes, with numbers and names', async () => {
    const other = { chrI: 6000, chrII: 4000, chrIII: 5000 };
    const one = [{ chrom: 'chrI', start: 0, end: 9, value: 1 }];
    writeBigWig(inToy('assembly.bw'), other, one);
    writeBigWig(inToy('part.bw'), { chrI: 6000 }, one);
    writeBigWig(inToy('human.bw'), { chr7: 159_345_973 }, [{ chrom: 'chr7', start: 0, end: 9, value: 1 }]);
    const tracks = ['assembly', 'part', 'human', 'none'].map((name) => track(name));
    const all = await problems({ tracks });
    expect(all).toContain('prepare: 4 problems; nothing was written');
    expect(all).toContain(
      "assembly.bw: 1 of 3 chromosomes have other lengths, so it is of another assembly: chrII has 4000 bp but the genome's chrII has 4001",
    );
    expect(all).toContain(
      'part.bw: has no data on 2 of 3 chromosomes: chrII, chrIII; choose chromosomes that every track has (chrI)',
    );
    expect(all).toContain(
      "human.bw: has none of the genome's chromosomes: it has chr7; the genome has chrI, chrII, chrIII",
    );
    expect(all).toContain('none.bw: ENOENT');
    expect(await problems({ tracks: [track('part')], absent: 'zero' })).toContain(
      'part.bw: has no data on 2 of 3 chromosomes: chrII, chrIII; they count as 0',
    );
    await writeFile(inToy('outside.bed'), 'chrI\t5\t6001\nchr9\t1\t2\n');
    expect(await problems({ blacklist: inToy('outside.bed') })).toContain(
      'outside.bed: 1 intervals end outside their chromosome, so it is of another assembly: line 1: chrI:5-6001, but chrI has 6000 bp',
    );
    expect(await problems({ split: { kind: 'chromosomes', valid: ['II'], test: ['chrX'] } })).toMatch(
      /valid chromosome II is called chrII .*\n.*test chromosome chrX is no chromosome of .*chrI, chrII, chrIII/,
    );
    expect(await problems({ split: { kind: 'fractions', valid: 0.05, test: 0.05 } })).toContain(
      'no sequences in valid, test',
    );
    expect(await problems({ sequenceLengthBp: 301 })).toContain(
      'leaves 241 bp, which are not whole bins of poolWidthBp 16',
    );
    expect(await problems({ split: { kind: 'chromosomes', valid: ['chrI'], test: ['chrI'] } })).toContain(
      'chrI is in both valid and test',
    );
    await writeFile(
      inToy('overlap.bed'),
      'chrI\t0\t240\ttrain\nchrI\t200\t440\ttest\nchrI\t5900\t6140\ttest\n',
    );
    const overlapping = await problems({ split: { kind: 'sequences', path: inToy('overlap.bed') } });
    expect(overlapping).toContain(
      '1 pairs of sequences of different splits overlap, first chrI:0-240 (train) and chrI:200-440 (test)',
    );
    expect(overlapping).toContain('1 sequences have targets outside their chromosome, first chrI:5900-6140');
    await writeFile(inToy('short.bed'), 'chrI\t2000\t2100\nchrI\t0\t10\n');
    expect(await problems({ limit: inToy('short.bed') })).toContain(
      'no sequences in train, valid, test (sequences: none at all; 0 dropped as unmappable)',
    );
  });

  it('leaves nothing behind when a track is damaged after it was looked at', async () => {
    const bytes = await readFile(inToy('a.bw'));
    for (const threads of [0, 2]) {
      await writeFile(inToy('damaged.bw'), bytes);
      const plan = await planPrepare(options({ tracks: [track('damaged')] }));
      await writeFile(inToy('damaged.bw'), Buffer.from(bytes).fill(0xff, 3000, 3050));
      await expect(runPrepare(inToy('never'), plan, { threads })).rejects.toThrow(
        /damaged\.bw: chr.*damaged data/,
      );
      await plan.close();
    }
    expect((await readdir(folder)).filter((name) => name.startsWith('never'))).toEqual([]);
  });
});

describe('a first look at tracks', () => {
  const one = (name: string, more = {}) => ({ tracks: [track(name, more)] });

  it('finds tracks without values, on all or some of the chromosomes, by their zoom levels', async () => {
    writeBigWig(inToy('empty.bw'), TOY_LENGTHS, []);
    const text = 'empty.bw: has no value on any of the 3 chromosomes used';
    expect(await problems(one('empty'))).toContain(`${text}; leave it out, or let it count as zeros`);
    expect(await problems({ ...one('empty'), absent: 'zero' })).toContain(`${text}; it counts as 0`);
    const values = toyValues(5, TOY_LENGTHS);
    writeBigWig(
      inToy('some.bw'),
      TOY_LENGTHS,
      values.filter(({ chrom }) => chrom === 'chrII'),
      { zoom: true },
    );
    expect(await problems(one('some'))).toMatch(
      /^[^\n]*some\.bw: has no value on 2 of 3 chromosomes used: chrI, chrIII; they count as 0$/,
    );
    expect(
      await problems({
        ...one('some'),
        chromosomes: ['chrI', 'chrIII'],
        split: { kind: 'chromosomes', valid: [], test: ['chrIII'] },
      }),
    ).toContain('some.bw: has no value on any of the 2 chromosomes used');
    writeBigWig(inToy('sound.bw'), TOY_LENGTHS, values, { zoom: true });
    expect(await problems(one('sound'))).toBe('none');
  });

  it('finds tracks without zoom levels that have no values where sequences are, or one value everywhere', async () => {
    writeBigWig(inToy('far.bw'), TOY_LENGTHS, [{ chrom: 'chrI', start: 5990, end: 5999, value: 1 }]);
    expect(await problems(one('far'))).toContain('far.bw: has no value in the 8 sequences looked at');
    const all = (value: number) =>
      Object.entries(TOY_LENGTHS).map(([chrom, end]) => ({ chrom, start: 0, end, value }));
    writeBigWig(inToy('zero.bw'), TOY_LENGTHS, all(0));
    expect(await problems(one('zero'))).toMatch(
      /zero\.bw: is 0 everywhere \(15001 bp\)\n.*zero\.bw: every target is 0 in the 8 sequences looked at/,
    );
    writeBigWig(inToy('two.bw'), TOY_LENGTHS, all(2));
    expect(await problems(one('two'))).toContain('two.bw: every target is 2 in the 8 sequences looked at');
  });

  it('finds values that are no numbers', async () => {
    const values = toyValues(5, TOY_LENGTHS);
    const odd = (value: number) => values.map((own, i) => (i === 40 ? { ...own, value } : own));
    writeBigWig(inToy('nan.bw'), TOY_LENGTHS, odd(Number.NaN));
    expect(await problems(one('nan'))).toContain('nan.bw: some of its values are NaN; they count as missing');
    writeBigWig(inToy('inf.bw'), TOY_LENGTHS, odd(Number.POSITIVE_INFINITY));
    expect(await problems(one('inf'))).toMatch(
      /inf\.bw: some of its values are infinite \(0\.\S+ to Infinity\)/,
    );
  });

  it('finds, in a sample of each track, what would end the run', async () => {
    const bytes = await readFile(inToy('a.bw'));
    bytes.fill(0xff, 700, 3500);
    await writeFile(inToy('early.bw'), bytes);
    writeBigWig(inToy('minus.bw'), TOY_LENGTHS, [{ chrom: 'chrI', start: 0, end: 6000, value: -2 }]);
    const found = await problems({ tracks: [track('early'), track('minus', { statistic: 'mean_sqrt' })] });
    expect(found).toMatch(/2 problems; nothing was written:\n.*early\.bw: chr.*damaged data/);
    expect(found).toMatch(/minus\.bw: chrI:\d+-\d+ has no mean_sqrt: a root of a negative sum/);
  });
});

it('lists of sequences that leave no memory for targets are refused', async () => {
  expect(await problems({ memoryBytes: 200 })).toMatch(
    /the lists of sequences and places take 0\.000240 MiB, but memoryBytes leaves 0\.000191 for them; give more memory/,
  );
});
