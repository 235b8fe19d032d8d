/**
 * The safetensors file format (https://github.com/huggingface/safetensors) over host tensors:
 * `u64 header length | JSON header | tensor bytes`, everything little-endian.
 */
import { type FileHandle, open } from 'node:fs/promises';
import {
  elementBytes,
  elementCount,
  HOST_DTYPES,
  type HostDType,
  type HostTensor,
  tensorFromBFloat16,
  tensorFromBytes,
} from './host-tensor.ts';
import { explain, replacePath, writeSynced } from './replace-file.ts';

/** The named tensors of a file, in header order, and its free-form string metadata. */
export interface Safetensors {
  readonly tensors: Map<string, HostTensor>;
  readonly metadata: Record<string, string>;
}

const MAX_HEADER_BYTES = 100_000_000; // the limit of the reference implementation
const READ_BYTES = 2 ** 30; // one read() may not exceed 2 GiB - 1

/** bfloat16, the upper half of an f32: read as one, never written. */
const BF16 = 'BF16';
type Stored = HostDType | typeof BF16;

/** Each other dtype is called as here, in capitals. */
const DTYPES: ReadonlyMap<string, HostDType> = new Map(
  HOST_DTYPES.map((dtype) => [dtype.toUpperCase(), dtype]),
);

/**
 * The tensors of a whole safetensors file held in memory; their data is copied out of `bytes`, BF16 as f32 (exact).
 *
 * @param source names the bytes in errors, usually the path
 * @throws when the header, a dtype, a shape or an offset is wrong, when tensors overlap or leave gaps,
 *   or when the bytes end early or late; the message gives file, tensor, expected and found
 */
export function decodeSafetensors(bytes: Uint8Array, source: string): Safetensors {
  const headerBytes = headerLength(bytes.subarray(0, 8), bytes.byteLength, source);
  const dataStart = 8 + headerBytes;
  const header = parseHeader(bytes.subarray(8, dataStart), bytes.byteLength - dataStart, source);
  const tensors = new Map<string, HostTensor>();
  for (const entry of header.entries) {
    const copy = new Uint8Array(entry.end - entry.begin);
    copy.set(bytes.subarray(dataStart + entry.begin, dataStart + entry.end));
    tensors.set(entry.name, toTensor(entry, copy));
  }
  return { tensors, metadata: header.metadata };
}

/**
 * The bytes of a safetensors file. Tensors are stored by falling element size, then by name, so every
 * tensor starts aligned to its element size and equal contents give equal bytes.
 *
 * @throws when two tensors share a name, or a tensor's data does not match its shape and dtype
 */
export function encodeSafetensors(
  tensors: Iterable<readonly [string, HostTensor]>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const layout = layOut(tensors, metadata);
  const bytes = new Uint8Array(layout.header.length + layout.dataBytes);
  bytes.set(layout.header);
  let offset = layout.header.length;
  for (const piece of layout.pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
}

/**
 * The tensors of a safetensors file, read one tensor at a time, so files beyond 4 GiB work.
 *
 * @throws as `decodeSafetensors`, and when the file cannot be read
 */
export async function readSafetensors(path: string): Promise<Safetensors> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const fileBytes = (await handle.stat()).size;
    const prefix = await readAt(handle, 0, Math.min(8, fileBytes), path);
    const headerBytes = headerLength(prefix, fileBytes, path);
    const dataStart = 8 + headerBytes;
    const header = parseHeader(await readAt(handle, 8, headerBytes, path), fileBytes - dataStart, path);
    const tensors = new Map<string, HostTensor>();
    for (const entry of header.entries) {
      const bytes = await readAt(handle, dataStart + entry.begin, entry.end - entry.begin, path);
      tensors.set(entry.name, toTensor(entry, bytes));
    }
    return { tensors, metadata: header.metadata };
  } finally {
    await handle.close();
  }
}

