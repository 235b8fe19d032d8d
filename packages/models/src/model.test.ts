import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, nn, predictStep } from '@cohesin/core';
import { expect, test } from 'vitest';
import { akita } from './akita/model.ts';
import { akitaWeights } from './akita/weights.ts';
import { basenji2, basenjiParams, HUMAN_TRACKS, MOUSE_TRACKS } from './basenji/model.ts';
import { basenjiWeights } from './basenji/weights.ts';
import { basenji1 } from './basenji1/model.ts';
import { basenji1Weights } from './basenji1/weights.ts';
import { basset } from './basset/model.ts';
import { bassetWeights } from './basset/weights.ts';
import { ENFORMER_TRACKS, enformer, enformerFilters } from './enformer/model.ts';
import { enformerTorchWeights } from './enformer/weights.ts';
import { namedModel } from './model.ts';

/** Numbers in a model, running statistics apart. */
function count(model: nn.AnyLayer): { trainable: number; all: number } {
  const total = { trainable: 0, all: 0 };
  for (const { shape, trainable } of nn.parameters(model).values()) {
    const size = shape.reduce((a, b) => a * b, 1);
    total.all += size;
    if (trainable) total.trainable += size;
  }
  return total;
}

function outputShape(model: nn.Layer, x: readonly number[]): readonly number[] {
  nn.parameters(model); // names them
  return build(predictStep({ model }), { inputs: { x } }).program.outputs[0]!.shape;
}

test('Basset has its published number of parameters, with valid and with padded convolutions', () => {
  expect(count(basset({ padding: 'valid' })).trainable).toBe(4_135_064);
  expect(count(basset({ padding: 'same' })).trainable).toBe(4_735_064);
});

test('Basset gives one row of logits per sequence', () => {
  expect(outputShape(basset(), [3, 600, 4])).toEqual([3, 164]);
  expect(outputShape(basset({ padding: 'same', targets: 5 }), [2, 600, 4])).toEqual([2, 5]);
  expect(basset().link).toBe('sigmoid');
});

test('Basset takes any number of layers, and says when a sequence is too short', () => {
  const small = basset({ filters: [5], sizes: [4], pools: [2], hidden: [], targets: 2, lengthBp: 31 });
  expect(outputShape(small, [3, 31, 4])).toEqual([3, 2]);
  expect(() => basset({ lengthBp: 60 })).toThrow(
    /convolution 2 of 7 rows does not fit into the 1 rows left of 60 bp/,
  );
  expect(() => basset({ pools: [3] })).toThrow('3 filters, 3 sizes and 1 pools');
});

test('Basenji2 has its published number of parameters with either head', () => {
  expect(count(basenji2().model)).toEqual({ trainable: 30_088_228, all: 30_123_584 });
  expect(count(basenji2({ targets: MOUSE_TRACKS }).model).trainable).toBe(24_447_438);
});

test('Basenji2 has 896 bins of 128 bp', () => {
  const { model, config, train } = basenji2();
  expect(outputShape(model, [1, 131_072, 4])).toEqual([1, 896, HUMAN_TRACKS]);
  expect(config).toMatchObject({
    targetLength: 896,
    targets: 5_313,
    binBp: 128,
    cropBp: 8_192,
    link: 'softplus',
  });
  expect(train).toMatchObject({
    optimizer: 'sgd',
    learningRate: 0.15,
    momentum: 0.99,
    clipNorm: 2,
    patience: 16,
  });
});

test('Basenji2 has the published names in its Keras file', () => {
  const { entries } = basenjiWeights(basenji2().model);
  const shape = (name: string): readonly number[] | undefined =>
    entries.find(({ name: published }) => published === `model_weights/${name}:0`)?.shape;
  expect(entries).toHaveLength(30 * 5 + 2);
  expect(shape('conv1d/conv1d/kernel')).toEqual([15, 4, 288]);
  expect(shape('conv1d_6/conv1d_6/kernel')).toEqual([5, 652, 768]);
  expect(shape('conv1d_7/conv1d_7/kernel')).toEqual([3, 768, 384]);
  expect(shape('conv1d_28/conv1d_28/kernel')).toEqual([1, 384, 768]);
  expect(shape('batch_normalization_29/batch_normalization_29/moving_variance')).toEqual([1_536]);
  expect(shape('dense/dense/kernel')).toEqual([1_536, 5_313]);
});

test('Basset has the published names of its Torch7 file', () => {
  const names = bassetWeights(basset()).entries.map(({ name }) => name);
  expect(names).toHaveLength(32);
  expect(names).toEqual(
    expect.arrayContaining(['conv.2.bias', 'conv_bn.0.running_var', 'fc_bn.1.weight', 'out.bias']),
  );
});

test('Akita has its published number of parameters', () => {
  expect(count(akita().model)).toEqual({ trainable: 746_149, all: 751_653 });
});

test('Akita has the pairs of 448 bins of 2,048 bp', () => {
  const { model, config, train } = akita();
  expect(outputShape(model, [1, 1_048_576, 4])).toEqual([1, 99_681, 5]);
  expect(config).toMatchObject({
    targetLength: 99_681,
    binBp: 2_048,
    cropBp: 65_536,
    triangle: { length: 448, offset: 2 },
    augment: { reverseComplement: true, shiftBp: 11 },
    link: 'linear',
  });
  expect(train).toMatchObject({
    optimizer: 'sgd',
    learningRate: 0.0065,
    momentum: 0.99575,
    clipNorm: 10,
    batchSize: 2,
    patience: 12,
    loss: 'mse',
  });
});

