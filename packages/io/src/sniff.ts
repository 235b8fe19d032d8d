import type { FileHandle } from 'node:fs/promises';
import type { Compression } from './compression.ts';
import { maskedCrc } from './crc.ts';
import { TfRecordError } from './errors.ts';

/** Bytes of a frame before its data: u64 length and the u32 CRC of the length. */
export const FRAME_HEADER_BYTES = 12;

/** What the first bytes of a file look like. */
export type Looks = Compression | 'text' | 'unknown';

/**
 * The compression to read a file with.
 *
 * @throws TfRecordError `wrong-compression` when the file is plainly something else than `declared`, and
 *   `empty-file` when it has no bytes at all, which only an uncompressed file may
 */
export async function resolveCompression(
  handle: FileHandle,
  file: string,
  declared: Compression | 'auto',
): Promise<Compression> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(64), 0, 64, 0);
  if (bytesRead === 0) return emptyFile(file, declared);
  const looks = sniff(buffer.subarray(0, bytesRead));
  if (declared === 'auto') return looks === 'zlib' || looks === 'gzip' ? looks : 'none';
  // An unrecognized file read as uncompressed fails at its first frame, with more to say.
  const contradicts = declared === 'none' ? looks === 'zlib' || looks === 'gzip' : looks !== declared;
  if (contradicts) throw wrongCompression(file, declared, looks);
  return declared;
}

/** A sound frame header, a gzip or zlib magic number, printable text, or neither. */
export function sniff(start: Uint8Array): Looks {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  if (start.length >= FRAME_HEADER_BYTES && view.getUint32(8, true) === maskedCrc(start.subarray(0, 8))) {
    return 'none'; // first: a record of 0x9c78 bytes begins like zlib
  }
  const magic = start.length >= 2 ? view.getUint16(0) : 0;
  if (magic === 0x1f8b) return 'gzip';
  if ((magic & 0x0f00) === 0x0800 && magic >> 12 <= 7 && magic % 31 === 0) return 'zlib'; // RFC 1950
  return start.every((byte) => (byte >= 0x20 && byte < 0x7f) || (byte >= 9 && byte <= 13))
    ? 'text'
    : 'unknown';
}

function emptyFile(file: string, declared: Compression | 'auto'): Compression {
  if (declared === 'none') return 'none';
  throw new TfRecordError({
    kind: 'empty-file',
    file,
    expected:
      declared === 'auto' ? 'records' : `a ${declared} stream, which takes 8 bytes even for no records`,
    found: 'a file of 0 bytes',
    advice: "Write or download it again; pass compression 'none' if it is meant to hold no records.",
  });
}

function wrongCompression(file: string, declared: Compression, actual: Looks): TfRecordError {
  const readable = actual === 'none' || actual === 'zlib' || actual === 'gzip';
  const names = {
    none: 'an uncompressed TFRecord file',
    zlib: 'zlib',
    gzip: 'gzip',
    text: 'text',
    unknown: 'neither',
  };
  return new TfRecordError({
    kind: 'wrong-compression',
    file,
    recordIndex: 0,
    offset: 0,
    goodRecordsBefore: 0,
    actual,
    expected: names[declared],
    found: `first bytes that look like ${names[actual]}`,
    advice: readable
      ? `Pass compression '${actual}' or 'auto'.`
      : 'This may be no TFRecord file, such as a saved error page: look at its first lines and download it again.',
  });
}
