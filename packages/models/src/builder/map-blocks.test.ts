/** Contact maps: from a sequence of bins to the pairs of their upper triangle. */
import { expect, test } from 'vitest';
import { checkData, modelFromParams } from './model.ts';
import { outputShape, paramsFile, shapesOf } from './params-file.ts';

/** An Akita as published but for its sizes. */
const CONTACTS = {
  seq_length: 256,
  target_length: 32,
  target_crop: 3,
  diagonal_offset: 2,
  activation: 'relu',
  norm_type: undefined,
  batch_norm: true,
  trunk: [{ name: 'conv_tower', filters_init: 6, filters_mult: 1, kernel_size: 5, pool_size: 2, repeat: 3 }],
  head_human: [
    { name: 'one_to_two', operation: 'mean' },
    { name: 'concat_dist_2d' },
    { name: 'conv_block_2d', filters: 5, kernel_size: 3 },
    { name: 'symmetrize_2d' },
    { name: 'dilated_residual_2d', filters: 4, kernel_size: 3, rate_mult: 1.75, repeat: 2, dropout: 0.1 },
    { name: 'cropping_2d', cropping: 3 },
    { name: 'upper_tri', diagonal_offset: 2 },
    { name: 'final', units: 7, activation: 'linear' },
  ],
};

test('contact maps end as the pairs of their upper triangle', () => {
  const built = modelFromParams(paramsFile({ model: CONTACTS }));
  const pairs = (24 * 25) / 2; // 26 bins, without the first two diagonals
  expect(outputShape(built)).toEqual([2, pairs, 7]);
  expect(built.config).toMatchObject({ targetLength: pairs, binBp: 8, cropBp: 24, link: 'linear' });
  expect(built.config.triangle).toEqual({ length: 26, offset: 2 });
  expect(shapesOf(built.model)).toMatchObject({
    'head.2.conv2d.weight': [3, 3, 7, 5],
    'head.4.1.dilated.conv2d.weight': [3, 3, 5, 4],
    'head.4.1.pointwise.norm.weight': [5],
    'head.7.dense.weight': [5, 7],
  });
});

test.each([
  [{ name: 'conv_block_2d' }, /'conv_block_2d' takes a map of pairs, but a sequence of bins comes in/],
  [[{ name: 'one_to_two' }, { name: 'conv_block' }], /'conv_block' takes a sequence of bins, but a map/],
  [
    [{ name: 'one_to_two' }, { name: 'cropping_2d', cropping: 16 }],
    /16 bins on every side are more than the 32/,
  ],
  [
    [{ name: 'one_to_two' }, { name: 'upper_tri', diagonal_offset: 32 }],
    /no pair of 32 bins is 32 bins apart/,
  ],
  [[{ name: 'one_to_two' }, { name: 'conv_block_2d', pool_size: 3 }], /3 does not divide the 32 bins/],
])('a head %o is refused', (head_human, message) => {
  expect(() => modelFromParams(paramsFile({ model: { ...CONTACTS, head_human } }))).toThrow(message);
});

test('what a file states of its map must be so', () => {
  const stated = (change: object): unknown => paramsFile({ model: { ...CONTACTS, ...change } });
  expect(modelFromParams(stated({ target_length: 26 })).config.triangle?.length).toBe(26);
  expect(() => modelFromParams(stated({ target_length: 30 }))).toThrow(
    /states 30 but its blocks give 26 bins/,
  );
  expect(() => modelFromParams(stated({ target_crop: 2 }))).toThrow(/states 2 but its blocks give 3/);
  expect(() => modelFromParams(stated({ diagonal_offset: 1 }))).toThrow(/states 1 but its blocks give 2/);
});

test('a data set of maps must have the crop and the diagonals of the model', () => {
  const { config } = modelFromParams(paramsFile({ model: CONTACTS }));
  const sizes = { sequenceLengthBp: 256, targetLength: 300, numTargets: 7, poolWidthBp: 8, cropBp: 24 };
  const data = { ...sizes, diagonalOffset: 2 };
  expect(checkData(config, data)).toEqual({ cropBins: 0 });
  expect(() => checkData(config, sizes)).toThrow(/diagonals left out: the model has 2, the data no map/);
  expect(() => checkData(config, { ...data, targetLength: 304, cropBp: 8 })).toThrow(
    /pairs of bins: the model gives 300 after cropping 24 bp, the data has 304 after 8 bp; .* cropping_2d/,
  );
});
