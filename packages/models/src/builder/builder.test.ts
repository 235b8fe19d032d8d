import { build, input, nn, predictStep, trainStep } from '@cohesin/core';
import { interpret } from '@cohesin/core/testing';
import { expect, test } from 'vitest';
import { type BuilderOptions, type BuiltModel, checkData, modelFromParams } from './model.ts';
import { dilationRates, roundHalfEven, towerFilters } from './rounding.ts';
import { lossOf, optimizerOf } from './training.ts';

interface Json {
  readonly train?: Readonly<Record<string, unknown>>;
  readonly model?: Readonly<Record<string, unknown>>;
}

/** A small file with one of each kind of block; both parts can be changed. */
function file({ train = {}, model = {} }: Json = {}): unknown {
  return {
    train: { optimizer: 'adam', learning_rate: 0.001, global_clipnorm: 1, batch_size: 3, ...train },
    model: {
      seq_length: 1_536,
      augment_rc: true,
      augment_shift: 2,
      activation: 'gelu',
      norm_type: 'batch',
      bn_momentum: 0.9,
      trunk: [
        { name: 'conv_block', filters: 10, kernel_size: 9, pool_size: 4 },
        {
          name: 'conv_tower',
          filters_init: 10,
          filters_end: 20,
          divisible_by: 4,
          kernel_size: 5,
          pool_size: 2,
          repeat: 3,
        },
        { name: 'dilated_residual', filters: 6, rate_mult: 2, repeat: 3, dropout: 0.1 },
        { name: 'Cropping1D', cropping: 5 },
      ],
      head_human: { name: 'final', units: 7, activation: 'softplus' },
      ...model,
    },
  };
}

function outputShape({ model, config }: BuiltModel, batch = 2): readonly number[] {
  nn.parameters(model); // names them
  const { program } = build(predictStep({ model }), { inputs: { x: [batch, config.sequenceLengthBp, 4] } });
  return program.outputs.find(({ name }) => name === 'prediction')!.shape;
}

const shapes = (model: nn.AnyLayer): Record<string, readonly number[]> =>
  Object.fromEntries([...nn.parameters(model)].map(([path, { shape }]) => [path, shape]));

