/** Compressed files whose blocks are checked as they are read: the libraries inflate them without a look at the checksum. */
import { gunzipSync, inflateSync } from 'node:zlib';
import type { GenericFilehandle } from 'generic-filehandle2';
import type { OpenFile } from './open-file.ts';

export const BGZF_HEADER_BYTES = 18;

/** No DEFLATE stream gives more than so many times its own bytes. */
export const MAX_INFLATION = 1032;

/**
 * Bytes in a block of BGZF that begins at `at`; undefined where none begins.
 * Layout: SAM specification, section 4.1, with the extra field `BC` first, as bgzip writes it.
 */
export function bgzfBlockBytes(bytes: Uint8Array, at: number): number | undefined {
  if (at + BGZF_HEADER_BYTES > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, BGZF_HEADER_BYTES);
  const sound = view.getUint16(0) === 0x1f8b && view.getUint16(12) === 0x4243; // "BC"
  return sound ? view.getUint16(16, true) + 1 : undefined;
}

/**
 * The same file; a read that begins with a block is refused when a block in it has another CRC or length than it states.
 * A block is not checked again soon.
 */
export function checkedBgzf(file: OpenFile): GenericFilehandle {
  const checked = new SeenPlaces();
  return watched(file, (bytes, position) => {
    for (let at = 0; ; ) {
      const blockBytes = bgzfBlockBytes(bytes, at);
      if (blockBytes === undefined || at + blockBytes > bytes.length) return;
      if (!checked.has(position + at)) {
        const where = `${file.path}: the BGZF block at byte ${position + at}`;
        unpack(where, () => gunzipSync(bytes.subarray(at, at + blockBytes)));
        checked.add(position + at);
      }
      at += blockBytes;
    }
  });
}

const MOST_SEEN = 2 ** 14;

/** Places in a file that were looked at, the last so many of them. */
export class SeenPlaces {
  #recent = new Set<number>();
  #before = new Set<number>();

  has(place: number): boolean {
    return this.#recent.has(place) || this.#before.has(place);
  }

  add(place: number): void {
    this.#recent.add(place);
    if (this.#recent.size < MOST_SEEN) return;
    this.#before = this.#recent;
    this.#recent = new Set();
  }
}

/** The same file; a read from where `areStreams` is refused unless it is sound zlib streams, one after the other. */
export function checkedZlib(file: OpenFile, areStreams: (position: number) => boolean): GenericFilehandle {
  return watched(file, (bytes, position) => {
    for (let at = 0; at < bytes.length && areStreams(position); ) {
      const where = `${file.path}: the zlib stream at byte ${position + at}`;
      at += unpack(where, () => consumedBytes(bytes.subarray(at)));
    }
  });
}

/** Of the one stream that the bytes begin with. */
function consumedBytes(bytes: Uint8Array): number {
  const { engine } = inflateSync(bytes, { info: true }) as unknown as {
    readonly engine: { readonly bytesWritten: number };
  };
  return engine.bytesWritten;
}

function watched(file: OpenFile, check: (bytes: Uint8Array, position: number) => void): GenericFilehandle {
  return {
    read: async (length, position = 0) => {
      const bytes = await file.read(length, position);
      check(bytes, position);
      return bytes;
    },
    readFile: file.readFile.bind(file) as GenericFilehandle['readFile'],
    stat: () => file.stat(),
    close: () => file.close(),
  };
}

function unpack<Result>(where: string, body: () => Result): Result {
  try {
    return body();
  } catch (cause) {
    throw new Error(`${where} is damaged: ${(cause as Error).message}; download or write the file again`, {
      cause,
    });
  }
}