/**
 * Writes a safetensors file aside, syncs it to disk and renames it to `path`: a reader sees the old file
 * or the whole new one, also after a crash or on a full disk.
 *
 * @throws as `encodeSafetensors`, and when the file cannot be written; nothing is then left behind
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [string, HostTensor]>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const layout = layOut(tensors, metadata);
  await replacePath(path, (aside) => writeSynced(aside, [layout.header, ...layout.pieces]));
}

/** The header's length in bytes, from the first 8 bytes of the file. */
function headerLength(prefix: Uint8Array, fileBytes: number, source: string): number {
  if (prefix.byteLength < 8) {
    throw new Error(
      `${source}: not a safetensors file: expected at least 8 bytes, found ${prefix.byteLength}; the file is cut short, write or download it again`,
    );
  }
  const declared = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  const limit = Math.min(fileBytes - 8, MAX_HEADER_BYTES);
  if (declared > limit) {
    throw new Error(
      `${source}: the header should take at most ${limit} bytes but the file says ${declared}; it is cut short or no safetensors file`,
    );
  }
  return Number(declared);
}

interface Entry {
  readonly name: string;
  readonly dtype: Stored;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

interface Header {
  readonly entries: readonly Entry[];
  readonly metadata: Record<string, string>;
}

function parseHeader(json: Uint8Array, dataBytes: number, source: string): Header {
  const parsed = parseJson(json, source);
  const entries: Entry[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(parsed)) {
    if (name === '__metadata__') metadata = checkMetadata(value, source);
    else entries.push(checkEntry(name, value, source));
  }
  checkCoverage(entries, dataBytes, source);
  return { entries, metadata };
}

function parseJson(json: Uint8Array, source: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch (cause) {
    throw new Error(
      `${source}: the header is not JSON: ${cause instanceof Error ? cause.message : cause}; the file is damaged`,
      { cause },
    );
  }
  if (isObject(parsed)) return parsed;
  throw new Error(`${source}: the header should be a JSON object, found ${JSON.stringify(parsed)}`);
}

function checkMetadata(value: unknown, source: string): Record<string, string> {
  const metadata: Record<string, string> = {};
  if (!isObject(value)) throw new Error(`${source}: __metadata__ should be an object of strings`);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') {
      throw new Error(`${source}: __metadata__.${key} should be a string, found ${JSON.stringify(text)}`);
    }
    metadata[key] = text;
  }
  return metadata;
}

function checkEntry(name: string, value: unknown, source: string): Entry {
  const where = `${source}: tensor ${name}`;
  if (!isObject(value))
    throw new Error(`${where}: expected {dtype, shape, data_offsets}, found ${JSON.stringify(value)}`);
  const { dtype: code, shape, data_offsets: offsets } = value;
  const dtype = checkDType(code, where);
  if (!isCounts(shape))
    throw new Error(`${where}: shape should be sizes >= 0, found ${JSON.stringify(shape)}`);
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    throw new Error(`${where}: data_offsets should be [begin, end], found ${JSON.stringify(offsets)}`);
  }
  const [begin, end] = offsets as [number, number];
  const expected = elementCount(shape) * (dtype === BF16 ? 2 : elementBytes(dtype));
  if (end - begin !== expected) {
    throw new Error(
      `${where}: ${code} [${shape.join(', ')}] takes ${expected} bytes but data_offsets [${begin}, ${end}] hold ${end - begin}`,
    );
  }
  return { name, dtype, shape, begin, end };
}

function checkDType(code: unknown, where: string): Stored {
  if (code === BF16) return code;
  const dtype = typeof code === 'string' ? DTYPES.get(code) : undefined;
  if (dtype !== undefined) return dtype;
  throw new Error(
    `${where}: dtype should be one of ${[...DTYPES.keys(), BF16].join(', ')}, found ${JSON.stringify(code)}`,
  );
}

