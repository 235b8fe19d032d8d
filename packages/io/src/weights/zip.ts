/** Zip archives whose entries are stored as they are, as PyTorch writes them (APPNOTE.TXT 6.3.10, with zip64). */
import { crc32 } from '@node-rs/crc32';
import type { Source } from './source.ts';

/** An entry of an archive; its bytes lie in the file as they are. */
export interface ZipEntry {
  readonly name: string;
  readonly size: number;
  readonly crc: number;
  /** 0: stored. */
  readonly method: number;
  readonly headerAt: number;
}

const END = 0x06054b50;
const END64_LOCATOR = 0x07064b50;
const END64 = 0x06064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const MAX_COMMENT = 65_535;
const ZIP64 = 0xffffffff;
const ZIP64_EXTRA = 1;

/** The entries of an archive by name. @throws when the directory at its end is not whole. */
export async function zipEntries(source: Source): Promise<Map<string, ZipEntry>> {
  const { at, length, count } = await directoryPlace(source);
  const directory = viewOf(await source.read(at, length, 'the directory of the zip archive'));
  const entries = new Map<string, ZipEntry>();
  let offset = 0;
  for (let i = 0; i < count; i++) {
    if (offset + CENTRAL_BYTES > length || directory.getUint32(offset, true) !== CENTRAL) {
      throw new Error(
        `${source.path}: the zip directory should hold ${count} entries, found ${i}; it is damaged`,
      );
    }
    const { entry, bytes } = readEntry(directory, offset, source.path);
    if (entries.has(entry.name)) throw new Error(`${source.path}: two zip entries are called ${entry.name}`);
    entries.set(entry.name, entry);
    offset += bytes;
  }
  return entries;
}

/** The bytes of an entry. @throws when it is compressed, cut short, or does not have its CRC. */
export async function readZipEntry(source: Source, entry: ZipEntry): Promise<Uint8Array<ArrayBuffer>> {
  const where = `zip entry ${entry.name}`;
  if (entry.method !== 0) {
    throw new Error(
      `${source.path}: ${where} is compressed (method ${entry.method}); PyTorch stores entries as they are: save again with torch.save`,
    );
  }
  const header = viewOf(await source.read(entry.headerAt, LOCAL_BYTES, where));
  if (header.getUint32(0, true) !== LOCAL)
    throw new Error(`${source.path}: ${where} does not begin at byte ${entry.headerAt}; the file is damaged`);
  const start = entry.headerAt + LOCAL_BYTES + header.getUint16(26, true) + header.getUint16(28, true);
  const bytes = await source.read(start, entry.size, where);
  const found = crc32(bytes);
  if (found === entry.crc) return bytes;
  throw new Error(
    `${source.path}: ${where}: expected CRC-32 ${hex(entry.crc)}, found ${hex(found)}; the file is damaged, download or write it again`,
  );
}

interface Place {
  readonly at: number;
  readonly length: number;
  readonly count: number;
}

async function directoryPlace(source: Source): Promise<Place> {
  const tailBytes = Math.min(source.size, END_BYTES + MAX_COMMENT);
  const tailAt = source.size - tailBytes;
  const tail = viewOf(await source.read(tailAt, tailBytes, 'the end of the zip archive'));
  for (let offset = tailBytes - END_BYTES; offset >= 0; offset--) {
    if (tail.getUint32(offset, true) !== END) continue;
    const [count, length, at] = [
      tail.getUint16(offset + 10, true),
      tail.getUint32(offset + 12, true),
      tail.getUint32(offset + 16, true),
    ];
    if (count !== 0xffff && at !== ZIP64) return { at, length, count };
    return directoryPlace64(source, tailAt + offset);
  }
  throw new Error(
    `${source.path}: begins as a zip archive but its directory is missing at the end; it is cut short, download or write it again`,
  );
}

async function directoryPlace64(source: Source, endAt: number): Promise<Place> {
  const what = 'the zip64 directory';
  const locator = viewOf(await source.read(endAt - 20, 20, what));
  const end = viewOf(await source.read(safe(locator.getBigUint64(8, true)), 56, what));
  if (locator.getUint32(0, true) !== END64_LOCATOR || end.getUint32(0, true) !== END64)
    throw new Error(`${source.path}: ${what} is damaged; download or write the file again`);
  const [count, length, at] = [32, 40, 48].map((offset) => safe(end.getBigUint64(offset, true)));
  return { at: at!, length: length!, count: count! };
}

