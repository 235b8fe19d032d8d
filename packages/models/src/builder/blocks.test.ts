/** The blocks of a trunk: shapes, names, penalties, and what is refused. */
import { build, nn, predictStep } from '@cohesin/core';
import { expect, test } from 'vitest';
import { modelFromParams } from './model.ts';
import { outputShape, paramsFile, shapesOf } from './params-file.ts';

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
  const built = modelFromParams(
    paramsFile({ model: { seq_length: 64, trunk: [first, { name, ...options }] } }),
  );
  expect(outputShape(built)).toEqual(shape);
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
  expect(() => modelFromParams(paramsFile({ model: { trunk: [block] } }))).toThrow(message);
});

test('unet_concat puts both tensors side by side and keeps the channels of the longer one', () => {
  const tower = { name: 'conv_tower', filters_init: 6, filters_mult: 1.5, repeat: 2, pool_size: 2 };
  const trunk = [tower, { name: 'unet_concat', kernel_size: 3, dropout: 0.1 }];
  const built = modelFromParams(paramsFile({ model: { seq_length: 64, trunk } }));
  expect(outputShape(built)).toEqual([2, 32, 7]);
  expect(shapesOf(built.model)).toMatchObject({
    'trunk.1.dense.weight': [15, 9],
    'trunk.1.conv.weight': [3, 9, 6],
  });
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
  const built = modelFromParams(paramsFile({ model: { seq_length: 256, trunk: BORZOI } }));
  expect(outputShape(built)).toEqual([2, 64, 7]);
  expect(built.config).toMatchObject({ binBp: 4, cropBp: 0 });
  expect(shapesOf(built.model)).toMatchObject({
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
  expect(Object.keys(shapesOf(built.model))).not.toContain('trunk.4.dense.weight');
});

test('penalties are those of the block, of attention its own, and none of separable kernels or biases', () => {
  const model = { seq_length: 256, l2_scale: 2e-7, trunk: BORZOI };
  const parameters = nn.parameters(modelFromParams(paramsFile({ model })).model);
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
    const built = modelFromParams(paramsFile({ model: { seq_length: 256, trunk: BORZOI, ...model } }));
    nn.parameters(built.model);
    return build(predictStep(built), { inputs: { x: [1, 256, 4] } }).program.shaders.join('\n');
  };
  expect(gelusOf({})).toBe(gelusOf({ gelu: 'gelu_tanh' }));
  expect(gelusOf({})).not.toBe(gelusOf({ gelu: 'gelu_sigmoid' }));
});
