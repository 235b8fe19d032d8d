/**
 * PyTorch's weight files since 1.6: a zip archive of `data.pkl` and one entry per storage.
 * https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
 */
import {
  elementBytes,
  elementCount,
  type HostDType,
  type HostTensor,
  tensorFromBFloat16,
  tensorFromBytes,
} from '@cohesin/core';
import {
  isSpecial,
  type PickleDict,
  type PickleGlobal,
  type PickleSpecial,
  type PickleValue,
  unpickle,
} from './pickle.ts';
import type { Source } from './source.ts';
import { readZipEntry, type ZipEntry, zipEntries } from './zip.ts';

/** Storage classes of PyTorch; bfloat16 is widened to f32, which is exact. */
const STORAGES: Readonly<Record<string, HostDType | 'bf16'>> = {
  DoubleStorage: 'f64',
  FloatStorage: 'f32',
  HalfStorage: 'f16',
  BFloat16Storage: 'bf16',
  LongStorage: 'i64',
  IntStorage: 'i32',
  ShortStorage: 'i16',
  CharStorage: 'i8',
  ByteStorage: 'u8',
  BoolStorage: 'bool',
};

/**
 * The tensors of a file in its order. Dictionaries and lists within each other give dotted names (`state_dict.conv.weight`);
 * a file that is one tensor gives it as `tensor`. Other plain values are left out.
 *
 * @throws when the file is damaged, names any class or function but those of tensors, or a tensor lies outside its storage
 */
export async function readTorch(source: Source): Promise<Map<string, HostTensor>> {
  const entries = await zipEntries(source);
  const folder = pickleFolder(entries, source.path);
  await checkByteOrder(source, entries.get(`${folder}byteorder`));
  const root = unpickled(await readZipEntry(source, entries.get(`${folder}data.pkl`)!), source.path);
  const records = namedTensors(root, source.path);
  const storages = new Map<string, Uint8Array<ArrayBuffer>>();
  const tensors = new Map<string, HostTensor>();
  for (const [name, record] of records) {
    const { key, dtype, count } = record.storage;
    const where = `${source.path}: tensor ${name}`;
    let bytes = storages.get(key);
    if (bytes === undefined) {
      const entry = entries.get(`${folder}data/${key}`);
      if (entry === undefined)
        throw new Error(`${where}: its storage ${key} is missing; the file is damaged`);
      bytes = await readZipEntry(source, entry);
      storages.set(key, bytes);
    }
    const expected = count * (dtype === 'bf16' ? 2 : elementBytes(dtype));
    if (bytes.length !== expected)
      throw new Error(
        `${where}: its storage of ${count} ${dtype} takes ${expected} bytes, found ${bytes.length}; the file is damaged`,
      );
    tensors.set(name, materialise(record, bytes, where));
  }
  return tensors;
}

function pickleFolder(entries: ReadonlyMap<string, ZipEntry>, path: string): string {
  const pickle = [...entries.keys()].find((name) => /^[^/]*\/data\.pkl$/.test(name));
  if (pickle !== undefined) return pickle.slice(0, -'data.pkl'.length);
  const found = [...entries.keys()].slice(0, 5).join(', ');
  const advice = entries.has('model.weights.h5')
    ? "this is a .keras file: write its weights with model.save_weights('x.weights.h5')"
    : 'expected an entry */data.pkl';
  throw new Error(`${path}: a zip archive but no PyTorch file; ${advice}, found ${found}`);
}

async function checkByteOrder(source: Source, entry: ZipEntry | undefined): Promise<void> {
  if (entry === undefined) return; // files before PyTorch 2.1
  const order = new TextDecoder().decode(await readZipEntry(source, entry)).trim();
  if (order !== 'little')
    throw new Error(
      `${source.path}: expected little-endian values, found byteorder ${order}; save it again on such a machine`,
    );
}

interface Storage extends PickleSpecial {
  readonly special: 'storage';
  readonly key: string;
  readonly dtype: HostDType | 'bf16';
  readonly count: number;
}

