/** Parameter files as published: sizes, and the names and shapes of the weights that go with them. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nn } from '@cohesin/core';
import { describe, expect, test } from 'vitest';
import { borzoi, borzoiParams } from '../borzoi/model.ts';
import { type BuiltModel, modelFromParams } from './model.ts';
import { kerasWeights } from './weights.ts';

const LISTS = resolve(
  process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../../../../shared', import.meta.url)),
  'spec/tensors',
);

/** calico/basenji manuscripts/akita/params.json */
const AKITA = {
  train: {
    batch_size: 2,
    optimizer: 'sgd',
    learning_rate: 0.0065,
    momentum: 0.99575,
    loss: 'mse',
    patience: 12,
    clip_norm: 10,
  },
  model: {
    seq_length: 1_048_576,
    target_length: 512,
    target_crop: 32,
    diagonal_offset: 2,
    augment_rc: true,
    augment_shift: 11,
    activation: 'relu',
    batch_norm: true,
    bn_momentum: 0.9265,
    trunk: [
      { name: 'conv_block', filters: 96, kernel_size: 11, pool_size: 2 },
      { name: 'conv_tower', filters_init: 96, filters_mult: 1, kernel_size: 5, pool_size: 2, repeat: 10 },
      { name: 'dilated_residual', filters: 48, rate_mult: 1.75, repeat: 8, dropout: 0.4 },
      { name: 'conv_block', filters: 64, kernel_size: 5 },
    ],
    head_hic: [
      { name: 'one_to_two', operation: 'mean' },
      { name: 'concat_dist_2d' },
      { name: 'conv_block_2d', filters: 48, kernel_size: 3 },
      { name: 'symmetrize_2d' },
      { name: 'dilated_residual_2d', filters: 24, kernel_size: 3, rate_mult: 1.75, repeat: 6, dropout: 0.1 },
      { name: 'cropping_2d', cropping: 32 },
      { name: 'upper_tri', diagonal_offset: 2 },
      { name: 'final', units: 5, activation: 'linear' },
    ],
  },
};

/** calico/basenji manuscripts/enformer/params_enformer.json, Basenji's own Enformer: Borzoi's training, tower and transformers. */
function basenjiEnformer(): unknown {
  const { train, model } = borzoiParams();
  const { total_weight: _, ...shared } = train;
  const [, tower, transformers] = model.trunk;
  return {
    train: { ...shared, loss: 'poisson' },
    model: {
      ...model,
      seq_length: 196_608,
      trunk: [
        { name: 'conv_dna', filters: 512, kernel_size: 15, pool_size: 2, residual: true },
        { ...tower, num_convs: 2 },
        transformers,
        { name: 'Cropping1D', cropping: 320 },
        { name: 'conv_nac', filters: 2_304, dropout: 0.1 },
      ],
      head_human: { name: 'final', units: 5_313, activation: 'softplus' },
      head_mouse: { name: 'final', units: 1_643, activation: 'softplus' },
    },
  };
}

const trainable = ({ model }: BuiltModel): number =>
  [...nn.parameters(model).values()]
    .filter((parameter) => parameter.trainable)
    .reduce((total, { shape }) => total + shape.reduce((a, b) => a * b, 1), 0);

test('Akita has its published size: 448 bins of 2,048 bp, pairs two or more apart', () => {
  const built = modelFromParams(AKITA);
  expect(trainable(built)).toBe(746_149);
  expect(built.config).toMatchObject({ outputShape: [99_681, 5], binBp: 2_048, cropBp: 65_536 });
});

test('Borzoi has its published size with the human head', () => {
  const built = borzoi();
  expect(trainable(built)).toBe(185_892_699);
  expect(built.config).toMatchObject({ outputShape: [16_352, 7_611], binBp: 32, cropBp: 512 });
  expect(built.train).toMatchObject({ optimizer: 'adam', loss: 'poisson_mn', totalWeight: 0.2 });
});

test("Basenji's Enformer gives 896 bins of 128 bp", () => {
  const { config } = modelFromParams(basenjiEnformer(), { head: 'mouse' });
  expect(config).toMatchObject({ outputShape: [896, 1_643], binBp: 128, cropBp: 40_960 });
});

describe.skipIf(!existsSync(LISTS))('published lists of names and shapes (../shared/spec/tensors)', () => {
  test.each([
    ['akita_keras_h5.tsv', AKITA],
    ['borzoi_pred_human_keras_h5.tsv', borzoiParams()],
  ])('%s is what the model has', async (list, params) => {
    const lines = (await readFile(join(LISTS, list), 'utf8')).split('\n');
    const published = lines.filter((line) => line !== '' && !line.startsWith('#'));
    const { entries } = kerasWeights(modelFromParams(params).model);
    const own = entries.map(({ name, shape, fileShape = shape }) => `${name}\t${fileShape.join('x')}`);
    expect(own.sort()).toEqual(published.sort());
  });
});
