/** What a parameter file as a whole gives: its model, sizes, names and heads. */
import { build, nn, predictStep } from '@cohesin/core';
import { expect, test } from 'vitest';
import { type BuilderOptions, checkData, modelFromParams } from './model.ts';
import { outputShape, paramsFile, shapesOf } from './params-file.ts';
import { dilationRates, roundHalfEven, towerFilters } from './rounding.ts';
import { lossOf, optimizerOf } from './training.ts';

test('a file gives a model, its sizes and its training', () => {
  const built = modelFromParams(paramsFile());
  expect(outputShape(built)).toEqual([2, 38, 7]);
  expect(built.config).toMatchObject({
    sequenceLengthBp: 1_536,
    targetLength: 38,
    targets: 7,
    binBp: 32,
    cropBp: 160,
    link: 'softplus',
    augment: { reverseComplement: true, shiftBp: 2 },
  });
  expect(built.train).toMatchObject({
    optimizer: 'adam',
    learningRate: 0.001,
    globalClipNorm: 1,
    clipNorm: undefined,
    loss: 'poisson',
    batchSize: 3,
    patience: 20,
  });
  expect(optimizerOf(built.train).counters()).toMatchObject({ step: 0 });
  expect(lossOf(built.train)).toBe(nn.poissonLoss);
});

test('parameters are called by the place of their block', () => {
  const { model } = modelFromParams(paramsFile());
  expect(shapesOf(model)).toMatchObject({
    'trunk.0.conv.weight': [9, 4, 10],
    'trunk.0.norm.running_var': [10],
    'trunk.1.1.conv.weight': [5, 8, 16], // 10 and 14.1 to the nearest multiple of 4, 2.5 to even
    'trunk.2.2.dilated.conv.weight': [3, 20, 6],
    'trunk.2.2.pointwise.conv.weight': [1, 6, 20],
    'head.0.dense.weight': [20, 7],
    'head.0.dense.bias': [7],
  });
});

test('a residual branch starts as nothing, other norms with scale 1', () => {
  const parameters = nn.parameters(modelFromParams(paramsFile()).model);
  const start = (path: string): number => {
    const { shape, initializer } = parameters.get(path)!;
    return initializer(shape, 1)[0]!;
  };
  expect(start('trunk.2.0.dilated.norm.weight')).toBe(1);
  expect(start('trunk.2.0.pointwise.norm.weight')).toBe(0);
});

test('without a norm convolutions have biases and residual branches a scale', () => {
  const { model } = modelFromParams(paramsFile({ model: { norm_type: null } }));
  const names = Object.keys(shapesOf(model));
  expect(names).toContain('trunk.0.conv.bias');
  expect(names).toContain('trunk.2.0.scale.weight');
  expect(names.filter((name) => name.includes('norm'))).toEqual([]);
});

test('a block overrides what the model sets, also with null', () => {
  const trunk = [
    { name: 'conv_dna', filters: 8, norm_type: null, activation: 'linear', pool_size: 3 },
    { name: 'conv_block', filters: 5, dropout: 0.2 },
  ];
  const built = modelFromParams(paramsFile({ model: { trunk } }));
  expect(shapesOf(built.model)).toMatchObject({
    'trunk.0.conv.weight': [15, 4, 8],
    'trunk.0.conv.bias': [8],
  });
  expect(shapesOf(built.model)).toHaveProperty('trunk.1.norm.weight');
  expect(outputShape(built)).toEqual([2, 512, 7]);
});

test('Basset as a Basenji file has its published size', () => {
  const trunk = [
    { name: 'conv_dna', filters: 288, kernel_size: 17, pool_size: 3 },
    {
      name: 'conv_tower',
      filters_init: 288,
      filters_end: 512,
      divisible_by: 16,
      kernel_size: 5,
      pool_size: 2,
      repeat: 6,
    },
    { name: 'conv_block', filters: 256, kernel_size: 1 },
    { name: 'dense_block', flatten: true, units: 768, dropout: 0.2 },
  ];
  const head_basset = { name: 'final', units: 164, activation: 'sigmoid' };
  const model = { seq_length: 1_344, trunk, head_human: undefined, head_basset };
  const built = modelFromParams(paramsFile({ train: { loss: 'bce' }, model }));
  const trainable = [...nn.parameters(built.model).values()].filter((parameter) => parameter.trainable);
  const count = trainable.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  expect(count).toBe(5_976_516);
  expect(outputShape(built)).toEqual([2, 1, 164]);
  expect(built.config).toMatchObject({ targetLength: 1, binBp: 1_344, cropBp: 0, link: 'sigmoid' });
});

