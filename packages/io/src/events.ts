/** TensorBoard event files: TFRecord frames of Event messages, which TensorBoard reads while they grow. */

import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { explain } from '@cohesin/core';
import type { EventMessage, SummaryValueMessage } from './proto/messages.ts';
import { Event } from './proto/tensorflow.ts';
import { frameRecord } from './tfrecord.ts';

const FILE_VERSION = 'brain.Event:2';
const DT_STRING = 7;

/**
 * Starts a new event file in `dir`, which is made if need be. Close it.
 *
 * @throws when the file cannot be made
 */
export async function openEventLog(dir: string): Promise<EventLog> {
  try {
    await mkdir(dir, { recursive: true });
    const { path, handle } = await createFile(dir);
    const log = new EventLog(path, handle);
    await log.flush();
    return log;
  } catch (cause) {
    throw explain(dir, cause);
  }
}

/** An event file being written. Values wait in memory until `flush` or `close`. */
export class EventLog {
  readonly path: string;
  readonly #handle: FileHandle;
  #waiting: Uint8Array[] = [];
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
    this.#add({ fileVersion: FILE_VERSION });
  }

  /** One point of the curve `tag`. */
  scalar(tag: string, value: number, step: number): void {
    this.#summary({ tag, simpleValue: value }, step);
  }

  /** A text shown under `tag`, in Markdown. */
  text(tag: string, markdown: string, step: number): void {
    const tensor = {
      dtype: DT_STRING,
      tensorShape: { dim: [{ size: 1 }] },
      stringVal: [new TextEncoder().encode(markdown)],
    };
    this.#summary({ tag, tensor, metadata: { pluginData: { pluginName: 'text' } } }, step);
  }

  /** Hands what waits to the operating system. Rejects when it cannot be written. */
  async flush(): Promise<void> {
    const frames = this.#waiting;
    this.#waiting = [];
    if (frames.length > 0) {
      this.#writing = this.#writing.then(() => this.#handle.appendFile(Buffer.concat(frames)));
    }
    await this.#writing.catch((cause: unknown) => {
      throw explain(this.path, cause);
    });
  }

  /** Flushes, syncs to disk and closes. */
  async close(): Promise<void> {
    try {
      await this.flush();
      await this.#handle.sync();
    } finally {
      await this.#handle.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #summary(value: SummaryValueMessage, step: number): void {
    this.#add({ step, summary: { value: [value] } });
  }

  #add(event: Omit<EventMessage, 'wallTime'>): void {
    this.#waiting.push(frameRecord(Event.encode({ wallTime: Date.now() / 1000, ...event }).finish()));
  }
}

/** `events.out.tfevents.<seconds>.<host>`, numbered when two logs start within one second. */
async function createFile(dir: string): Promise<{ path: string; handle: FileHandle }> {
  const seconds = Math.floor(Date.now() / 1000);
  for (let number = 0; ; number++) {
    const suffix = number === 0 ? '' : `.${number}`;
    const path = join(dir, `events.out.tfevents.${seconds}.${hostname()}${suffix}`);
    try {
      return { path, handle: await open(path, 'ax') };
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    }
  }
}
