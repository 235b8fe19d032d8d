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
  readonly #runs: StoredRun[] = [];
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

  /** All places in order. Close them. @throws when the disk fails */
  async finish(): Promise<Ends> {
    const chromosomes = new Set(this.#lists.keys());
    if (this.#file === undefined) {
      for (const list of this.#lists.values()) list.values().sort();
      return new Ends(chromosomes, new HeldRun(this.#lists), undefined);
    }
    await this.spill();
    return new Ends(chromosomes, await this.#file.merge(this.#runs, chromosomes), this.#file);
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }
}

/** Places by chromosome. */
export class Ends {
  readonly chromosomes: ReadonlySet<string>;
  readonly #run: Run;
  readonly #file: RunFile | undefined;

  constructor(chromosomes: ReadonlySet<string>, run: Run, file: RunFile | undefined) {
    this.chromosomes = chromosomes;
    this.#run = run;
    this.#file = file;
  }

  /** Calls `body` with every place from `startBp` to before `endBp`. */
  async forEach(chrom: string, startBp: number, endBp: number, body: (place: number) => void): Promise<void> {
    await this.#run.forEach(chrom, startBp, endBp, body);
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
    const { blocks } = this.#stored.get(chrom) ?? NOTHING;
    for (let block = Math.max(0, firstFrom(blocks, startBp) - 1); block < blocks.length; block++) {
      if (blocks[block]! >= endBp) return;
      const places = await this.block(chrom, block);
      for (let i = firstFrom(places, startBp); i < places.length && places[i]! < endBp; i++) body(places[i]!);
    }
  }

  /** Block number `block` of a chromosome; none after the last. */
  async block(chrom: string, block: number): Promise<Uint32Array> {
    const { at, count } = this.#stored.get(chrom) ?? NOTHING;
    const places = new Uint32Array(Math.min(BLOCK, Math.max(0, count - block * BLOCK)));
    if (places.length === 0) return places;
    const position = at + 4 * block * BLOCK;
    const { bytesRead } = await this.#handle.read(places, 0, places.byteLength, position);
    if (bytesRead === places.byteLength) return places;
    throw new Error(`a temporary file: ${bytesRead} bytes at ${position}, not ${places.byteLength}`);
  }
}

const NOTHING: Stored = { at: 0, count: 0, blocks: new Uint32Array() };

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

  async write(lists: ReadonlyMap<string, NumberList<Uint32Array>>): Promise<StoredRun> {
    const stored = new Map<string, Stored>();
    for (const [chrom, list] of lists) {
      const places = list.values().sort();
      const blocks = places.filter((_, i) => i % BLOCK === 0);
      stored.set(chrom, { at: this.#bytes, count: places.length, blocks });
      await this.#append(places);
    }
    return new StoredRun(this.#handle, stored);
  }

  /** One run of all, so that a window is read at one place. */
  async merge(runs: readonly StoredRun[], chromosomes: Iterable<string>): Promise<StoredRun> {
    const stored = new Map<string, Stored>();
    for (const chrom of chromosomes) {
      const at = this.#bytes;
      const blocks = new NumberList(Uint32Array);
      for await (const places of inOrder(runs, chrom)) {
        blocks.push(places[0]!);
        await this.#append(places);
      }
      stored.set(chrom, { at, count: (this.#bytes - at) / 4, blocks: blocks.values() });
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

/** A run while it is merged. */
interface Head {
  readonly run: StoredRun;
  block: number;
  places: Uint32Array;
  /** In `places`. */
  next: number;
}

/** The places of a chromosome in all runs, in blocks that are valid until the next. */
async function* inOrder(
  runs: readonly StoredRun[],
  chrom: string,
): AsyncGenerator<Uint32Array, void, undefined> {
  let heads = runs.map((run): Head => ({ run, block: -1, places: new Uint32Array(), next: 0 }));
  const out = new Uint32Array(BLOCK);
  let count = 0;
  while (heads.length > 0) {
    for (const head of heads) {
      if (head.next < head.places.length) continue;
      head.places = await head.run.block(chrom, ++head.block);
      head.next = 0;
    }
    heads = heads.filter(({ places }) => places.length > 0);
    while (heads.length > 0) {
      const least = heads.reduce((a, b) => (b.places[b.next]! < a.places[a.next]! ? b : a));
      out[count++] = least.places[least.next++]!;
      if (count === BLOCK) {
        yield out;
        count = 0;
      }
      if (least.next === least.places.length) break; // its next block is due
    }
  }
  if (count > 0) yield out.subarray(0, count);
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
