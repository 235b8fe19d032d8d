/** Writing PyTorch's weight files: what `torch.save(state_dict, path)` gives, for `torch.load` and `readTorch`. */
import { elementCount, type HostDType, type HostTensor, replacePath, writeSynced } from '@cohesin/core';
import { zipPieces } from './zip.ts';

const STORAGE_CLASSES: Partial<Readonly<Record<HostDType, string>>> = {
  f64: 'DoubleStorage',
  f32: 'FloatStorage',
  f16: 'HalfStorage',
  i64: 'LongStorage',
  i32: 'IntStorage',
  i16: 'ShortStorage',
  i8: 'CharStorage',
  u8: 'ByteStorage',
  bool: 'BoolStorage',
};

/** Writes tensors as an `OrderedDict`. @throws when a dtype has no storage class, or the file cannot be written. */
export async function writeTorch(path: string, tensors: ReadonlyMap<string, HostTensor>): Promise<void> {
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  const entries = [
    ['archive/data.pkl', pickled(tensors)],
    ['archive/byteorder', text('little')],
    ...[...tensors.values()].map(({ data }, key) => [`archive/data/${key}`, bytesOf(data)] as const),
    ['archive/version', text('3\n')],
  ] as const;
  await replacePath(path, (aside) => writeSynced(aside, zipPieces(entries)));
}

const bytesOf = (data: HostTensor['data']): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

function pickled(tensors: ReadonlyMap<string, HostTensor>): Uint8Array {
  const dict = [...PROTOCOL_2, ...global('collections', 'OrderedDict'), EMPTY_TUPLE, REDUCE, MARK];
  const items = [...tensors].map(([name, tensor], key) => [
    ...unicode(name),
    ...pickledTensor(name, tensor, key),
  ]);
  return Uint8Array.from([...dict, ...items.flat(), SETITEMS, STOP]);
}

function pickledTensor(name: string, { shape, dtype }: HostTensor, key: number): number[] {
  const storage = STORAGE_CLASSES[dtype];
  if (storage === undefined)
    throw new Error(`torch: tensor ${name}: PyTorch has no storage of ${dtype}; convert it to f32 or i64`);
  const count = elementCount(shape);
  const strides = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  const id = [
    MARK,
    ...unicode('storage'),
    ...global('torch', storage),
    ...unicode(String(key)),
    ...unicode('cpu'),
    ...integer(count),
    TUPLE,
    BINPERSID,
  ];
  const hooks = [...global('collections', 'OrderedDict'), EMPTY_TUPLE, REDUCE];
  const args = [MARK, ...id, ...integer(0), ...tuple(shape), ...tuple(strides), NEWFALSE, ...hooks, TUPLE];
  return [...global('torch._utils', '_rebuild_tensor_v2'), ...args, REDUCE];
}

// Opcodes of pickle.
const PROTOCOL_2 = [0x80, 2];
const MARK = 0x28;
const EMPTY_TUPLE = 0x29;
const STOP = 0x2e;
const BINPERSID = 0x51;
const REDUCE = 0x52;
const BINUNICODE = 0x58;
const GLOBAL = 0x63;
const TUPLE = 0x74;
const SETITEMS = 0x75;
const NEWFALSE = 0x89;
const LONG1 = 0x8a;

function global(module: string, name: string): number[] {
  return [GLOBAL, ...new TextEncoder().encode(`${module}\n${name}\n`)];
}

function unicode(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [BINUNICODE, ...new Uint8Array(Uint32Array.of(bytes.length).buffer), ...bytes];
}

function tuple(values: readonly number[]): number[] {
  return [MARK, ...values.flatMap(integer), TUPLE];
}

/** Eight bytes, whatever the value. */
function integer(value: number): number[] {
  return [LONG1, 8, ...new Uint8Array(BigInt64Array.of(BigInt(value)).buffer)];
}
