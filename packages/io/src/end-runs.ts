/** Places on chromosomes in 4 bytes each, in order: in memory up to a limit, beyond it in a file that no one else sees. */
import { randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { explain } from '@cohesin/core';
import { NumberList } from './number-list.ts';

/** Takes places in any order. Finish it, or close it. */
export class EndRuns {
  readonly #limit: number;
  readonly #lists = new Map<string, NumberList<Uint32Array>>();
  readonly #runs: Run[] = [];
  #file: RunFile | undefined;
  #count = 0;

  /** At most about `limitBytes` are held. */
  constructor(limitBytes: number) {
    this.#limit = Math.max(1, Math.floor(limitBytes / 8)); // a list grows to twice its size
  }

  push(chrom: string, places: readonly number[]): void {
    const list = this.#lists.get(chrom) ?? new NumberList(Uint32Array);
    this.#lists.set(chrom, list);
    for (const place of places) list.push(place);
    this.#count += places.length;
  }

  /** It is time to spill. */
  get isFull(): boolean {
    return this.#count >= this.#limit;
  }

  /** Moves what is held to disk. @throws when the disk fails */
  async spill(): Promise<void> {
    this.#file ??= await RunFile.create();
    this.#runs.push(await this.#file.write(this.#lists));
    for (const list of this.#lists.values()) list.clear();
    this.#count = 0;
  }

  /** All places. Close them. */
  finish(): Ends {
    for (const list of this.#lists.values()) list.values().sort();
    const runs: Run[] = this.#count === 0 ? this.#runs : [...this.#runs, new HeldRun(this.#lists)];
    return new Ends(new Set(this.#lists.keys()), runs, this.#file);
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }
}

/** Places by chromosome. */
export class Ends {
  readonly chromosomes: ReadonlySet<string>;
  readonly #runs: readonly Run[];
  readonly #file: RunFile | undefined;

  constructor(chromosomes: ReadonlySet<string>, runs: readonly Run[], file: RunFile | undefined) {
    this.chromosomes = chromosomes;
    this.#runs = runs;
    this.#file = file;
  }

  /** Calls `body` with every place from `startBp` to before `endBp`. */
  async forEach(chrom: string, startBp: number, endBp: number, body: (place: number) => void): Promise<void> {
    for (const run of this.#runs) await run.forEach(chrom, startBp, endBp, body);
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }
}

/** Places in order, chromosome by chromosome. */
interface Run {
  forEach(chrom: string, startBp: number, endBp: number, body: (place: number) => void): Promise<void>;
}

class HeldRun implements Run {
  readonly #lists: ReadonlyMap<string, NumberList<Uint32Array>>;

  constructor(lists: ReadonlyMap<string, NumberList<Uint32Array>>) {
    this.#lists = lists;
  }

  async forEach(chrom: string, startBp: number, endBp: number, body: (place: number) => void): Promise<void> {
    const places = this.#lists.get(chrom)?.values() ?? new Uint32Array();
    for (let i = firstFrom(places, startBp); i < places.length && places[i]! < endBp; i++) body(places[i]!);
  }
}

/** Places of a chromosome in the file, with the first of each block held. */
interface Stored {
  readonly at: number;
  readonly count: number;
  readonly blocks: Uint32Array;
}

const BLOCK = 4096; // places: 16 KiB, and 4 bytes of index

class StoredRun implements Run {
  readonly #handle: FileHandle;
  readonly #stored: ReadonlyMap<string, Stored>;

  constructor(handle: FileHandle, stored: ReadonlyMap<string, Stored>) {
    this.#handle = handle;
    this.#stored = stored;
  }

  async forEach(chrom: string, startBp: number, endBp: number, body: (place: number) => void): Promise<void> {
    const found = this.#stored.get(chrom);
    if (found === undefined) return;
    const { at, count, blocks } = found;
    for (let block = Math.max(0, firstFrom(blocks, startBp) - 1); block < blocks.length; block++) {
      if (blocks[block]! >= endBp) return;
      const places = new Uint32Array(Math.min(BLOCK, count - block * BLOCK));
      const position = at + 4 * block * BLOCK;
      const { bytesRead } = await this.#handle.read(places, 0, places.byteLength, position);
      if (bytesRead !== places.byteLength)
        throw new Error(`a temporary file: ${bytesRead} bytes at ${position}, not ${places.byteLength}`);
      for (let i = firstFrom(places, startBp); i < places.length && places[i]! < endBp; i++) body(places[i]!);
    }
  }
}

/** A file without a name: it is gone when the process ends, however it ends. */
class RunFile {
  readonly #path: string;
  readonly #handle: FileHandle;
  #bytes = 0;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  static async create(): Promise<RunFile> {
    const path = join(tmpdir(), `cohesin-ends-${randomUUID()}`);
    try {
      const handle = await open(path, 'wx+');
      await unlink(path);
      return new RunFile(path, handle);
    } catch (cause) {
      throw explain(path, cause);
    }
  }

  async write(lists: ReadonlyMap<string, NumberList<Uint32Array>>): Promise<Run> {
    const stored = new Map<string, Stored>();
    for (const [chrom, list] of lists) {
      const places = list.values().sort();
      if (places.length === 0) continue;
      const blocks = Uint32Array.from(
        { length: Math.ceil(places.length / BLOCK) },
        (_, i) => places[i * BLOCK]!,
      );
      stored.set(chrom, { at: this.#bytes, count: places.length, blocks });
      await this.#append(places);
    }
    return new StoredRun(this.#handle, stored);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #append(places: Uint32Array): Promise<void> {
    for (let done = 0; done < places.byteLength; ) {
      const { bytesWritten } = await this.#handle
        .write(places, done, places.byteLength - done, this.#bytes)
        .catch((cause: unknown) => {
          throw explain(`${this.#path} (a temporary file; TMPDIR names the folder)`, cause);
        });
      done += bytesWritten;
      this.#bytes += bytesWritten;
    }
  }
}

/** Index of the first place at or after `startBp`. */
function firstFrom(places: Uint32Array, startBp: number): number {
  let [low, high] = [0, places.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (places[middle]! < startBp) low = middle + 1;
    else high = middle;
  }
  return low;
}
