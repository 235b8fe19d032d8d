/**
 * TensorFlow's checkpoints ("tensor bundles"): an index, which is a sorted table of entries by the names of variables,
 * and files of their values.
 * https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/tensor_bundle/tensor_bundle.h
 */
import {
  elementBytes,
  elementCount,
  type HostDType,
  type HostTensor,
  replacePath,
  tensorFromBytes,
  writeSynced,
} from '@cohesin/core';
import { maskedCrc } from '../crc.ts';
import type { BundleEntryMessage } from '../proto/messages.ts';
import { BundleEntry, BundleHeader } from '../proto/tensorflow.ts';
import { type Source, withSource } from './source.ts';
import { isTable, readTable, tableBytes } from './table.ts';

/** Numbers of `DataType` in framework/types.proto. */
const DTYPES: ReadonlyMap<number, HostDType> = new Map([
  [1, 'f32'],
  [2, 'f64'],
  [3, 'i32'],
  [4, 'u8'],
  [5, 'i16'],
  [6, 'i8'],
  [9, 'i64'],
  [10, 'bool'],
  [17, 'u16'],
  [19, 'f16'],
  [22, 'u32'],
  [23, 'u64'],
]);
const STRING = 7; // DT_STRING
const VERSION = 1;

/** Whether a file is the index of a checkpoint, as far as its last bytes say. */
export const isCheckpointIndex: (source: Source) => Promise<boolean> = isTable;

/**
 * The tensors of a checkpoint by the names in its index, in their order. Text, such as the object graph, is left out.
 *
 * @param source the `.index`; its `.data-*` files lie beside it
 * @throws when a file is missing or damaged, a variable is partitioned, or a dtype is unknown
 */
export async function readCheckpoint(source: Source): Promise<Map<string, HostTensor>> {
  const [header, ...entries] = await readTable(source);
  if (header?.[0] !== '')
    throw new Error(`${source.path}: a table but no index of a checkpoint: its first key should be empty`);
  const { numShards, endianness } = BundleHeader.decode(header[1]);
  if (endianness)
    throw new Error(
      `${source.path}: expected little-endian values, found big-endian ones; save it again on such a machine`,
    );
  const wanted = entries.map(([name, value]) => place(name, BundleEntry.decode(value), source.path));
  const tensors = new Map<string, HostTensor>();
  for (let shard = 0; shard < numShards; shard++) {
    const inside = wanted.filter((entry) => entry?.shard === shard);
    if (inside.length === 0) continue;
    await withSource(shardPath(source.path, shard, numShards), async (values) => {
      for (const entry of inside) tensors.set(entry!.name, await readTensor(values, entry!));
    });
  }
  const lost = wanted.find((entry) => entry !== undefined && !tensors.has(entry.name));
  if (lost !== undefined)
    throw new Error(
      `${source.path}: tensor ${lost.name} is in shard ${lost.shard} of ${numShards}; the index is damaged`,
    );
  return new Map(
    wanted.flatMap((entry) => (entry === undefined ? [] : [[entry.name, tensors.get(entry.name)!]])),
  );
}

/**
 * Writes a checkpoint of one shard: the values first, then the index.
 *
 * @param path of the `.index`; it must end so
 */
export async function writeCheckpoint(path: string, tensors: ReadonlyMap<string, HostTensor>): Promise<void> {
  if (!path.endsWith(INDEX)) throw new Error(`${path}: the index of a checkpoint must be called *${INDEX}`);
  const encoder = new TextEncoder();
  const sorted = [...tensors]
    .map(([name, tensor]) => ({ name, tensor, key: encoder.encode(name) }))
    .sort((a, b) => Buffer.compare(a.key, b.key));
  const values: Uint8Array[] = [];
  let offset = 0;
  const entries = sorted.map(({ name, tensor, key }) => {
    const bytes = new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
    const entry = describe(name, tensor, bytes, offset);
    values.push(bytes);
    offset += bytes.length;
    return [key, BundleEntry.encode(entry).finish()] as const;
  });
  const header = BundleHeader.encode({ numShards: 1, version: { producer: VERSION } }).finish();
  await replacePath(shardPath(path, 0, 1), (aside) => writeSynced(aside, values));
  await replacePath(path, (aside) =>
    writeSynced(aside, [tableBytes([[new Uint8Array(0), header], ...entries])]),
  );
}

const INDEX = '.index';

interface Place {
  readonly name: string;
  readonly dtype: HostDType;
  readonly shape: readonly number[];
  readonly shard: number;
  readonly offset: number;
  readonly size: number;
  readonly crc: number;
}

/** Where a tensor lies; nothing for text. */
function place(name: string, entry: BundleEntryMessage, path: string): Place | undefined {
  if (entry.dtype === STRING) return undefined;
  const where = `${path}: tensor ${name}`;
  const dtype = DTYPES.get(entry.dtype);
  if (dtype === undefined)
    throw new Error(
      `${where}: expected numbers, found data type ${entry.dtype} of TensorFlow; save it as float32`,
    );
  if (entry.slices?.length)
    throw new Error(`${where}: a variable in ${entry.slices.length} parts; save it whole`);
  const shape = (entry.shape?.dim ?? []).map(({ size }) => Number(size));
  const size = Number(entry.size);
  const expected = elementCount(shape) * elementBytes(dtype);
  if (size !== expected || shape.some((extent) => extent < 0))
    throw new Error(
      `${where}: ${dtype} [${shape.join(', ')}] takes ${expected} bytes but the index states ${size}; it is damaged`,
    );
  return {
    name,
    dtype,
    shape,
    shard: entry.shardId ?? 0,
    offset: Number(entry.offset ?? 0),
    size,
    crc: entry.crc32c,
  };
}

async function readTensor(
  values: Source,
  { name, dtype, shape, offset, size, crc }: Place,
): Promise<HostTensor> {
  const bytes = await values.read(offset, size, `tensor ${name}`);
  const found = maskedCrc(bytes);
  if (found === crc) return tensorFromBytes(shape, dtype, bytes);
  throw new Error(
    `${values.path}: tensor ${name}: expected masked CRC-32C ${crc}, found ${found}; the file is damaged, download or write it again`,
  );
}

function describe(
  name: string,
  { dtype, shape }: HostTensor,
  bytes: Uint8Array,
  offset: number,
): BundleEntryMessage {
  const code = [...DTYPES].find(([, known]) => known === dtype)?.[0];
  if (code === undefined)
    throw new Error(`tensorflow: tensor ${name}: ${dtype} cannot be stored; convert it to f32`);
  if (name === '') throw new Error('tensorflow: a tensor without a name cannot be stored; name it');
  const dim = shape.map((size) => ({ size }));
  return { dtype: code, shape: { dim }, shardId: 0, offset, size: bytes.length, crc32c: maskedCrc(bytes) };
}

function shardPath(index: string, shard: number, shards: number): string {
  const five = (value: number): string => String(value).padStart(5, '0');
  const prefix = index.endsWith(INDEX) ? index.slice(0, -INDEX.length) : index;
  return `${prefix}.data-${five(shard)}-of-${five(shards)}`;
}
