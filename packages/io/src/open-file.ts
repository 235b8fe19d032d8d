/** Files as the @gmod readers want them: one descriptor, kept open, with the path in every error. */
import { type FileHandle, open } from 'node:fs/promises';
import { explain } from '@cohesin/core';
import type { BufferEncoding, FilehandleOptions, GenericFilehandle, Stats } from 'generic-filehandle2';

type TextOptions = Omit<FilehandleOptions, 'encoding'> & { encoding: BufferEncoding };

/** A local file. Close it. */
export class OpenFile implements GenericFilehandle {
  readonly path: string;
  readonly bytes: number;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle, bytes: number) {
    this.path = path;
    this.bytes = bytes;
    this.#handle = handle;
  }

  /** @throws when the file cannot be read or is empty */
  static async open(path: string): Promise<OpenFile> {
    const handle = await open(path, 'r').catch((cause: unknown) => {
      throw explain(path, cause);
    });
    const stat = await handle.stat();
    if (stat.isFile() && stat.size > 0) return new OpenFile(path, handle, stat.size);
    await handle.close();
    throw new Error(`${path}: ${stat.isFile() ? 'the file is empty' : 'this is no file'}`);
  }

  /**
   * The bytes from `position` on: fewer than `length` only where the file ends.
   *
   * @throws when `position` is beyond the end: an index or a header that points there is damaged, or the file was cut
   */
  async read(length: number, position = 0): Promise<Uint8Array<ArrayBuffer>> {
    if (!(position >= 0 && position <= this.bytes)) {
      throw new Error(
        `${this.path}: a read at byte ${position}, but the file ends at ${this.bytes}; it was cut short or its index belongs to another file`,
      );
    }
    const bytes = new Uint8Array(Math.min(length, this.bytes - position));
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await this.#handle.read(bytes, filled, bytes.length - filled, position + filled);
      if (bytesRead === 0) throw new Error(`${this.path}: the file became shorter while it was read`);
      filled += bytesRead;
    }
    return bytes;
  }

  readFile(options?: Omit<FilehandleOptions, 'encoding'>): Promise<Uint8Array<ArrayBuffer>>;
  readFile(options: BufferEncoding | TextOptions): Promise<string>;
  async readFile(options?: unknown): Promise<Uint8Array<ArrayBuffer> | string> {
    return asAsked(await this.read(this.bytes), options);
  }

  async stat(): Promise<Stats> {
    return { size: this.bytes };
  }

  /** The descriptor, for readers that stream. */
  get handle(): FileHandle {
    return this.#handle;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Bytes in memory, as a file. */
export class MemoryFile implements GenericFilehandle {
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#bytes = bytes;
  }

  async read(length: number, position: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#bytes.subarray(position, position + length);
  }

  readFile(options?: Omit<FilehandleOptions, 'encoding'>): Promise<Uint8Array<ArrayBuffer>>;
  readFile(options: BufferEncoding | TextOptions): Promise<string>;
  async readFile(options?: unknown): Promise<Uint8Array<ArrayBuffer> | string> {
    return asAsked(this.#bytes, options);
  }

  async stat(): Promise<Stats> {
    return { size: this.#bytes.length };
  }

  async close(): Promise<void> {}
}

function asAsked(bytes: Uint8Array<ArrayBuffer>, options: unknown): Uint8Array<ArrayBuffer> | string {
  const text =
    typeof options === 'string' || (typeof options === 'object' && options !== null && 'encoding' in options);
  return text ? new TextDecoder().decode(bytes) : bytes;
}
