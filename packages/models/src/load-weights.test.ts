import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type HostTensor, hostTensor, initialState, nn } from '@cohesin/core';
import { f32ToF16, readWeights, type WeightFormat, writeWeights } from '@cohesin/io';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { basenji2, MOUSE_TRACKS } from './basenji/model.ts';
import { basset } from './basset/model.ts';
import { bassetWeights } from './basset/weights.ts';
import type { BuiltModel } from './builder/model.ts';
import { kerasWeights } from './builder/weights.ts';
import { loadWeights, type Published, saveWeights } from './load-weights.ts';
import type { WeightMap } from './weight-map.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cohesin-load-'));
});
afterAll(() => rm(folder, { recursive: true }));

const EXTENSIONS = { safetensors: '.safetensors', keras: '.h5', torch: '.pt', tensorflow: '.index' } as const;

function smallBasenji(): BuiltModel {
  const sizes = { lengthBp: 4_096, stemFilters: 8, towerFilters: 8, towerRepeats: 4, residualFilters: 4 };
  return basenji2({ ...sizes, residualRepeats: 2, cropBins: 16, finalFilters: 12, targets: 3 });
}

function smallBasset(): Published {
  const model = basset({
    filters: [5, 6],
    sizes: [4, 3],
    pools: [2, 2],
    hidden: [7],
    targets: 2,
    lengthBp: 31,
  });
  return { model, published: () => [{ format: 'torch', map: bassetWeights(model) }] };
}

/** Values that differ from each other, running statistics too. */
function values(model: nn.AnyLayer): Map<string, HostTensor> {
  const drawn = initialState(nn.parameters(model), 3);
  return new Map(
    [...drawn].map(([name, { shape, data }], i) => [
      name,
      hostTensor(
        shape,
        Float32Array.from(data as Float32Array, (x, j) => x + i + j / 8),
      ),
    ]),
  );
}

const MODELS: readonly (readonly [string, Published, WeightFormat, string])[] = [
  ['Basset', smallBasset(), 'torch', 'conv_bn.1.running_var'],
  ['Basenji2', smallBasenji(), 'keras', 'model_weights/conv1d_8/conv1d_8/kernel:0'],
];

describe.each(MODELS)('%s', (_, built, format, publishedName) => {
  const formats = (Object.keys(EXTENSIONS) as WeightFormat[]).filter(
    (into) => into !== 'keras' || format === 'keras', // HDF5 needs names with layers, as Keras has them
  );

  test.each(formats)('is saved to %s and loaded', async (into) => {
    const path = join(folder, `model${EXTENSIONS[into]}`);
    const weights = values(built.model);
    await saveWeights(built, path, { format: into, weights });
    expect(await loadWeights(built, path)).toEqual(weights);
  });

  test('has its published names in the published format', async () => {
    const path = join(folder, `named${EXTENSIONS[format]}`);
    await saveWeights(built, path, { format, weights: values(built.model) });
    expect([...(await readWeights(path)).tensors.keys()]).toContain(publishedName);
  });
});

test('a Keras file of a later session or without model_weights, and one of f16, are loaded', async () => {
  const built = smallBasenji();
  const weights = values(built.model);
  const path = join(folder, 'later.h5');
  const [keras] = built.published();
  const later = new Map(
    [...keras!.map.fromCohesin(weights)].map(([name, tensor]) => [
      name.replace('model_weights/', '').replaceAll(/(conv1d|batch_normalization|dense)(_(\d+))?/g, counted),
      tensor,
    ]),
  );
  expect([...later.keys()][0]).toBe('conv1d_17/conv1d_17/kernel:0');
  await writeWeights(path, { format: 'keras', tensors: later });
  expect(await loadWeights(built, path)).toEqual(weights);

  const halves = new Map(
    [...keras!.map.fromCohesin(weights)].map(([name, { shape, data }]): [string, HostTensor] => [
      name,
      { shape, dtype: 'f16', data: f32ToF16(data as Float32Array) },
    ]),
  );
  const half = keras!.map.toCohesin(halves).get('trunk.0.conv.weight')!;
  const whole = weights.get('trunk.0.conv.weight')!;
  expect(half.dtype).toBe('f32');
  half.data.forEach((value, i) => {
    expect(Math.abs(Number(value) / Number(whole.data[i]) - 1)).toBeLessThan(2 ** -10);
  });
});

const counted = (_: string, kind: string, __: string, number = '0'): string =>
  `${kind}_${Number(number) + 17}`;

test('every missing, extra and misshapen name is listed, and nothing is loaded', async () => {
  const built = smallBasenji();
  const [keras] = built.published();
  const tensors = keras!.map.fromCohesin(values(built.model));
  tensors.delete('model_weights/dense/dense/bias:0');
  tensors.set('model_weights/conv1d/conv1d/kernel:0', hostTensor([4, 15, 8], new Float32Array(480)));
  tensors.set('model_weights/scale/scale/scale:0', hostTensor([1], [1]));
  const path = join(folder, 'wrong.h5');
  await writeWeights(path, { format: 'keras', tensors });
  const message = await loadWeights(built, path).then(
    () => 'loaded',
    (error: Error) => error.message,
  );
  expect(message).toContain(`${path}: weights do not fit the model, and none was loaded`);
  expect(message).toContain('missing model_weights/dense/dense/bias:0 [3]');
  expect(message).toContain('conv1d/kernel:0 is [4, 15, 8] but the model has [15, 4, 8]');
  expect(message).toContain('unexpected model_weights/scale/scale/scale:0');
});

const LISTS = resolve(
  process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../../../shared', import.meta.url)),
  'spec/tensors',
);

describe.skipIf(!existsSync(LISTS))('published lists of names and shapes (../shared/spec/tensors)', () => {
  test.each([
    ['basenji2_human_keras_h5.tsv', () => kerasWeights(basenji2().model)],
    ['basenji2_mouse_keras_h5.tsv', () => kerasWeights(basenji2({ targets: MOUSE_TRACKS }).model)],
    ['basset_torch7.tsv', () => bassetWeights(basset())],
  ] as const)('%s is what the model has', async (list, map) => {
    const lines = (await readFile(join(LISTS, list), 'utf8')).split('\n');
    const published = lines.filter((line) => line !== '' && !line.startsWith('#'));
    expect(listOf(map()).sort()).toEqual(published.sort());
  });
});

/** As the lists have it: name, tab, sizes. */
function listOf({ entries }: WeightMap): string[] {
  return entries.map(({ name, shape, axes }) => {
    const sizes = axes === 'reversed' ? shape.toReversed() : shape;
    return `${name}\t${sizes.join('x')}`;
  });
}