test('Akita has the published names in its Keras file', () => {
  const { entries } = akitaWeights(akita().model);
  const shape = (name: string): readonly number[] | undefined =>
    entries.find(({ name: published }) => published === `model_weights/${name}:0`)?.shape;
  expect(entries).toHaveLength(41 * 5 + 2);
  expect(shape('conv1d_27/conv1d_27/kernel')).toEqual([5, 96, 64]);
  expect(shape('conv2d/conv2d/kernel')).toEqual([3, 3, 65, 48]);
  expect(shape('conv2d_11/conv2d_11/kernel')).toEqual([3, 3, 48, 24]);
  expect(shape('batch_normalization_40/batch_normalization_40/gamma')).toEqual([48]);
  expect(shape('dense/dense/kernel')).toEqual([48, 5]);
});

test('Basenji1 has its published number of parameters, bins and names', () => {
  const model = basenji1();
  expect(count(model).trainable).toBe(15_190_636);
  expect([model.binBp, model.bins]).toEqual([128, 960]);
  expect(outputShape(model, [1, 131_072, 4])).toEqual([1, 960, 4_229]);
  const shapes = new Map(basenji1Weights(model).entries.map(({ name, shape }) => [name, shape]));
  expect(shapes.get('conv.11.weight')).toEqual([3, 1_257, 108]);
  expect(shapes.get('bn.12.bias')).toEqual([1_365]);
  expect(shapes.get('final.weight')).toEqual([1, 1_365, 4_229]);
  expect(() => basenji1({ bufferBp: 4_000 })).toThrow(
    'lengthBp 131072 and bufferBp 4000 must be multiples of the 128 bp of a bin',
  );
});

test('Basenji1 is trained as published', async () => {
  const { config, train } = await namedModel('basenji1');
  expect(config).toMatchObject({ targetLength: 960, cropBp: 4_096, link: 'exp_linear' });
  expect(train).toMatchObject({
    optimizer: 'adam',
    learningRate: 0.002063,
    betas: [0.97, 0.98],
    epsilon: 1e-8,
    globalClipNorm: 1,
    loss: 'poisson_full',
    batchSize: 2,
  });
});

test('a model is found by name or file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'cohesin-model-'));
  const path = join(folder, 'params.json');
  const small = { lengthBp: 4_096, stemFilters: 8, towerFilters: 8, towerRepeats: 4, residualFilters: 4 };
  await writeFile(
    path,
    JSON.stringify(basenjiParams({ ...small, residualRepeats: 2, finalFilters: 12, targets: 3 })),
  );
  expect((await namedModel('basset')).config.outputShape).toEqual([164]);
  expect((await namedModel('basset')).train).toMatchObject({
    optimizer: 'rmsprop',
    maxNorm: 7,
    learningRate: 0.002,
  });
  expect((await namedModel('basenji2')).config.outputShape).toEqual([896, 5_313]);
  expect((await namedModel('akita')).config.outputShape).toEqual([99_681, 5]);
  await expect(namedModel(path)).rejects.toThrow(/params\.json: model\.trunk\[3\]\.cropping: 64 rows/);
  await writeFile(path, JSON.stringify(basenjiParams({ ...small, cropBins: 16, targets: 3 })));
  expect((await namedModel(path)).config.outputShape).toEqual([96, 3]);
  await rm(folder, { recursive: true });
  await expect(namedModel('enformer9')).rejects.toThrow(
    /no model is called 'enformer9'; there are basset, basenji2, .*enformer, bpnet/,
  );
  await expect(namedModel('bpnet')).rejects.toThrow(/bpnet takes its heads from a data set/);
  await expect(namedModel(path)).rejects.toThrow(/cannot read the parameter file/);
});

test('Enformer has its published number of parameters, tower and bins', () => {
  const both = enformer();
  expect(count(both).trainable).toBe(251_221_292);
  expect(count(enformer().trunk).trainable).toBe(229_845_504);
  expect(enformerFilters()).toEqual([768, 768, 896, 1024, 1152, 1280, 1536]);
  expect(ENFORMER_TRACKS).toEqual({ human: HUMAN_TRACKS, mouse: MOUSE_TRACKS });
  expect(outputShape(enformer().head('mouse'), [1, 196_608, 4])).toEqual([1, 896, 1_643]);
});

test('Enformer publishes every tensor of the PyTorch file, and no other', () => {
  const { entries } = enformerTorchWeights(enformer());
  expect(entries).toHaveLength(273); // 287 with the 14 counters of batch norms
  expect(entries.find(({ name }) => name === 'stem.2.to_attn_logits.weight')).toMatchObject({
    fileShape: [768, 768, 1, 1],
  });
});

test('Enformer refuses bins that cannot be kept, and a head it does not have', () => {
  expect(() => enformer({ targetBins: 895 })).toThrow(/1536 bins, of which 895 cannot be kept in the middle/);
  expect(() => enformer().head('rat')).toThrow(/no head 'rat'; it has human, mouse/);
});
