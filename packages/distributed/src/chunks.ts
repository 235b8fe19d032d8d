import type { BufferRange, Device } from '@cohesin/core';

/** Bytes of shared memory through which ranks add gradients, whatever the model. */
export const CHUNK_MEMORY_BYTES: number = 64 * 2 ** 20;
/** A rank may write the next chunk while a slower one still reads the totals of the last. */
const AREAS = 3;
const ALIGNMENT = 256;

/** Shared memory that large tensors go through in chunks. An area has a slot for each rank's part of what each rank adds. */
export interface ChunkMemory {
  readonly areas: readonly SharedArrayBuffer[];
  /** Bytes of a slot. */
  readonly slot: number;
}

/** Memory for `ranks` whose tensors take at most so many bytes. */
export function chunkMemory(ranks: number, bytes: number): ChunkMemory {
  const most = Math.floor(CHUNK_MEMORY_BYTES / (AREAS * ranks * ranks * ALIGNMENT)) * ALIGNMENT;
  const slot = ranks > 1 ? Math.min(most, Math.ceil(bytes / ranks / ALIGNMENT) * ALIGNMENT) : 0;
  const areas = Array.from({ length: AREAS }, () => new SharedArrayBuffer(slot * ranks * ranks));
  return { areas, slot };
}

/** Bytes of chunk memory, with what each rank keeps of a chunk: Dawn cannot read shared memory. */
export function chunkBytes({ areas, slot }: ChunkMemory, ranks: number): number {
  return areas.reduce((total, { byteLength }) => total + byteLength, 0) + ranks * slot;
}

export interface ChunksOptions {
  readonly memory: ChunkMemory;
  readonly ranks: number;
  /** Place among them. */
  readonly rank: number;
  /** Waits for the others. */
  readonly meet: () => void;
}

/** A rank's side of what goes through shared memory in chunks. Ranks call its methods together, with equal sizes. */
export class Chunks {
  private readonly memory: ChunkMemory;
  private readonly ranks: number;
  private readonly rank: number;
  private readonly meet: () => void;
  private readonly upload: Uint8Array<ArrayBuffer>;
  /** Meetings so far: each has the next area. */
  private turn = 0;

  constructor({ memory, ranks, rank, meet }: ChunksOptions) {
    this.memory = memory;
    this.ranks = ranks;
    this.rank = rank;
    this.meet = meet;
    this.upload = new Uint8Array(memory.slot);
  }

  /**
   * Adds 64-bit integers over all ranks: each adds the ranges listed for it, and all get the totals in their place. While
   * ranks meet and add a chunk, their devices copy the next one.
   */
  async sum(device: Device, ranges: readonly (readonly BufferRange[])[]): Promise<void> {
    const count = this.count(ranges);
    let reading = this.read(device, ranges, 0);
    for (let chunk = 0; chunk <= count; chunk++) {
      await reading;
      const turn = this.turn++;
      if (chunk + 1 < count) reading = this.read(device, ranges, chunk + 1);
      this.meet();
      if (chunk < count) this.add(turn);
      if (chunk === 0) continue;
      for (const [owner, list] of ranges.entries())
        this.write(device, this.slot(turn - 1, owner, owner), this.part(list, chunk - 1));
    }
  }

  /** Chunks that the longest list takes. */
  private count(ranges: readonly (readonly BufferRange[])[]): number {
    const sizes = ranges.map((list) => list.reduce((total, { bytes }) => total + bytes, 0));
    return Math.ceil(Math.max(...sizes) / this.memory.slot);
  }

  /** Copies this rank's part of a chunk from the device to the area whose turn is next. */
  private read(device: Device, ranges: readonly (readonly BufferRange[])[], chunk: number): Promise<void> {
    const turn = this.turn;
    return device.readInto(
      ranges.flatMap((list, owner) => {
        let to = this.slot(turn, this.rank, owner);
        return this.part(list, chunk).map((range) => {
          const part = { ...range, to: to.subarray(0, range.bytes) };
          to = to.subarray(range.bytes);
          return part;
        });
      }),
    );
  }

  /** Adds what all ranks have in the slots of this one. */
  private add(turn: number): void {
    const words = ({ buffer, byteOffset, byteLength }: Uint8Array): Uint32Array =>
      new Uint32Array(buffer, byteOffset, byteLength / 4);
    const total = words(this.slot(turn, this.rank, this.rank));
    for (let rank = 0; rank < this.ranks; rank++)
      if (rank !== this.rank) addWide(total, words(this.slot(turn, rank, this.rank)));
  }

  private write(device: Device, from: Uint8Array, ranges: readonly BufferRange[]): void {
    this.upload.set(from);
    let at = 0;
    for (const { buffer, offset = 0, bytes } of ranges) {
      device.write(buffer, offset, this.upload.subarray(at, at + bytes));
      at += bytes;
    }
  }

  /** A rank's part of what `owner` adds. */
  private slot(turn: number, rank: number, owner: number): Uint8Array {
    const { areas, slot } = this.memory;
    return new Uint8Array(areas[turn % AREAS]!, (rank * this.ranks + owner) * slot, slot);
  }

  /** What of a list of ranges, one after the other, belongs to a chunk. */
  private part(list: readonly BufferRange[], chunk: number): BufferRange[] {
    const { slot } = this.memory;
    const [from, to] = [chunk * slot, (chunk + 1) * slot];
    let at = 0;
    return list.flatMap(({ buffer, offset = 0, bytes }) => {
      const [first, last] = [Math.max(from, at), Math.min(to, at + bytes)];
      const start = offset + first - at;
      at += bytes;
      return first < last ? [{ buffer, offset: start, bytes: last - first }] : [];
    });
  }
}

/** Adds 64-bit integers, stored as low and high u32 words, to others. */
export function addWide(total: Uint32Array, part: Uint32Array): void {
  for (let i = 0; i < total.length; i += 2) {
    const low = (total[i]! + part[i]!) >>> 0;
    total[i + 1] = total[i + 1]! + part[i + 1]! + (low < part[i]! ? 1 : 0);
    total[i] = low;
  }
}
