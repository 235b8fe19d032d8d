import { expect, test } from 'vitest';
import { MOTIFS } from './motifs.ts';
import { bestMatch, type Recovery } from './recovery.ts';
import { logo, motifTable, pearsonCurve, sparkline, trackPlots } from './report.ts';

const recovery = (index: number, filter: number): Recovery => {
  const motif = MOTIFS[index]!;
  return { motif, filter, sites: 413, consensus: motif.consensus, ...bestMatch(motif.pwm, motif.pwm) };
};

test('a logo has capitals from one bit, small letters from 0.3 and dots below', () => {
  expect(logo(MOTIFS[0]!.pwm, { colour: false })).toBe('CCGCG·GG·GGCAG');
  expect(logo(MOTIFS[1]!.pwm, { colour: false })).toBe('aGATAa');
});

test('the motif table sets planted above recovered, in columns', () => {
  expect(motifTable([recovery(0, 28), recovery(2, 3)], { colour: false })).toBe(
    [
      'CTCF  planted   CCGCG·GG·GGCAG',
      '      filter 28 CCGCG·GG·GGCAG  r = 1.000, 413 sites, recovered',
      'REB1  planted   TTACCCG',
      '      filter 3  TTACCCG         r = 1.000, 413 sites, recovered',
    ].join('\n'),
  );
  expect(motifTable([{ ...recovery(0, 1), correlation: 0.8499 }], { colour: false })).toContain(
    'not recovered',
  );
});

test('colour is ANSI where asked for and absent otherwise', () => {
  expect(logo(MOTIFS[1]!.pwm, { colour: true })).toContain('\u001b[33mG\u001b[0m');
  expect(logo(MOTIFS[1]!.pwm, { colour: false })).not.toContain('\u001b');
});

test('sparklines span their range, hold constants and mark what is not finite', () => {
  expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7])).toBe('▁▂▃▄▅▆▇█');
  expect(sparkline([0.5, 0.5])).toBe('▁▁');
  expect(sparkline([-1, 0, Number.NaN, 2], { range: [0, 1] })).toBe('▁▁·█');
  expect(pearsonCurve([0.02, 0.5, 0.92])).toBe('Pearson r  ▁▅█  0.020 → 0.920');
  expect(pearsonCurve([])).toBe('Pearson r    NaN → NaN');
});

test('track plots share a scale and average bins into columns', () => {
  const plot = { name: 'ctcf', measured: [0, 0, 8, 8], predicted: [0, 0, 4, 4] };
  const text = trackPlots([plot], { colour: false, columns: 2 });
  expect(text).toBe(['ctcf measured  ▁█', '     predicted ▁▅'].join('\n'));
});
