/** Undoes whole-file compression, one bounded step at a time, and says what is wrong with a compressed stream. */
import type { FileHandle } from 'node:fs/promises';
import { constants, createGunzip, createInflate, type Gunzip, type Inflate } from 'node:zlib';

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

const OUTPUT_BYTES = 256 * 1024; // stays in the cache of a core until it is used
const INPUT_BYTES = 384 * 1024;

/**
 * The uncompressed bytes of an open file, in order, as chunks that are valid until the next is asked for.
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
    for await (const { bytes } of readBlocks(handle, 0)) yield bytes;
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
 * zlib does not say how much it had inflated in the call that met the damage. This inflates the file once
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
  const pieceBytes = (position: number): number => (position < accepted ? accepted - position : 1);
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

/**
 * Inflates each block of the file in pieces of the size asked for at each position; `progress.accepted` is the input, in
 * bytes, that raised no error.
 */
async function* inflate(
  handle: FileHandle,
  compression: 'zlib' | 'gzip',
  pieceBytes: (position: number) => number,
  progress: { accepted: number },
): AsyncGenerator<Uint8Array, void, undefined> {
  const inflater = new Inflater(compression);
  try {
    for await (const { bytes, position } of readBlocks(handle, 0)) {
      for (let from = 0; from < bytes.length && !inflater.ended; ) {
        const piece = bytes.subarray(from, from + pieceBytes(position + from));
        yield* inflater.write(piece);
        from += piece.length;
        progress.accepted = position + from;
      }
      if (inflater.ended) break;
    }
    if (!inflater.ended) yield* inflater.finish();
    await checkEnd(handle, compression, inflater.bytesConsumed);
  } finally {
    inflater.close();
  }
}

/** What zlib's binding inside of a stream of node:zlib takes; minizlib, which npm unpacks with, drives it too. */
interface ZlibBinding {
  writeSync(
    flush: number,
    input: Uint8Array,
    inputFrom: number,
    inputBytes: number,
    output: Uint8Array,
    outputFrom: number,
    outputBytes: number,
  ): void;
  onerror: (message: string, errno: number, code: string) => void;
}

/**
 * A zlib stream as calls: bytes in, chunks out, in this thread. The stream's own interface sends each chunk to another thread
 * and back, which costs 40 % more CPU time, and the synchronous functions of node:zlib want the whole file at once.
 */
class Inflater {
  /** The stream's last byte has been met; later input would be ignored. */
  ended = false;
  /** Input bytes that belonged to the stream. */
  bytesConsumed = 0;
  readonly #stream: Inflate | Gunzip;
  readonly #binding: ZlibBinding;
  /** Room left in the output and bytes left of the input, after each call. */
  readonly #left: Uint32Array;
  readonly #output = new Uint8Array(OUTPUT_BYTES);
  #error: Error | undefined;

  constructor(compression: 'zlib' | 'gzip') {
    this.#stream = compression === 'zlib' ? createInflate() : createGunzip();
    const { _handle, _writeState } = this.#stream as (Inflate | Gunzip) & {
      readonly _handle?: ZlibBinding;
      readonly _writeState?: Uint32Array;
    };
    if (!_handle?.writeSync || !_writeState)
      throw new Error(
        `Node ${process.version} hides zlib's binding, which readers of records need; use Node 20, 22 or 24`,
      );
    this.#binding = _handle;
    this.#left = _writeState;
    this.#binding.onerror = (message, errno, code) => {
      this.#error = Object.assign(new Error(message), { errno, code });
    };
  }

  /** What these bytes inflate to; each chunk is valid until the next. @throws zlib's error, with its `code` */
  *write(bytes: Uint8Array): Generator<Uint8Array, void> {
    for (let from = 0, full = true; full; ) {
      const left = bytes.length - from;
      const room = this.#call(constants.Z_NO_FLUSH, bytes.subarray(from));
      from += left - this.#left[1]!;
      this.bytesConsumed += left - this.#left[1]!;
      full = room === 0;
      if (!full) this.ended = from < bytes.length; // more input and more room, and zlib wants neither
      if (room < OUTPUT_BYTES) yield this.#output.subarray(0, OUTPUT_BYTES - room);
    }
  }

  /** The last chunks. Throws Z_BUF_ERROR when the stream wants more input. */
  *finish(): Generator<Uint8Array, void> {
    for (let room = 0; room === 0; ) {
      room = this.#call(constants.Z_FINISH, NOTHING);
      if (room < OUTPUT_BYTES) yield this.#output.subarray(0, OUTPUT_BYTES - room);
    }
    this.ended = true;
  }

  close(): void {
    this.#stream.destroy();
  }

  /** Gives the room left in the output. */
  #call(flush: number, input: Uint8Array): number {
    this.#binding.writeSync(flush, input, 0, input.length, this.#output, 0, OUTPUT_BYTES);
    if (this.#error) throw this.#error;
    return this.#left[0]!;
  }
}

const NOTHING = new Uint8Array(0);

/** node:zlib ignores whatever follows a zlib stream; zeros are usual padding after gzip only. */
async function checkEnd(handle: FileHandle, compression: 'zlib' | 'gzip', streamEnd: number): Promise<void> {
  const fileBytes = (await handle.stat()).size;
  if (streamEnd === fileBytes) return;
  if (compression === 'gzip' && (await onlyZeros(handle, streamEnd))) return;
  throw trailingFault(compression, `${fileBytes - streamEnd} more after byte ${streamEnd}`, streamEnd);
}

async function onlyZeros(handle: FileHandle, start: number): Promise<boolean> {
  for await (const { bytes } of readBlocks(handle, start)) {
    if (bytes.some((byte) => byte !== 0)) return false;
  }
  return true;
}

/** The file from `start` on in blocks, each valid until the next is asked for; one is read ahead. */
async function* readBlocks(
  handle: FileHandle,
  start: number,
): AsyncGenerator<{ bytes: Uint8Array; position: number }, void, undefined> {
  const memory = [new Uint8Array(INPUT_BYTES), new Uint8Array(INPUT_BYTES)] as const;
  const read = (block: number, position: number) => {
    const reading = handle.read(memory[block % 2]!, 0, INPUT_BYTES, position);
    reading.catch(() => {}); // thrown when it is awaited
    return reading;
  };
  let reading = read(0, start);
  for (let block = 1, position = start; ; block++) {
    const { buffer, bytesRead } = await reading;
    if (bytesRead === 0) return;
    reading = read(block, position + bytesRead);
    yield { bytes: buffer.subarray(0, bytesRead), position };
    position += bytesRead;
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
