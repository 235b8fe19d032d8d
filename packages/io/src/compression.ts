/** Undoes whole-file compression, one bounded step at a time, and says what is wrong with a compressed stream. */
import type { FileHandle } from 'node:fs/promises';
import { createGunzip, createInflate, type Gunzip, type Inflate } from 'node:zlib';

export type Compression = 'none' | 'zlib' | 'gzip';

/** What is wrong with the compression of a file, found while its bytes were being read. */
export interface StreamFault {
  readonly kind: 'truncated-compressed-stream' | 'compressed-checksum' | 'trailing-compressed-bytes';
  readonly expected: string;
  readonly found: string;
  readonly advice: string;
  readonly compressedStreamEnd?: number;
}

export class CompressedStreamError extends Error {
  readonly fault: StreamFault;
  constructor(fault: StreamFault, options?: ErrorOptions) {
    super(`${fault.kind}: expected ${fault.expected}, found ${fault.found}`, options);
    this.fault = fault;
  }
}

const OUTPUT_CHUNK_BYTES = 1024 * 1024; // each call goes to another thread and back: with 256 KiB a fifth more CPU time
const INPUT_BYTES = 384 * 1024;

/**
 * The uncompressed bytes of an open file, in order, as chunks that stay valid.
 *
 * Every byte that can be recovered before a fault is delivered before the fault is thrown.
 *
 * @throws CompressedStreamError when the stream is cut, damaged, or followed by other bytes
 */
export async function* readChunks(
  handle: FileHandle,
  compression: Compression,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (compression === 'none') {
    for await (const { bytes } of readPieces(handle, 0, () => OUTPUT_CHUNK_BYTES)) yield bytes;
    return;
  }
  let delivered = 0;
  const progress = { accepted: 0 };
  try {
    for await (const chunk of inflate(handle, compression, () => INPUT_BYTES, progress)) {
      delivered += chunk.length;
      yield chunk;
    }
  } catch (error) {
    if (!isDataError(error)) throw error;
    if (error.code === 'Z_BUF_ERROR') throw dataFault(error, compression, progress.accepted);
    yield* salvage(handle, compression, delivered, progress.accepted);
  }
}

/**
 * node:zlib throws away what it had inflated in the write that met the damage. This inflates the file once
 * more, byte by byte from `accepted` on, and delivers what comes after the first `delivered` bytes.
 */
async function* salvage(
  handle: FileHandle,
  compression: 'zlib' | 'gzip',
  delivered: number,
  accepted: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  let skip = delivered;
  const progress = { accepted: 0 };
  const pieceBytes = (position: number): number => (position < accepted ? INPUT_BYTES : 1);
  try {
    for await (const chunk of inflate(handle, compression, pieceBytes, progress)) {
      const fresh = chunk.subarray(Math.min(skip, chunk.length));
      skip -= chunk.length - fresh.length;
      if (fresh.length > 0) yield fresh;
    }
  } catch (error) {
    throw isDataError(error) ? dataFault(error, compression, progress.accepted) : error;
  }
}

/** Inflates piece by piece; `progress.accepted` is the input, in bytes, that raised no error. */
async function* inflate(
  handle: FileHandle,
  compression: 'zlib' | 'gzip',
  pieceBytes: (position: number) => number,
  progress: { accepted: number },
): AsyncGenerator<Uint8Array, void, undefined> {
  const make = compression === 'zlib' ? createInflate : createGunzip;
  const inflater = new Inflater(make({ chunkSize: OUTPUT_CHUNK_BYTES }));
  try {
    for await (const { bytes, position } of readPieces(handle, 0, pieceBytes)) {
      yield* await inflater.write(bytes);
      progress.accepted = position + bytes.length;
      if (inflater.ended) break;
    }
    if (!inflater.ended) yield* await inflater.finish();
    await checkEnd(handle, compression, inflater.bytesConsumed);
  } finally {
    inflater.close();
  }
}

/** A zlib stream as calls: bytes in, chunks out. */
class Inflater {
  /** The stream's last byte has been met; later input would be ignored. */
  ended = false;
  readonly #stream: Inflate | Gunzip;
  #chunks: Uint8Array[] = [];
  #error: Error | undefined;
  #settle: () => void = () => {};

  constructor(stream: Inflate | Gunzip) {
    this.#stream = stream;
    stream.on('data', (chunk: Uint8Array) => {
      this.#chunks.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length));
    });
    stream.on('end', () => {
      this.ended = true;
      this.#settle();
    });
    stream.on('error', (error) => {
      this.#error = error;
      this.#settle();
    });
  }

