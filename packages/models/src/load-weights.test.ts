import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type HostTensor, hostTensor, initialState, nn } from '@cohesin/core';
import { f32ToF16, readWeights, type WeightFormat, writeWeights } from '@cohesin/io';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { basenji2, MOUSE_TRACKS } from './basenji/model.ts';
import { basenji1 } from './basenji1/model.ts';
import { basenji1Weights } from './basenji1/weights.ts';
import { basset } from './basset/model.ts';
import { bassetWeights } from './basset/weights.ts';
import { bpnet } from './bpnet/model.ts';
import { originalBpnet } from './bpnet/original.ts';
import { bpnetTorchWeights, originalBpnetWeights } from './bpnet/weights.ts';
import type { BuiltModel } from './builder/model.ts';
import { kerasWeights } from './builder/weights.ts';
import { chrombpnet } from './chrombpnet/model.ts';
import { chrombpnetKerasWeights } from './chrombpnet/weights.ts';
import { enformer } from './enformer/model.ts';
import { enformerSonnetWeights } from './enformer/sonnet.ts';
import { enformerTorchWeights, enformerWeights } from './enformer/weights.ts';
import { layerWeights, loadWeights, type Published, saveWeights } from './load-weights.ts';
import { smallAkita } from './testing.ts';
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

function smallBasenji1(): Published {
  const dilated = { filters: 3, size: 3, dilation: 2, dense: true };
  const layers = [{ filters: 5, size: 4, pool: 2 }, dilated, { filters: 6, size: 1 }];
  const model = basenji1({ lengthBp: 32, bufferBp: 4, layers, targets: 2 });
  return { model, published: () => [{ format: 'torch', map: basenji1Weights(model) }] };
}

/** Values that differ from each other, running statistics too. */
function values(model: nn.AnyLayer): Map<string, HostTensor> {
  const drawn = initialState(nn.parameters(model), 3);
  return new Map(
    [...drawn].map(([name, tensor], i) => {
      if (name.endsWith('.positions')) return [name, tensor]; // computed, in no file
      if (name.endsWith('.running_power')) return [name, hostTensor([1], [0])]; // of a trained model, in no file
      const moved = Float32Array.from(tensor.data as Float32Array, (x, j) => x + i + j / 8);
      return [name, hostTensor(tensor.shape, moved)];
    }),
  );
}

function smallEnformer(): Published {
  const sizes = { lengthBp: 1_024, channels: 24, filters: [12, 16, 24], heads: 2, keySize: 4 };
  const tracks = { human: 5, mouse: 3 };
  const model = enformer({ ...sizes, transformerBlocks: 2, positionFeatures: 12, targetBins: 4, tracks });
  return { model, published: () => enformerWeights(model) };
}

const MODELS: readonly (readonly [string, Published, WeightFormat, string])[] = [
  ['Basset', smallBasset(), 'torch', 'conv_bn.1.running_var'],
  ['Basenji1', smallBasenji1(), 'torch', 'conv.2.weight'],
  ['Basenji2', smallBasenji(), 'keras', 'model_weights/conv1d_8/conv1d_8/kernel:0'],
  ['Akita', smallAkita(), 'keras', 'model_weights/conv2d_2/conv2d_2/kernel:0'],
  ['Enformer', smallEnformer(), 'torch', 'transformer.1.0.fn.1.rel_content_bias'],
  [
    'Enformer',
    smallEnformer(),
    'tensorflow',
    'enformer/trunk/transformer/transformer_block_1/mha/attention_1/r_w_bias',
  ],
];

