import { checkData, modelFromParams } from '@cohesin/models';
import { expect, test } from 'vitest';
import { TRACKS } from './genome.ts';
import { MOTIFS } from './motifs.ts';
import { RECIPE } from './recipe.ts';

test('the network fits the data, and its first kernel the widest motif', () => {
  const { config, train } = modelFromParams(RECIPE.params);
  const { lengthBp, binBp, sequences } = RECIPE.genome;
  const sizes = { sequenceLengthBp: lengthBp, poolWidthBp: binBp, targetLength: lengthBp / binBp };
  expect(checkData(config, { ...sizes, numTargets: TRACKS.length, cropBp: 0 })).toEqual({ cropBins: 0 });
  const widest = Math.max(...MOTIFS.map(({ pwm }) => pwm.length));
  const { trunk } = RECIPE.params.model as { readonly trunk: readonly { readonly kernel_size: number }[] };
  expect(trunk[0]!.kernel_size).toBeGreaterThan(widest);
  expect(RECIPE.steps % (sequences.train! / train.batchSize)).toBe(0); // whole epochs
});
