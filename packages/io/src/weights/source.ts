/** Reading pieces of a file, each whole or not at all. */
import { open } from 'node:fs/promises';
import { explain } from '@cohesin/core';

/** An open file. */
export interface Source {
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  /** @throws when the file does not hold these bytes; `what` says what they should be. */
  read(at: number, length: number, what: string): Promise<Uint8Array<ArrayBuffer>>;
}

const READ_BYTES = 2 ** 30; // one read() may not exceed 2 GiB - 1

/** Lets `body` read a file. @throws when it cannot be opened. */
export async function withSource<Result>(
  path: string,
  body: (source: Source) => Promise<Result>,
): Promise<Result> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const { size } = await handle.stat();
    const read = async (at: number, length: number, what: string): Promise<Uint8Array<ArrayBuffer>> => {
      const isWithin = at >= 0 && length >= 0 && at + length <= size;
      if (!isWithin) throw cutShort(path, what, at + length, size);
      const bytes = new Uint8Array(length);
      for (let filled = 0; filled < length; ) {
        const wanted = Math.min(READ_BYTES, length - filled);
        const { bytesRead } = await handle.read(bytes, filled, wanted, at + filled);
        if (bytesRead === 0) throw cutShort(path, what, at + length, at + filled);
        filled += bytesRead;
      }
      return bytes;
    };
    return await body({ path, size, read });
  } catch (cause) {
    throw explain(path, cause);
  } finally {
    await handle.close();
  }
}

function cutShort(path: string, what: string, expected: number, found: number): Error {
  return new Error(
    `${path}: ${what} should end at byte ${expected} but the file ends at ${found}; it is cut short or damaged, download or write it again`,
  );
}