  /** Input bytes that belonged to the stream. */
  get bytesConsumed(): number {
    return this.#stream.bytesWritten;
  }

  /** What these bytes inflate to. */
  write(bytes: Uint8Array): Promise<Uint8Array[]> {
    return this.#wait((done) => this.#stream.write(bytes, done));
  }

  /** The last chunks. Rejects with Z_BUF_ERROR when the stream wants more input. */
  finish(): Promise<Uint8Array[]> {
    return this.#wait(() => this.#stream.end());
  }

  close(): void {
    this.#stream.destroy();
  }

  #wait(start: (done: () => void) => void): Promise<Uint8Array[]> {
    return new Promise((resolve, reject) => {
      this.#settle = () => {
        if (this.#error) return reject(this.#error);
        const chunks = this.#chunks;
        this.#chunks = [];
        resolve(chunks);
      };
      start(() => this.#settle());
    });
  }
}

/** node:zlib ignores whatever follows a zlib stream; zeros are usual padding after gzip only. */
async function checkEnd(handle: FileHandle, compression: 'zlib' | 'gzip', streamEnd: number): Promise<void> {
  const fileBytes = (await handle.stat()).size;
  if (streamEnd === fileBytes) return;
  if (compression === 'gzip' && (await onlyZeros(handle, streamEnd))) return;
  throw trailingFault(compression, `${fileBytes - streamEnd} more after byte ${streamEnd}`, streamEnd);
}

async function onlyZeros(handle: FileHandle, start: number): Promise<boolean> {
  for await (const { bytes } of readPieces(handle, start, () => INPUT_BYTES)) {
    if (bytes.some((byte) => byte !== 0)) return false;
  }
  return true;
}

/** The file from `start` on, read in blocks and handed out in pieces of the size asked for at each position. */
async function* readPieces(
  handle: FileHandle,
  start: number,
  pieceBytes: (position: number) => number,
): AsyncGenerator<{ bytes: Uint8Array; position: number }, void, undefined> {
  for (let position = start; ; ) {
    const block = new Uint8Array(INPUT_BYTES);
    const { bytesRead } = await handle.read(block, 0, block.length, position);
    if (bytesRead === 0) return;
    for (let offset = 0; offset < bytesRead; ) {
      const end = Math.min(bytesRead, offset + pieceBytes(position));
      yield { bytes: block.subarray(offset, end), position };
      position += end - offset;
      offset = end;
    }
  }
}

type ZlibError = Error & { readonly code: string };

function isDataError(error: unknown): error is ZlibError {
  return (
    error instanceof Error &&
    'code' in error &&
    (error.code === 'Z_DATA_ERROR' || error.code === 'Z_BUF_ERROR')
  );
}

function dataFault(error: ZlibError, compression: 'zlib' | 'gzip', accepted: number): CompressedStreamError {
  if (error.code === 'Z_BUF_ERROR') {
    const fault = {
      kind: 'truncated-compressed-stream',
      expected: `a ${compression} stream that ends`,
      found: `the end of the file after ${accepted} bytes, inside the stream`,
      advice: 'The file was cut short, as by an interrupted download: copy or download it again.',
    } as const;
    return new CompressedStreamError(fault, { cause: error });
  }
  // After a whole gzip member this means that what follows is no further member.
  if (compression === 'gzip' && error.message === 'incorrect header check') {
    return trailingFault(compression, `other bytes near byte ${accepted}`, undefined, error);
  }
  const fault = {
    kind: 'compressed-checksum',
    expected: `sound ${compression} data`,
    found: `"${error.message}" near byte ${accepted} of the file`,
    advice: 'The compressed bytes are damaged: copy or download the file again.',
  } as const;
  return new CompressedStreamError(fault, { cause: error });
}

function trailingFault(
  compression: 'zlib' | 'gzip',
  found: string,
  compressedStreamEnd: number | undefined,
  cause?: Error,
): CompressedStreamError {
  const fault = {
    kind: 'trailing-compressed-bytes',
    expected: `nothing after the ${compression} stream`,
    found,
    advice:
      'Files joined end to end, or a longer old file overwritten: keep one stream per file, or download it again.',
    ...(compressedStreamEnd === undefined ? {} : { compressedStreamEnd }),
  } as const;
  return new CompressedStreamError(fault, cause && { cause });
}