function readEntry(directory: DataView, offset: number, path: string): { entry: ZipEntry; bytes: number } {
  const u16 = (at: number): number => directory.getUint16(offset + at, true);
  const u32 = (at: number): number => directory.getUint32(offset + at, true);
  const [nameBytes, extraBytes, commentBytes] = [u16(28), u16(30), u16(32)];
  const extraAt = offset + CENTRAL_BYTES + nameBytes;
  const bytes = CENTRAL_BYTES + nameBytes + extraBytes + commentBytes;
  if (offset + bytes > directory.byteLength)
    throw new Error(`${path}: the zip directory ends inside an entry; it is damaged`);
  const name = new TextDecoder().decode(new Uint8Array(directory.buffer, offset + CENTRAL_BYTES, nameBytes));
  const long = longFields(directory, extraAt, extraAt + extraBytes);
  const wide = (value: number): number => (value === ZIP64 ? safe(long.shift() ?? 0n) : value);
  const size = wide(u32(24));
  wide(u32(20)); // the compressed size, the same for stored entries
  const headerAt = wide(u32(42));
  return { entry: { name, size, crc: u32(16), method: u16(10), headerAt }, bytes };
}

/** The 64-bit fields that stand in the extra data for those of 32 bits that are full. */
function longFields(view: DataView, from: number, to: number): bigint[] {
  for (let at = from; at + 4 <= to; at += 4 + view.getUint16(at + 2, true)) {
    if (view.getUint16(at, true) !== ZIP64_EXTRA) continue;
    const count = Math.floor(Math.min(view.getUint16(at + 2, true), to - at - 4) / 8);
    return Array.from({ length: count }, (_, i) => view.getBigUint64(at + 4 + 8 * i, true));
  }
  return [];
}

/** The pieces of an archive of stored entries, each starting at a multiple of 64 bytes as `torch.save` has them. */
export function zipPieces(entries: readonly (readonly [name: string, bytes: Uint8Array])[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const [name, bytes] of entries) {
    const encoded = new TextEncoder().encode(name);
    const crc = crc32(bytes);
    const padding = (ALIGNMENT - ((at + LOCAL_BYTES + encoded.length + 4) % ALIGNMENT)) % ALIGNMENT;
    const header = localHeader({ encoded, crc, size: bytes.length, padding });
    directory.push(centralHeader({ encoded, crc, size: bytes.length, at }));
    pieces.push(header, bytes);
    at += header.length + bytes.length;
  }
  const length = directory.reduce((sum, record) => sum + record.length, 0);
  if (at + length >= ZIP64)
    throw new Error(
      `torch: the file would take ${at + length} bytes, more than the 4 GiB of a zip archive; use safetensors`,
    );
  return [...pieces, ...directory, endRecord({ count: directory.length, length, at })];
}

const ALIGNMENT = 64;
const PADDING_EXTRA = 0x4246; // 'FB', as PyTorch's writer calls it
const VERSION = 20;

interface Stored {
  readonly encoded: Uint8Array;
  readonly crc: number;
  readonly size: number;
}

function localHeader({ encoded, crc, size, padding }: Stored & { readonly padding: number }): Uint8Array {
  const bytes = new Uint8Array(LOCAL_BYTES + encoded.length + 4 + padding);
  const view = viewOf(bytes);
  view.setUint32(0, LOCAL, true);
  view.setUint16(4, VERSION, true);
  view.setUint32(14, crc, true);
  view.setUint32(18, size, true);
  view.setUint32(22, size, true);
  view.setUint16(26, encoded.length, true);
  view.setUint16(28, 4 + padding, true);
  bytes.set(encoded, LOCAL_BYTES);
  view.setUint16(LOCAL_BYTES + encoded.length, PADDING_EXTRA, true);
  view.setUint16(LOCAL_BYTES + encoded.length + 2, padding, true);
  return bytes;
}

function centralHeader({ encoded, crc, size, at }: Stored & { readonly at: number }): Uint8Array {
  const bytes = new Uint8Array(CENTRAL_BYTES + encoded.length);
  const view = viewOf(bytes);
  view.setUint32(0, CENTRAL, true);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, VERSION, true);
  view.setUint32(16, crc, true);
  view.setUint32(20, size, true);
  view.setUint32(24, size, true);
  view.setUint16(28, encoded.length, true);
  view.setUint32(42, at, true);
  bytes.set(encoded, CENTRAL_BYTES);
  return bytes;
}

function endRecord({ count, length, at }: Place): Uint8Array {
  const bytes = new Uint8Array(END_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, END, true);
  view.setUint16(8, count, true);
  view.setUint16(10, count, true);
  view.setUint32(12, length, true);
  view.setUint32(16, at, true);
  return bytes;
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const hex = (value: number): string => `0x${value.toString(16).padStart(8, '0')}`;

/** A 64-bit offset; one that no file has stays too large. */
const safe = (value: bigint): number => Number(value);
