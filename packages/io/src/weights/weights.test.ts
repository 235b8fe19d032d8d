import { existsSync, readdirSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { elementCount, encodeSafetensors, type HostTensor, hostTensor } from '@cohesin/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readWeights, type WeightFormat, writeWeights } from './weight-file.ts';

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../../../test/fixtures/weights/${name}`, import.meta.url));
const SHARED = resolve(
  process.env.COHESIN_SHARED ?? fileURLToPath(new URL('../../../../../shared', import.meta.url)),
);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cohesin-weights-'));
});
afterAll(() => rm(folder, { recursive: true }));

const EXTENSIONS: Readonly<Record<WeightFormat, string>> = {
  safetensors: '.safetensors',
  keras: '.h5',
  torch: '.pt',
  tensorflow: '.index',
};
const FORMATS = Object.keys(EXTENSIONS) as WeightFormat[];

const messageOf = (path: string): Promise<string> =>
  readWeights(path).then(
    ({ tensors }) => `read ${tensors.size} tensors`,
    (error: Error) => error.message,
  );

const quarters = (count: number): number[] => Array.from({ length: count }, (_, i) => i / 4);

describe('files of other programs', () => {
  const expected = (prefix = ''): Map<string, HostTensor> =>
    new Map<string, HostTensor>([
      [`${prefix}conv.weight`, hostTensor([2, 3, 4], quarters(24))],
      [`${prefix}conv.tied`, hostTensor([3, 2], quarters(12).slice(6))],
      [
        `${prefix}linear.transposed`,
        { shape: [3, 2], dtype: 'f64', data: Float64Array.of(0, 0.75, 0.25, 1, 0.5, 1.25) },
      ],
      [`${prefix}norm.half`, { shape: [4], dtype: 'f16', data: Uint16Array.of(0, 0x3400, 0x3800, 0x3a00) }],
      [`${prefix}norm.bfloat16`, hostTensor([2, 2], quarters(4))],
      [
        `${prefix}norm.num_batches_tracked`,
        { shape: [], dtype: 'i64', data: BigInt64Array.of(2n ** 40n + 1n) },
      ],
      [`${prefix}mask`, { shape: [2], dtype: 'bool', data: Uint8Array.of(1, 0) }],
      [`${prefix}empty`, hostTensor([0, 3], [])],
    ]);

  test('a state dict of PyTorch is read: views, strides, f16, bfloat16, 64-bit integers', async () => {
    expect(await readWeights(fixture('state_dict.pt'))).toEqual({ format: 'torch', tensors: expected() });
  });

  test('dictionaries within each other give dotted names, in the pickle protocols of today too', async () => {
    expect((await readWeights(fixture('nested.pt'))).tensors).toEqual(expected('state_dict.'));
  });

  test('a checkpoint of TensorFlow is read: two shards, Snappy blocks, shared prefixes, text left out', async () => {
    const { format, tensors } = await readWeights(fixture('checkpoint.index'));
    expect(format).toBe('tensorflow');
    expect([...tensors.keys()]).toEqual([
      'enformer/heads/double',
      'enformer/heads/half',
      ...quarters(10).map((_, i) => `enformer/trunk/block_${i}/w`),
      'save_counter',
    ]);
    expect(tensors.get('enformer/trunk/block_9/w')).toEqual(hostTensor([10, 3], quarters(30)));
    expect(tensors.get('enformer/heads/double')!.data).toEqual(Float64Array.from(quarters(4)));
    expect(tensors.get('save_counter')).toEqual({ shape: [], dtype: 'i64', data: BigInt64Array.of(7n) });
  });

  test('the format is told by the content, whatever the file is called', async () => {
    for (const [from, to] of [
      ['state_dict.pt', 'weights.h5'],
      ['checkpoint.index', 'weights.pt'],
    ] as const)
      await cp(fixture(from), join(folder, to));
    for (const shard of [0, 1])
      await cp(
        fixture(`checkpoint.data-0000${shard}-of-00002`),
        join(folder, `weights.pt.data-0000${shard}-of-00002`),
      );
    expect((await readWeights(join(folder, 'weights.h5'))).format).toBe('torch');
    expect((await readWeights(join(folder, 'weights.pt'))).format).toBe('tensorflow');
  });

  test.each([
    [
      'hostile.pt',
      /hostile\.pt: data\.pkl was refused, and nothing of it was run: it names (posix|nt)\.system/,
    ],
    ['outside.pt', /outside\.pt: tensor w: \[2, 3\] .* does not lie in its storage of 5 elements/],
    ['compressed.pt', /compressed\.pt: zip entry .* is compressed \(method 8\).*save again with torch\.save/],
    ['legacy.pt', /legacy\.pt: a PyTorch file of before 1\.6; .*torch\.save/],
    ['checkpoint.data-00000-of-00002', /give the path of its \.index file/],
    ['make.py', /make\.py: a file of no known format, it begins with 22 22 22/],
    ['none.h5', /none\.h5: ENOENT/],
  ])('%s is refused', async (name, message) => {
    expect(await messageOf(fixture(name))).toMatch(message);
  });

  test.each(['state_dict.pt', 'checkpoint.index'])(
    '%s cut anywhere is refused with its path',
    async (name) => {
      const whole = await readFile(fixture(name));
      const path = join(folder, name);
      for (let length = 0; length < whole.length; length += 7) {
        await writeFile(path, whole.subarray(0, length));
        expect(await messageOf(path)).toContain(path);
      }
    },
  );

  test('one changed bit in the values of a tensor is found', async () => {
    const pt = await readFile(fixture('state_dict.pt'));
    pt[pt.indexOf(Buffer.from(Float32Array.from(quarters(24)).buffer)) + 9]! ^= 1;
    await writeFile(join(folder, 'flipped.pt'), pt);
    expect(await messageOf(join(folder, 'flipped.pt'))).toMatch(
      /zip entry archive\/data\/0: expected CRC-32/,
    );
    for (const name of [
      'checkpoint.index',
      'checkpoint.data-00000-of-00002',
      'checkpoint.data-00001-of-00002',
    ])
      await cp(fixture(name), join(folder, name));
    const values = await readFile(fixture('checkpoint.data-00000-of-00002'));
    values[9]! ^= 1;
    await writeFile(join(folder, 'checkpoint.data-00000-of-00002'), values);
    expect(await messageOf(join(folder, 'checkpoint.index'))).toMatch(
      /checkpoint\.data-00000-of-00002: tensor enformer\/.*: expected masked CRC-32C \d+, found \d+/,
    );
  });
});

const some: ReadonlyMap<string, HostTensor> = new Map<string, HostTensor>([
  ['model_weights/conv1d/conv1d/kernel:0', hostTensor([3, 4, 5], quarters(60))],
  ['model_weights/conv1d/conv1d/bias:0', hostTensor([5], quarters(5))],
  ['model_weights/attention_1/attention_1/query/kernel:0', hostTensor([1, 2, 1, 3], quarters(6))],
  ['model_weights/counter/counter/steps:0', { shape: [], dtype: 'i64', data: BigInt64Array.of(-3n) }],
  ['model_weights/scale/scale/scale:0', { shape: [2], dtype: 'f64', data: Float64Array.of(0.1, 1e300) }],
  ['model_weights/codes/codes/codes:0', { shape: [3], dtype: 'u8', data: Uint8Array.of(1, 2, 255) }],
]);

describe('files of our own', () => {
  test.each(FORMATS)('%s gives back what was written', async (format) => {
    const path = join(folder, `some${EXTENSIONS[format]}`);
    await writeWeights(path, { format, tensors: new Map(some) });
    const read = await readWeights(path);
    expect(read.format).toBe(format);
    expect(read.tensors).toEqual(some);
    const unordered = format === 'tensorflow'; // sorted, as the format asks for
    if (!unordered) expect([...read.tensors.keys()]).toEqual([...some.keys()]);
  });

  test.each(FORMATS)('%s cut short is refused with its path', async (format) => {
    const path = join(folder, `cut${EXTENSIONS[format]}`);
    await writeWeights(path, { format, tensors: new Map(some) });
    const last = format === 'tensorflow' ? path.replace('.index', '.data-00000-of-00001') : path;
    const whole = await readFile(last);
    for (const length of [0, 3, 20, whole.length >> 1, whole.length - 1]) {
      await writeFile(last, whole.subarray(0, length));
      expect(await messageOf(path)).toContain(last);
    }
  });

  test('a file of a thousand tensors keeps every one of them', async () => {
    const names = Array.from({ length: 1_000 }, (_, i) => `layer_${i}/layer_${i}/kernel:0`);
    const tensors = new Map(names.map((name, i) => [name, hostTensor([2], [i, -i])]));
    for (const format of ['torch', 'tensorflow'] as const) {
      const path = join(folder, `many${EXTENSIONS[format]}`);
      await writeWeights(path, { format, tensors });
      expect((await readWeights(path)).tensors).toEqual(tensors);
    }
  });

  test('an HDF5 file without names of layers, as Keras 3 writes, gives all of its data sets', async () => {
    const { File, ready } = await import('h5wasm/node');
    await ready;
    const path = join(folder, 'keras3.h5');
    const file = new File(path, 'w', { libver: ['earliest', 'latest'] });
    const vars = file.create_group('layers').create_group('conv1d').create_group('vars');
    vars.create_dataset({ name: '0', data: Float32Array.of(1, 2, 3, 4), shape: [2, 1, 2], dtype: '<f' });
    vars.create_dataset({ name: '1', data: Float32Array.of(5, 6), shape: [2], dtype: '<f' });
    file.close();
    expect((await readWeights(path)).tensors).toEqual(
      new Map([
        ['layers/conv1d/vars/0', hostTensor([2, 1, 2], [1, 2, 3, 4])],
        ['layers/conv1d/vars/1', hostTensor([2], [5, 6])],
      ]),
    );
  });

  test('f16 data sets of HDF5 are read', async () => {
    const path = join(folder, 'half.h5');
    const tensors = new Map([['layer/kernel:0', hostTensor([2, 3], [1, 2, 3, 4, 5, 6])]]);
    await writeWeights(path, { format: 'keras', tensors });
    await writeFile(path, withHalves(await readFile(path), Float32Array.of(1, 2, 3, 4, 5, 6)));
    expect((await readWeights(path)).tensors.get('layer/kernel:0')).toEqual({
      shape: [2, 3],
      dtype: 'f16',
      data: Uint16Array.of(0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600),
    });
  });

  test.each([
    [
      'torch',
      new Map([['w', { shape: [1], dtype: 'u32', data: Uint32Array.of(1) }]]),
      /w: .*no storage of u32/,
    ],
    ['keras', new Map([['w', hostTensor([1], [1])]]), /w: a name is layer\/…\/weight/],
    [
      'keras',
      new Map([['a/w', { shape: [1], dtype: 'f16', data: Uint16Array.of(1) }]]),
      /a\/w: f16 cannot be written/,
    ],
    ['tensorflow', new Map([['', hostTensor([1], [1])]]), /without a name/],
  ] as const)('what %s cannot hold is refused, and no file is left', async (format, tensors, message) => {
    const path = join(folder, `refused${EXTENSIONS[format]}`);
    const wrong = new Map<string, HostTensor>(tensors as ReadonlyMap<string, HostTensor>);
    await expect(writeWeights(path, { format, tensors: wrong })).rejects.toThrow(message);
    expect(readdirSync(folder).filter((name) => name.startsWith('refused'))).toEqual([]);
  });

  test('safetensors with overlapping ranges or a header past the end are refused', async () => {
    const path = join(folder, 'bad.safetensors');
    const bytes = encodeSafetensors([
      ['a', hostTensor([2], [1, 2])],
      ['b', hostTensor([2], [3, 4])],
    ]);
    await writeFile(
      path,
      Buffer.from(Buffer.from(bytes).toString('latin1').replace('[8,16]', '[4,12]'), 'latin1'),
    );
    expect(await messageOf(path)).toMatch(
      /tensor b overlaps the tensor before it: expected to begin at byte 8/,
    );
    new DataView(bytes.buffer).setBigUint64(0, 10_000n, true);
    await writeFile(path, bytes);
    expect(await messageOf(path)).toMatch(/the header should take at most \d+ bytes but the file says 10000/);
  });
});

/** A file with its one f32 data set made one of f16: the type's description and the values, HDF5 file format 3, IV.A.2.d. */
function withHalves(file: Buffer, values: Float32Array): Buffer {
  const single = Buffer.from('11201f000400000000002000170800177f000000', 'hex');
  const half = Buffer.from('11200f0002000000000010000a05000a0f000000', 'hex');
  const [type, data] = [file.indexOf(single), file.indexOf(Buffer.from(values.buffer))];
  expect([type > 0, data > 0]).toEqual([true, true]);
  half.copy(file, type);
  for (const [i, code] of [0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600].entries())
    file.writeUInt16LE(code, data + 2 * i);
  return file;
}

const LISTS = join(SHARED, 'spec/tensors');
const FORMAT_OF_LIST = (name: string): WeightFormat =>
  name.includes('keras_h5') ? 'keras' : name.includes('tf_checkpoint') ? 'tensorflow' : 'torch';

describe.skipIf(!existsSync(LISTS))('published lists of names and shapes (../shared/spec/tensors)', () => {
  const lists = existsSync(LISTS) ? readdirSync(LISTS) : [];

  test.each(lists)('%s is written and read tensor for tensor', async (list) => {
    const tensors = await listed(join(LISTS, list));
    const format = FORMAT_OF_LIST(list);
    const path = join(folder, `listed${EXTENSIONS[format]}`);
    await writeWeights(path, { format, tensors });
    const read = (await readWeights(path)).tensors;
    expect([...read.keys()].sort()).toEqual([...tensors.keys()].sort());
    for (const [name, { shape, data }] of tensors) {
      expect(read.get(name)!.shape).toEqual(shape);
      expect(Buffer.compare(bytesOf(read.get(name)!), bytesOf({ shape, data, dtype: 'f32' }))).toBe(0);
    }
  });
});

const bytesOf = ({ data }: HostTensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

/** Every name of a list, its axes as they are up to 2¹⁶ elements and cut to 40 beyond: the number of axes is what formats know. */
async function listed(path: string): Promise<Map<string, HostTensor>> {
  const lines = (await readFile(path, 'utf8'))
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line, i) => {
      const [name, sizes] = line.split('\t') as [string, string];
      const full = sizes === 'scalar' ? [] : sizes.split('x').map(Number);
      const shape = elementCount(full) <= 2 ** 16 ? full : full.map((size) => Math.min(size, 40));
      return [
        name,
        hostTensor(
          shape,
          Float32Array.from({ length: elementCount(shape) }, (_, j) => i + j / 7),
        ),
      ];
    }),
  );
}

const THEIRS = join(SHARED, 'data/formats');

describe.skipIf(!existsSync(THEIRS))('files of third parties (../shared/data/formats)', () => {
  test('PyTorch 1.13, lucidrains’ table and TensorFlow Serving’s checkpoint are read', async () => {
    const own = await readWeights(join(THEIRS, 'own_torch113_zip.pt'));
    expect([...own.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
      ['conv.weight', 'f32', [8, 4, 5]],
      ['conv.bias', 'f32', [8]],
      ['bn.num_batches_tracked', 'i64', []],
      ['half', 'f16', [3, 4]],
      ['t', 'f32', [4, 3]],
    ]);
    const gammas = (await readWeights(join(THEIRS, 'enformer_tf_gammas.pt'))).tensors.get('tensor')!;
    expect(gammas.shape).toEqual([3071, 32]);
    const { tensors } = await readWeights(join(THEIRS, 'tf_hpt_variables.index'));
    expect([...tensors].map(([name, { data }]) => [name, data[0]])).toEqual([
      ['a', 0.5],
      ['a2', 0.5],
      ['b', 2],
      ['c', 3],
      ['c2', 3],
    ]);
    expect(await messageOf(join(THEIRS, 'own_torch113_legacy.pt'))).toMatch(/before 1\.6/);
    expect(await messageOf(join(THEIRS, 'cooltools_dotfinder.npz'))).toMatch(
      /a zip archive but no PyTorch file/,
    );
  });
});
