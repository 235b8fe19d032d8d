import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { PassThrough, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createDeflate, createGzip } from 'node:zlib';
import { replacePath } from '@cohesin/core';
import type { Compression } from './compression.ts';
import { frameRecord } from './tfrecord.ts';

export interface WriteRecordsOptions {
  /** How the whole file is compressed; the published data sets use zlib. */
  readonly compression?: Compression;
}

/**
 * Writes records to a TFRecord file, aside and synced, then renames it to `path`; returns how many.
 *
 * @throws what `records` throws, or why the file cannot be written; nothing is then left behind
 */
export async function writeRecords(
  path: string,
  records: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  { compression = 'zlib' }: WriteRecordsOptions = {},
): Promise<number> {
  return await replacePath(path, async (aside) => {
    const sink = new RecordSink(aside, compression);
    try {
      let count = 0;
      for await (const record of records) {
        await sink.write(record);
        count++;
      }
      await sink.close();
      return count;
    } catch (error) {
      await sink.abort();
      throw error;
    }
  });
}

/** A TFRecord file that is being written. Close or abort it. */
export class RecordSink {
  readonly #frames: Transform;
  readonly #finished: Promise<void>;

  constructor(path: string, compression: Compression) {
    this.#frames = compressor(compression);
    this.#finished = pipeline(this.#frames, createWriteStream(path, { flags: 'wx', flush: true }));
    this.#finished.catch(() => {}); // reported by the next write or by close
  }

  /** Takes one record; waits while the disk is behind. Rejects when the file cannot be written. */
  async write(record: Uint8Array): Promise<void> {
    if (this.#frames.destroyed) await this.#finished;
    if (this.#frames.write(frameRecord(record))) return;
    await Promise.race([once(this.#frames, 'drain'), this.#finished]);
  }

  /** Ends the file and syncs it to disk. */
  async close(): Promise<void> {
    this.#frames.end();
    await this.#finished;
  }

  /** Stops writing and leaves the file as it is. */
  async abort(): Promise<void> {
    this.#frames.destroy();
    await this.#finished.catch(() => {}); // the caller already has the error that led here
  }
}

function compressor(compression: Compression): Transform {
  switch (compression) {
    case 'none':
      return new PassThrough();
    case 'zlib':
      return createDeflate();
    case 'gzip':
      return createGzip();
  }
}