/** Tensors must tile the data exactly: an overlap or a gap means a damaged or a hostile header. */
function checkCoverage(entries: readonly Entry[], dataBytes: number, source: string): void {
  let covered = 0;
  for (const { name, begin, end } of entries.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== covered) {
      const fault = begin < covered ? 'overlaps the tensor before it' : 'leaves a gap';
      throw new Error(
        `${source}: tensor ${name} ${fault}: expected to begin at byte ${covered} of the data, found ${begin}`,
      );
    }
    covered = end;
  }
  if (covered !== dataBytes) {
    const cut = entries.find(({ end }) => end > dataBytes);
    const fault = cut === undefined ? 'there are bytes after the last tensor' : 'the file is cut short';
    const first = cut === undefined ? '' : `; tensor ${cut.name} should end at byte ${cut.end}`;
    throw new Error(
      `${source}: ${fault}: the header describes ${covered} bytes of data, found ${dataBytes}${first}`,
    );
  }
}

function toTensor({ shape, dtype }: Entry, bytes: Uint8Array<ArrayBuffer>): HostTensor {
  return dtype === BF16 ? tensorFromBFloat16(shape, bytes) : tensorFromBytes(shape, dtype, bytes);
}

interface Layout {
  /** Length prefix and padded JSON. */
  readonly header: Uint8Array;
  readonly pieces: readonly Uint8Array[];
  readonly dataBytes: number;
}

function layOut(
  tensors: Iterable<readonly [string, HostTensor]>,
  metadata: Readonly<Record<string, string>>,
): Layout {
  const named = [...tensors].map(([name, tensor]) => describe(name, tensor));
  const stored = named.toSorted(
    (a, b) => b.bytesPerElement - a.bytesPerElement || (a.name < b.name ? -1 : 1),
  );
  const begins = new Map<string, number>();
  let dataBytes = 0;
  for (const { name, bytes } of stored) {
    if (begins.has(name)) throw new Error(`safetensors: two tensors are named ${name}; names must differ`);
    begins.set(name, dataBytes);
    dataBytes += bytes.length;
  }
  const header = named.map(({ name, dtype, shape, bytes }) => {
    const begin = begins.get(name)!;
    return [name, { dtype, shape, data_offsets: [begin, begin + bytes.length] }] as const;
  });
  const extra = Object.keys(metadata).length > 0 ? [['__metadata__', metadata] as const] : [];
  const json = Object.fromEntries<unknown>([...extra, ...header]);
  return { header: encodeHeader(JSON.stringify(json)), pieces: stored.map(({ bytes }) => bytes), dataBytes };
}

function describe(name: string, { shape, dtype, data }: HostTensor) {
  const code = dtype.toUpperCase();
  if (!DTYPES.has(code))
    throw new Error(`safetensors: tensor ${name}: dtype ${dtype} cannot be stored; convert it to f32`);
  if (name === '__metadata__')
    throw new Error('safetensors: a tensor may not be named __metadata__; rename it');
  const bytesPerElement = elementBytes(dtype);
  const expected = elementCount(shape) * bytesPerElement;
  if (data.byteLength !== expected || data.BYTES_PER_ELEMENT !== bytesPerElement) {
    throw new Error(
      `safetensors: tensor ${name}: ${dtype} [${shape.join(', ')}] takes ${expected} bytes but its ${data.constructor.name} holds ${data.byteLength}`,
    );
  }
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { name, dtype: code, shape, bytesPerElement, bytes };
}

/** Length prefix and JSON, padded with spaces so the data starts on a multiple of 8 bytes. */
function encodeHeader(json: string): Uint8Array {
  const text = new TextEncoder().encode(json);
  const padded = Math.ceil(text.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES)
    throw new Error(`safetensors: the header takes ${padded} bytes, over the limit of ${MAX_HEADER_BYTES}`);
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(text, 8);
  return header;
}

async function readAt(
  handle: FileHandle,
  position: number,
  length: number,
  source: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const wanted = Math.min(READ_BYTES, length - filled);
    const { bytesRead } = await handle.read(bytes, filled, wanted, position + filled);
    if (bytesRead === 0) {
      throw new Error(
        `${source}: expected ${length} bytes at ${position}, found ${filled}; the file shrank while it was read`,
      );
    }
    filled += bytesRead;
  }
  return bytes;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