describe.each(MODELS)('%s', (_, built, format, publishedName) => {
  const formats = (Object.keys(EXTENSIONS) as WeightFormat[]).filter(
    (into) => into !== 'keras' || format === 'keras', // HDF5 needs names with layers, as Keras has them
  );

  test.each(formats)('is saved to %s and loaded', async (into) => {
    const path = join(folder, `model${EXTENSIONS[into]}`);
    const weights = values(built.model);
    await saveWeights(built, path, { format: into, weights });
    const loaded = await loadWeights(built, path);
    expect(new Set(loaded.keys())).toEqual(new Set(weights.keys()));
    for (const [name, tensor] of weights) expect(loaded.get(name)).toEqual(tensor);
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

test('what published files of Enformer hold beside its weights is left out', async () => {
  const built = smallEnformer();
  const weights = values(built.model);
  const [sonnet, torch] = built.published();
  const one = hostTensor([1], [1]);
  const checkpoint = sonnet!.map.fromCohesin(weights);
  const norm = 'enformer/trunk/stem/pointwise_conv_block/cross_replica_batch_norm/moving_mean';
  expect(checkpoint.get(`${norm}/average`)!.shape).toEqual([1, 1, 12]);
  for (const name of [`${norm}/hidden`, `${norm}/counter`, 'save_counter']) checkpoint.set(name, one);
  expect(new Set(sonnet!.map.toCohesin(checkpoint).keys())).toEqual(new Set(weights.keys()));
  const dict = torch!.map.fromCohesin(weights);
  for (const name of ['_trunk.0.0.weight', 'stem.1.fn.0.num_batches_tracked']) dict.set(name, one);
  expect(new Set(torch!.map.toCohesin(dict).keys())).toEqual(new Set(weights.keys()));
});

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

describe('weights of some layers', () => {
  const source = smallBasenji();
  const weights = values(source.model);
  const sizes = { lengthBp: 4_096, stemFilters: 8, towerFilters: 8, towerRepeats: 4, residualFilters: 4 };
  const target = (finalFilters = 12): BuiltModel =>
    basenji2({ ...sizes, residualRepeats: 2, cropBins: 16, finalFilters, targets: 7 });
  const own = saved(source, 'safetensors');
  const keras = saved(source, 'keras');
  function saved(built: BuiltModel, format: WeightFormat): ReadonlyMap<string, HostTensor> {
    const map = built.published().find((candidate) => candidate.format === format)?.map;
    return map?.fromCohesin(weights) ?? weights;
  }

  test.each([
    ["the model's own names", own],
    ["Keras' names", keras],
  ])('are found under %s beside a head of another size, and the rest is listed', (_, tensors) => {
    const moved = layerWeights(target(), tensors, ['trunk.*']);
    expect(moved.fresh).toEqual(['head.0.dense.weight', 'head.0.dense.bias']);
    expect(moved.weights.size).toBe(weights.size - 2);
    for (const [name, tensor] of moved.weights) expect(tensor).toEqual(weights.get(name));
    const two = layerWeights(target(), tensors, ['trunk.0.norm.*', 'trunk.1.*conv.weight']);
    expect([...two.weights.keys()].filter((name) => name.startsWith('trunk.0.'))).toHaveLength(4);
    expect(two.weights.size + two.fresh.length).toBe(weights.size);
  });

  test('that are missing or have other shapes are listed, and so is a pattern that fits none', () => {
    const wider = target(13); // the last block of the trunk has 13 filters, not 12
    const without = new Map([...own].filter(([name]) => name !== 'trunk.0.conv.weight'));
    expect(() => layerWeights(wider, without, ['trunk.*'])).toThrow(
      /none was loaded:\n {2}missing trunk\.0\.conv\.weight \[15, 4, 8\]\n.*conv\.weight is \[1, \d+, 12\] but the model has \[1, \d+, 13\]/s,
    );
    expect(() => layerWeights(target(), own, ['stem.*'])).toThrow(/no parameter matches 'stem\.\*'/);
  });
});

/** The bytes of a safetensors file with its header changed, padded to the length it had. */
function withHeader(file: Buffer, change: (header: string) => string): Buffer {
  const length = Number(file.readBigUInt64LE(0));
  const header = change(file.subarray(8, 8 + length).toString());
  return Buffer.concat([file.subarray(0, 8), Buffer.from(header.padEnd(length)), file.subarray(8 + length)]);
}

function withLength(file: Buffer, length: bigint): Buffer {
  const changed = Buffer.from(file);
  changed.writeBigUInt64LE(length);
  return changed;
}

test.each<[string, (file: Buffer) => Buffer, RegExp]>([
  [
    'cut short',
    (file) => file.subarray(0, -100),
    /cut short: the header describes \d+ bytes of data, found \d+; tensor \S+ should end at byte \d+/,
  ],
  [
    'whose header runs past the end',
    (file) => withLength(file, 1_000_000n),
    /the header should take at most \d+ bytes but the file says 1000000/,
  ],
  [
    'of another shape',
    (file) => withHeader(file, (header) => header.replace('"shape":[4,4,5]', '"shape":[4,5,4]')),
    /convolutions\.0\.conv\.weight is \[4, 5, 4\] but the model has \[4, 4, 5\]/,
  ],
])('a file %s is refused with its path, the tensor and both sides', async (_, spoil, message) => {
  const built = smallBasset();
  const path = join(folder, 'bad.safetensors');
  await saveWeights(built, path, { format: 'safetensors', weights: values(built.model) });
  await writeFile(path, spoil(await readFile(path)));
  const refusal = await loadWeights(built, path).then(
    () => 'loaded',
    (error: Error) => error.message,
  );
  expect(refusal.startsWith(`${path}: `)).toBe(true);
  expect(refusal).toMatch(message);
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
    ['bpnet_lite_torch.tsv', () => bpnetTorchWeights(bpnet())],
    ['bpnet_orig.tsv', () => originalBpnetWeights(originalBpnet())],
    ['chrombpnet_lite_torch.tsv', () => bpnetTorchWeights(chrombpnet())],
    ['chrombpnet_keras_h5.tsv', () => chrombpnetKerasWeights(chrombpnet())],
    ['enformer_tf_checkpoint.tsv', () => enformerSonnetWeights(enformer())],
    ['enformer_hf_torch.tsv', () => enformerTorchWeights(enformer())],
  ] as const)('%s is what the model has', async (list, map) => {
    const lines = (await readFile(join(LISTS, list), 'utf8')).split('\n');
    const published = lines.filter((line) => line !== '' && !/^#|num_batches_tracked/.test(line));
    expect(listOf(map()).sort()).toEqual(published.sort());
  });
});

/** As the lists have it: name (without the group of a nested Keras model), tab, sizes. */
function listOf({ entries }: WeightMap): string[] {
  return entries.map(({ name, shape, axes, fileShape }) => {
    const sizes = fileShape ?? (axes === 'reversed' ? shape.toReversed() : shape);
    return `${name.replace(/^model_weights\/model(_wo_bias)?\//, '')}\t${sizes.join('x')}`;
  });
}