test('a file gives a model, its sizes and its training', () => {
  const built = modelFromParams(file());
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
  const { model } = modelFromParams(file());
  expect(shapes(model)).toMatchObject({
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
  const parameters = nn.parameters(modelFromParams(file()).model);
  const start = (path: string): number => {
    const { shape, initializer } = parameters.get(path)!;
    return initializer(shape, 1)[0]!;
  };
  expect(start('trunk.2.0.dilated.norm.weight')).toBe(1);
  expect(start('trunk.2.0.pointwise.norm.weight')).toBe(0);
});

test('without a norm convolutions have biases and residual branches a scale', () => {
  const { model } = modelFromParams(file({ model: { norm_type: null } }));
  const names = Object.keys(shapes(model));
  expect(names).toContain('trunk.0.conv.bias');
  expect(names).toContain('trunk.2.0.scale.weight');
  expect(names.filter((name) => name.includes('norm'))).toEqual([]);
});

test('a block overrides what the model sets, also with null', () => {
  const trunk = [
    { name: 'conv_dna', filters: 8, norm_type: null, activation: 'linear', pool_size: 3 },
    { name: 'conv_block', filters: 5, dropout: 0.2 },
  ];
  const built = modelFromParams(file({ model: { trunk } }));
  expect(shapes(built.model)).toMatchObject({ 'trunk.0.conv.weight': [15, 4, 8], 'trunk.0.conv.bias': [8] });
  expect(shapes(built.model)).toHaveProperty('trunk.1.norm.weight');
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
  const built = modelFromParams(file({ train: { loss: 'bce' }, model }));
  const trainable = [...nn.parameters(built.model).values()].filter((parameter) => parameter.trainable);
  const count = trainable.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  expect(count).toBe(5_976_516);
  expect(outputShape(built)).toEqual([2, 1, 164]);
  expect(built.config).toMatchObject({ targetLength: 1, binBp: 1_344, cropBp: 0, link: 'sigmoid' });
});

/** A Borzoi in small: tower, transformers, back up by two steps. */
const BORZOI = [
  { name: 'conv_dna', filters: 8, norm_type: null, activation: 'linear', pool_size: 2 },
  {
    name: 'res_tower',
    filters_init: 10,
    filters_end: 16,
    divisible_by: 2,
    kernel_size: 5,
    num_convs: 1,
    repeat: 3,
  },
  { name: 'transformer_tower', key_size: 6, heads: 2, num_position_features: 8, mha_l2_scale: 5e-8 },
  { name: 'unet_conv', kernel_size: 3, upsample_conv: true },
  { name: 'unet_conv', kernel_size: 3 },
  { name: 'conv_nac', filters: 24 },
];

test('a U-net comes back to what went into the pools, from the nearest length up', () => {
  const built = modelFromParams(file({ model: { seq_length: 256, trunk: BORZOI } }));
  expect(outputShape(built)).toEqual([2, 64, 7]);
  expect(built.config).toMatchObject({ binBp: 4, cropBp: 0 });
  expect(shapes(built.model)).toMatchObject({
    'trunk.1.2.stage.first.conv.weight': [5, 12, 16],
    'trunk.2.1.attend.attention.query.weight': [16, 12],
    'trunk.2.1.attend.attention.relative_key.weight': [8, 12],
    'trunk.2.1.dense_half.dense_out.weight': [32, 16],
    'trunk.3.dense.weight': [16, 16],
    'trunk.3.skip_dense.weight': [16, 16],
    'trunk.4.skip_norm.weight': [12],
    'trunk.4.skip_dense.weight': [12, 16],
    'trunk.4.separable.depthwise.weight': [3, 1, 16],
    'trunk.5.norm.weight': [16],
    'trunk.5.conv.bias': [24],
  });
  expect(Object.keys(shapes(built.model))).not.toContain('trunk.4.dense.weight');
});

test('penalties are those of the block, of attention its own, and none of separable kernels or biases', () => {
  const model = { seq_length: 256, l2_scale: 2e-7, trunk: BORZOI };
  const parameters = nn.parameters(modelFromParams(file({ model })).model);
  const penalised = Object.fromEntries([...parameters].map(([path, { l2 }]) => [path, l2]));
  expect(penalised).toMatchObject({
    'trunk.0.conv.weight': 2e-7,
    'trunk.0.conv.bias': 0,
    'trunk.2.0.attend.attention.key.weight': 5e-8,
    'trunk.2.0.attend.attention.r_w_bias': 0,
    'trunk.2.0.dense_half.dense.weight': 2e-7,
    'trunk.3.separable.pointwise.weight': 0,
    'head.0.dense.weight': 2e-7,
  });
});

test('files with a U-net mean the tanh form of GELU, unless they say otherwise', () => {
  const gelusOf = (model: Readonly<Record<string, unknown>>): string => {
    const built = modelFromParams(file({ model: { seq_length: 256, trunk: BORZOI, ...model } }));
    nn.parameters(built.model);
    return build(predictStep(built), { inputs: { x: [1, 256, 4] } }).program.shaders.join('\n');
  };
  expect(gelusOf({})).toBe(gelusOf({ gelu: 'gelu_tanh' }));
  expect(gelusOf({})).not.toBe(gelusOf({ gelu: 'gelu_sigmoid' }));
});

test.each<[string, Readonly<Record<string, unknown>>, readonly number[]]>([
  ['conv_nac', { filters: 5, kernel_size: 3, stride: 2, pool_size: 2 }, [2, 16, 7]],
  ['conv_nac', { kernel_size: 3, residual: true, conv_type: 'separable' }, [2, 64, 7]],
  ['conv_tower_nac', { filters_init: 6, filters_mult: 1.5, repeat: 2, pool_size: 2 }, [2, 16, 7]],
  ['conv_block', { filters: 5, pool_size: 4, pool_type: 'softmax', norm_type: 'layer' }, [2, 16, 7]],
  ['res_tower', { filters_init: 6, filters_end: 9, repeat: 2, kernel_size: 3, dropout: 0.1 }, [2, 16, 7]],
  ['dilated_residual', { filters: 3, repeat: 2, norm_type: 'layer', conv_type: 'separable' }, [2, 64, 7]],
  ['dilated_residual_nac', { filters: 3, repeat: 2 }, [2, 64, 7]],
  ['transformer', { key_size: 3, heads: 2, num_position_features: 4 }, [2, 64, 7]],
  ['transformer_tower', { key_size: 3, heads: 2, dense_expansion: 0 }, [2, 64, 7]],
  ['dense_nac', { units: 5 }, [2, 64, 7]],
  ['conv_dna', { filters: 6, residual: true, dropout_residual: 0.1, pool_size: 2 }, [2, 32, 7]],
  ['dilated_dense', { filters: 3, repeat: 3 }, [2, 64, 7]],
  ['center_slice', { center: 10 }, [2, 10, 7]],
  ['center_average', { center: 10 }, [2, 1, 7]],
])('%s with %o gives %o', (name, options, shape) => {
  const first = { name: 'conv_dna', filters: 4, kernel_size: 3 };
  const built = modelFromParams(file({ model: { seq_length: 64, trunk: [first, { name, ...options }] } }));
  expect(outputShape(built)).toEqual(shape);
});

test('unet_concat puts both tensors side by side and keeps the channels of the longer one', () => {
  const tower = { name: 'conv_tower', filters_init: 6, filters_mult: 1.5, repeat: 2, pool_size: 2 };
  const trunk = [tower, { name: 'unet_concat', kernel_size: 3, dropout: 0.1 }];
  const built = modelFromParams(file({ model: { seq_length: 64, trunk } }));
  expect(outputShape(built)).toEqual([2, 32, 7]);
  expect(shapes(built.model)).toMatchObject({
    'trunk.1.dense.weight': [15, 9],
    'trunk.1.conv.weight': [3, 9, 6],
  });
});

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
  const built = modelFromParams(file({ model: CONTACTS }));
  const pairs = (24 * 25) / 2; // 26 bins, without the first two diagonals
  expect(outputShape(built)).toEqual([2, pairs, 7]);
  expect(built.config).toMatchObject({ targetLength: pairs, binBp: 8, cropBp: 24, link: 'linear' });
  expect(built.config.triangle).toEqual({ length: 26, offset: 2 });
  expect(shapes(built.model)).toMatchObject({
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
  expect(() => modelFromParams(file({ model: { ...CONTACTS, head_human } }))).toThrow(message);
});

test('what a file states of its map must be so', () => {
  const stated = (change: object): unknown => file({ model: { ...CONTACTS, ...change } });
  expect(modelFromParams(stated({ target_length: 26 })).config.triangle?.length).toBe(26);
  expect(() => modelFromParams(stated({ target_length: 30 }))).toThrow(
    /states 30 but its blocks give 26 bins/,
  );
  expect(() => modelFromParams(stated({ target_crop: 2 }))).toThrow(/states 2 but its blocks give 3/);
  expect(() => modelFromParams(stated({ diagonal_offset: 1 }))).toThrow(/states 1 but its blocks give 2/);
});

test('positions that count differently are refused where they have no sense', () => {
  const loss = (weights: object): (() => unknown) => {
    const { train } = modelFromParams(file({ train: { loss: 'poisson_mn', ...weights } }));
    return () => lossOf(train)(input('p', [1, 8, 2]), input('t', [1, 8, 2]));
  };
  expect(loss({ weight_range: 8, weight_exp: 6 })).not.toThrow();
  expect(loss({ weight_range: 0.5 })).toThrow(/the range is 0.5; it must be above 1/);
  expect(loss({ weight_range: 8, weight_exp: 3 })).toThrow(
    /the exponent is 3; it must be an even whole number/,
  );
});

test('a loss that rewards differences between tracks takes their weight from the file', () => {
  const { train } = modelFromParams(file({ train: { loss: 'mse_udot', spec_weight: 2 } }));
  const [p, t] = [input('p', [1, 1, 2]), input('t', [1, 1, 2])];
  const values = new Map([
    [p, { shape: p.shape, data: Float64Array.of(1, 3) }],
    [t, { shape: t.shape, data: Float64Array.of(2, 4) }],
  ]);
  expect(interpret([lossOf(train)(p, t)], values)[0]!.data[0]).toBe(1 - 2 * 1); // squares, less twice the product of ±1
});

test('gradients are clipped by units before they are clipped together', () => {
  const model = nn.linear({ inputs: 2, outputs: 3 });
  const { train } = modelFromParams(file({ train: { agc_clip: 0.1 } }));
  const step = trainStep({ model, loss: nn.mseLoss, optimizer: optimizerOf(train) });
  const { shaders } = build(step, { inputs: { x: [1, 4, 2], y: [1, 4, 3] }, fuse: false }).program;
  const at = (name: string): number => shaders.findIndex((text) => text.includes(name));
  expect(at('adaptiveScale')).toBeGreaterThan(-1);
  expect(shaders.findLastIndex((text) => text.includes('max(sqrt('))).toBeGreaterThan(at('adaptiveScale'));
});

test('a cycle of the learning rate counts epochs, after a warm-up', () => {
  const cycle = {
    initial_learning_rate: 0.1,
    maximal_learning_rate: 0.5,
    final_learning_rate: 0.01,
    train_epochs_cycle1: 2,
  };
  const rates = (more: object, steps: readonly number[]): number[] => {
    const { train } = modelFromParams(file({ train: { ...cycle, ...more } }));
    const optimizer = optimizerOf(train, { stepsPerEpoch: 10 });
    return steps.map((step) => optimizer.scalars({ ...optimizer.counters(), step }).learningRate!);
  };
  const expected = [0.1, 0.3, 0.5, 0.3, 0.1, 0.01];
  for (const [i, rate] of rates({}, [0, 10, 20, 30, 40, 41]).entries())
    expect(rate).toBeCloseTo(expected[i]!, 12);
  expect(rates({ warmup_steps: 5 }, [0, 5, 25])).toEqual([0, 0.1, 0.5]);
  expect(() => modelFromParams(file({ train: { ...cycle, final_learning_rate: null } }))).toThrow(
    /train: final_learning_rate missing; a cycle/,
  );
});

test('a learning rate that validation lowers is read with the names and defaults of PyTorch', () => {
  const plateau = (stated: object) =>
    modelFromParams(file({ train: { learning_rate: 1e-3, reduce_lr_on_plateau: stated } })).train.plateau;
  expect(plateau({})).toEqual({ factor: 0.1, patience: 10, threshold: 1e-4, least: 0 });
  expect(plateau({ factor: 0.5, patience: 5, min_lr: 1e-4 })).toEqual({
    factor: 0.5,
    patience: 5,
    threshold: 1e-4,
    least: 0.1,
  });
  expect(modelFromParams(file({ train: {} })).train.plateau).toBeUndefined();
  expect(() => plateau({ factor: 2 })).toThrow(
    /reduce_lr_on_plateau.factor: expected a number between 0 and 1, found 2/,
  );
  expect(() => plateau({ mode: 'min' })).toThrow(/reduce_lr_on_plateau: unknown option mode/);
});

test.each([
  [
    { name: 'swin_transformer' },
    /model\.trunk\[0\]\.name: 'swin_transformer' is no known block; known are conv_block, conv_dna/,
  ],
  [{ name: 'conv_block', filter: 3 }, /model\.trunk\[0\]: unknown option filter; known are name, .*filters/],
  [
    { name: 'conv_block', filters: 2.5 },
    /model\.trunk\[0\]\.filters: expected a whole number ≥ 1, found 2\.5/,
  ],
  [
    { name: 'conv_block', activation: 'swish' },
    /model\.trunk\[0\]\.activation: expected one of gelu, .*relu/,
  ],
  [{ name: 'conv_block', pool_type: 'mean' }, /model\.trunk\[0\]\.pool_type: expected one of max, softmax/],
  [{ name: 'conv_block', norm_type: 'group' }, /norm_type: expected one of batch, .*layer, found "group"/],
  [{ name: 'conv_block', l1_scale: 1e-6 }, /l1_scale: sums of \|weight\| are not penalised/],
  [{ name: 'conv_block', l2_scale: -1 }, /l2_scale: expected a number ≥ 0, found -1/],
  [{ name: 'unet_conv' }, /model\.trunk\[0\]: comes back to a tensor of 3072 rows, .* give none/],
  [{ name: 'transformer', heads: 3, key_size: 4 }, /heads: 4 channels cannot be dealt to 3 heads/],
  [{ name: 'transformer', key_size: 4, qkv_width: 3 }, /only qkv_width 1/],
  [
    { name: 'conv_nac', conv_type: 'separable', stride: 2 },
    /stride: a separable convolution has stride 1 here, found 2/,
  ],
  [{ name: 'conv_block', padding: 'valid' }, /padding: expected one of same/],
  [
    { name: 'conv_block', filters: 3, residual: true },
    /model\.trunk\[0\]\.residual: 1536 rows of 4 channels become 1536 of 3/,
  ],
  [{ name: 'conv_tower', filters: 3, filters_init: 3, filters_mult: 1 }, /filters: a tower has filters_init/],
  [{ name: 'conv_block', dropout: 1 }, /dropout: expected a number in \[0, 1\), found 1/],
  [{ name: 'Cropping1D', cropping: 768 }, /768 rows at each end are more than the 1536/],
  [{ name: 'Cropping1D', cropping: [2, 3] }, /one number of rows for both ends, found \[2,3\]/],
  [{ filters: 3 }, /model\.trunk\[0\]\.name: expected text, it is missing/],
])('a block %o is refused with its place', (block, message) => {
  expect(() => modelFromParams(file({ model: { trunk: [block] } }))).toThrow(message);
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
  expect(() => modelFromParams(file(change))).toThrow(message);
});

test('the bins before or after cropping may be stated', () => {
  expect(modelFromParams(file({ model: { target_length: 38 } })).config.targetLength).toBe(38);
  expect(modelFromParams(file({ model: { target_length: 48 } })).config.targetLength).toBe(38);
});

test('older files state batch_norm and end in a block called dense', () => {
  const head_human = { name: 'dense', units: 7, activation: 'softplus' };
  const model = { norm_type: undefined, batch_norm: true, target_length: 48, head_human };
  const old = modelFromParams(file({ train: { global_clipnorm: undefined, clipnorm: 2 }, model }));
  expect(Object.keys(shapes(old.model))).toEqual(Object.keys(shapes(modelFromParams(file()).model)));
  expect(old.train.clipNorm).toBe(2);
});

test('the form of GELU is the sigmoid one unless the file or the caller says otherwise', () => {
  const shadersOf = (params: unknown, options: BuilderOptions = {}): string => {
    const { model } = modelFromParams(params, options);
    nn.parameters(model);
    return build(predictStep({ model }), { inputs: { x: [1, 1_536, 4] } }).program.shaders.join('\n');
  };
  const sigmoidForm = shadersOf(file());
  expect(shadersOf(file({ model: { gelu: 'gelu_sigmoid' } }))).toBe(sigmoidForm);
  const tanhForm = shadersOf(file({ model: { gelu: 'gelu_tanh' } }));
  expect(tanhForm).not.toBe(sigmoidForm);
  expect(shadersOf(file(), { gelu: 'tanh' })).toBe(tanhForm);
  expect(shadersOf(file({ model: { activation: 'gelu_tanh' } }))).toBe(tanhForm);
});

test('a head is chosen by name', () => {
  const head_mouse = [
    { name: 'conv_block', filters: 9 },
    { name: 'final', units: 3, activation: 'softplus' },
  ];
  const both = file({ model: { head_mouse } });
  expect(modelFromParams(both).config.targets).toBe(7);
  expect(modelFromParams(both, { head: 'mouse' }).config.targets).toBe(3);
  expect(() => modelFromParams(both, { head: 'yeast' })).toThrow(
    "no head 'yeast'; it has head_human, head_mouse",
  );
});

test('a data set must fit, and may hold the bins that the model crops', () => {
  const { config } = modelFromParams(file());
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

test('a data set of maps must have the crop and the diagonals of the model', () => {
  const { config } = modelFromParams(file({ model: CONTACTS }));
  const sizes = { sequenceLengthBp: 256, targetLength: 300, numTargets: 7, poolWidthBp: 8, cropBp: 24 };
  const data = { ...sizes, diagonalOffset: 2 };
  expect(checkData(config, data)).toEqual({ cropBins: 0 });
  expect(() => checkData(config, sizes)).toThrow(/diagonals left out: the model has 2, the data no map/);
  expect(() => checkData(config, { ...data, targetLength: 304, cropBp: 8 })).toThrow(
    /pairs of bins: the model gives 300 after cropping 24 bp, the data has 304 after 8 bp; .* cropping_2d/,
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