/** A tensor as the pickle describes it, in elements of its storage. */
interface TensorRecord extends PickleSpecial {
  readonly special: 'tensor';
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

function unpickled(bytes: Uint8Array, path: string): PickleValue {
  try {
    return unpickle(bytes, { globals: GLOBALS, persistent: storageOf });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(
      `${path}: data.pkl was refused, and nothing of it was run: ${reason}. For a whole module or an optimizer: torch.save(model.state_dict(), 'x.pt')`,
      { cause },
    );
  }
}

const GLOBALS: ReadonlyMap<string, PickleGlobal> = new Map<string, PickleGlobal>([
  ['collections OrderedDict', { special: 'class', call: orderedDict }],
  ['torch._utils _rebuild_tensor_v2', { special: 'function', call: rebuildTensor }],
  ['torch._utils _rebuild_parameter', { special: 'function', call: ([tensor]) => tensor ?? null }],
  ['torch Size', { special: 'class', call: ([sizes]) => sizes ?? [] }],
  ...Object.keys(STORAGES).map((name) => [`torch ${name}`, { special: name }] as const),
]);

function orderedDict([pairs]: readonly PickleValue[]): PickleDict {
  if (pairs === undefined) return new Map();
  if (!Array.isArray(pairs)) throw new Error('an OrderedDict is made of something that is no list');
  return new Map(
    pairs.map((pair) => {
      if (!Array.isArray(pair) || pair.length !== 2)
        throw new Error('an OrderedDict is made of something that is no pair');
      return [pair[0]!, pair[1]!];
    }),
  );
}

function storageOf(id: PickleValue): Storage {
  const [kind, type, key, , count] = Array.isArray(id) ? id : [];
  const dtype = isSpecial(type) ? STORAGES[type.special] : undefined;
  if (kind === 'storage' && dtype !== undefined && typeof key === 'string' && isCount(count))
    return { special: 'storage', key, dtype, count };
  throw new Error('a persistent id should be (storage, class, key, device, elements)');
}

function rebuildTensor([storage, offset, shape, strides]: readonly PickleValue[]): TensorRecord {
  const isWhole = isSpecial(storage) && storage.special === 'storage' && isCount(offset);
  if (!isWhole || !isCounts(shape) || !isCounts(strides) || shape.length !== strides.length)
    throw new Error('a tensor should be (storage, offset, sizes, strides) with whole numbers ≥ 0');
  return { special: 'tensor', storage: storage as Storage, offset, shape, strides };
}

const isCount = (x: PickleValue | undefined): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
const isCounts = (x: PickleValue | undefined): x is number[] => Array.isArray(x) && x.every(isCount);

function namedTensors(root: PickleValue, path: string): Map<string, TensorRecord> {
  const found = new Map<string, TensorRecord>();
  const seen = new Set<PickleValue>();
  const visit = (value: PickleValue, name: string): void => {
    if (isSpecial(value) && value.special === 'tensor') {
      const key = name === '' ? 'tensor' : name;
      if (found.has(key)) throw new Error(`${path}: two tensors are called ${key}`);
      found.set(key, value as TensorRecord);
    }
    if (!(value instanceof Map || Array.isArray(value))) return;
    if (seen.has(value)) throw new Error(`${path}: ${name} is in two places of the file, or within itself`);
    seen.add(value);
    const inside = (key: unknown): string => (name === '' ? String(key) : `${name}.${String(key)}`);
    for (const [key, item] of value.entries()) visit(item, inside(key));
  };
  visit(root, '');
  if (found.size === 0) throw new Error(`${path}: the file holds no tensor`);
  return found;
}

function materialise(record: TensorRecord, bytes: Uint8Array<ArrayBuffer>, where: string): HostTensor {
  const { shape, storage } = record;
  checkBounds(record, where);
  const dtype = storage.dtype === 'bf16' ? 'u16' : storage.dtype;
  const packed = gathered(record, bytes, elementBytes(dtype));
  return storage.dtype === 'bf16' ? tensorFromBFloat16(shape, packed) : tensorFromBytes(shape, dtype, packed);
}

function checkBounds({ storage, offset, shape, strides }: TensorRecord, where: string): void {
  const count = elementCount(shape);
  if (count === 0) return;
  const last = shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, offset);
  if (count <= storage.count && last < storage.count) return;
  throw new Error(
    `${where}: [${shape.join(', ')}] with strides [${strides.join(', ')}] from element ${offset} does not lie in its storage of ${storage.count} elements; the file is damaged`,
  );
}

/** The elements of a tensor in row-major order, in a buffer of their own. */
function gathered(
  { offset, shape, strides }: TensorRecord,
  bytes: Uint8Array,
  width: number,
): Uint8Array<ArrayBuffer> {
  const count = elementCount(shape);
  const packed = new Uint8Array(count * width);
  if (isContiguous(shape, strides)) {
    packed.set(bytes.subarray(offset * width, (offset + count) * width));
    return packed;
  }
  const index = shape.map(() => 0);
  let from = offset;
  for (let to = 0; to < count; to++) {
    packed.set(bytes.subarray(from * width, (from + 1) * width), to * width);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= shape[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
  return packed;
}

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  return shape.every((size, axis) => size === 1 || strides[axis] === elementCount(shape.slice(axis + 1)));
}