test.each([
  [{ model: { seq_len: 3 } }, /model: unknown option seq_len; known are/],
  [{ model: { activation: undefined } }, /model\.activation: expected one of .*, it is missing/],
  [
    { model: { head_human: null } },
    /model\.head_human: expected an object or a list of objects, it is missing/,
  ],
  [
    { model: { target_length: 40 } },
    /states 40 but its blocks give 38 bins \(48 before cropping\); set target_length: 38/,
  ],
  [
    { model: { target_pool: 64 } },
    /model\.target_pool: the file states 64 but its blocks give 32 bp per bin/,
  ],
  [{ train: { decay: 3 } }, /train: unknown option decay/],
  [
    { train: { loss: 'hinge' } },
    /train\.loss: expected one of poisson, poisson_mn, mse, mse_udot, bce, found "hinge"/,
  ],
  [{ train: { clip_norm: 2 } }, /clip_norm 2 and global_clipnorm 1; state one of them/],
])('a file with %o is refused', (change, message) => {
  expect(() => modelFromParams(paramsFile(change))).toThrow(message);
});

test('the bins before or after cropping may be stated', () => {
  expect(modelFromParams(paramsFile({ model: { target_length: 38 } })).config.targetLength).toBe(38);
  expect(modelFromParams(paramsFile({ model: { target_length: 48 } })).config.targetLength).toBe(38);
});

test('older files state batch_norm and end in a block called dense', () => {
  const head_human = { name: 'dense', units: 7, activation: 'softplus' };
  const model = { norm_type: undefined, batch_norm: true, target_length: 48, head_human };
  const old = modelFromParams(paramsFile({ train: { global_clipnorm: undefined, clipnorm: 2 }, model }));
  expect(Object.keys(shapesOf(old.model))).toEqual(
    Object.keys(shapesOf(modelFromParams(paramsFile()).model)),
  );
  expect(old.train.clipNorm).toBe(2);
});

test('the form of GELU is the sigmoid one unless the file or the caller says otherwise', () => {
  const shadersOf = (params: unknown, options: BuilderOptions = {}): string => {
    const { model } = modelFromParams(params, options);
    nn.parameters(model);
    return build(predictStep({ model }), { inputs: { x: [1, 1_536, 4] } }).program.shaders.join('\n');
  };
  const sigmoidForm = shadersOf(paramsFile());
  expect(shadersOf(paramsFile({ model: { gelu: 'gelu_sigmoid' } }))).toBe(sigmoidForm);
  const tanhForm = shadersOf(paramsFile({ model: { gelu: 'gelu_tanh' } }));
  expect(tanhForm).not.toBe(sigmoidForm);
  expect(shadersOf(paramsFile(), { gelu: 'tanh' })).toBe(tanhForm);
  expect(shadersOf(paramsFile({ model: { activation: 'gelu_tanh' } }))).toBe(tanhForm);
});

test('a head is chosen by name', () => {
  const head_mouse = [
    { name: 'conv_block', filters: 9 },
    { name: 'final', units: 3, activation: 'softplus' },
  ];
  const both = paramsFile({ model: { head_mouse } });
  expect(modelFromParams(both).config.targets).toBe(7);
  expect(modelFromParams(both, { head: 'mouse' }).config.targets).toBe(3);
  expect(() => modelFromParams(both, { head: 'yeast' })).toThrow(
    "no head 'yeast'; it has head_human, head_mouse",
  );
});

test('a data set must fit, and may hold the bins that the model crops', () => {
  const { config } = modelFromParams(paramsFile());
  const data = { sequenceLengthBp: 1_536, targetLength: 38, numTargets: 7, poolWidthBp: 32, cropBp: 160 };
  expect(checkData(config, data)).toEqual({ cropBins: 0 });
  expect(checkData(config, { ...data, targetLength: 48, cropBp: 0 })).toEqual({ cropBins: 5 });
  expect(() => checkData(config, { ...data, poolWidthBp: 128, numTargets: 5 })).toThrow(
    /bp per bin: the model has 32, the data 128; .*\n.*tracks: the model has 7, the data 5/,
  );
  expect(() => checkData(config, { ...data, targetLength: 40 })).toThrow(
    /gives 38 after cropping 160 bp, the data has 40/,
  );
});

test('sizes are rounded as Basenji rounds them', () => {
  expect([0.5, 1.5, 2.5, 2.4, 2.6].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3]);
  expect(towerFilters({ first: 339, multiplier: 1.1776, repeat: 6 })).toEqual([339, 399, 470, 554, 652, 768]);
  expect(dilationRates({ multiplier: 1.5, repeat: 11, round: true })).toEqual([
    1, 2, 3, 4, 6, 9, 14, 21, 32, 48, 72,
  ]);
  expect(dilationRates({ multiplier: 1.75, repeat: 5 })).toEqual([1, 2, 3, 5, 9]);
});
