import { type BufferRange, between, type Device } from '@cohesin/core';
import { type AddWide, type VectorMemory, vectorMemory, wideAdder } from './add-wide.ts';

/** Bytes of shared memory through which ranks add gradients, whatever the model. */
export const CHUNK_MEMORY_BYTES: number = 64 * 2 ** 20;
/** A rank may write the next chunk while a slower one still reads the totals of the last. */
const AREAS = 3;
const ALIGNMENT = 256;

/**
 * Shared memory that large tensors go through in chunks: areas, one after another, which have a slot for each rank's part of
 * what each rank adds.
 */
export interface ChunkMemory {
  readonly areas: VectorMemory;
  /** Bytes of a slot. */
  readonly slot: number;
}

/** Memory for `ranks` whose tensors take at most so many bytes. */
export function chunkMemory(ranks: number, bytes: number): ChunkMemory {
  const most = Math.floor(CHUNK_MEMORY_BYTES / (AREAS * ranks * ranks * ALIGNMENT)) * ALIGNMENT;
  const slot = ranks > 1 ? Math.min(most, Math.ceil(bytes / ranks / ALIGNMENT) * ALIGNMENT) : 0;
  return { areas: vectorMemory(AREAS * ranks * ranks * slot), slot };
}

export const chunkBytes = ({ areas }: ChunkMemory): number => areas.buffer.byteLength;

/** Ranges by rank. */
type Lists = readonly (readonly BufferRange[])[];

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
  private readonly addWide: AddWide;
  /** Meetings so far: each has the next area. */
  private turn = 0;

  constructor({ memory, ranks, rank, meet }: ChunksOptions) {
    this.memory = memory;
    this.ranks = ranks;
    this.rank = rank;
    this.meet = meet;
    this.addWide = wideAdder(memory.areas);
  }

  /**
   * Adds 64-bit integers over all ranks: each adds the ranges listed for it, and all, or it alone, get the totals in their
   * place.
   */
  async sum(device: Device, ranges: Lists, to: 'all' | 'owners'): Promise<void> {
    const { slot } = this.memory;
    const count = chunkCount(ranges, slot);
    const read = (chunk: number): Promise<void> => {
      const { turn } = this;
      const parts = ranges.map((list, owner) =>
        placed(chunkOf(list, chunk, slot), this.slot(turn, this.rank, owner)),
      );
      return device.readInto(parts.flat());
    };
    const write = (turn: number, owner: number, chunk: number): void =>
      this.write(device, this.slot(turn, owner, owner), chunkOf(ranges[owner]!, chunk, slot));
    await this.inTurn(count, read, (turn, chunk) => {
      this.add(turn);
      if (to === 'owners') write(turn, this.rank, chunk);
      else if (chunk > 0) for (const owner of ranges.keys()) write(turn - 1, owner, chunk - 1);
    });
    if (to === 'owners') return;
    const turn = this.turn++;
    this.meet();
    for (const owner of ranges.keys()) write(turn - 1, owner, count - 1);
  }

  /** Brings what each rank has in the ranges listed for it to the others. */
  async give(device: Device, ranges: Lists): Promise<void> {
    const size = this.ranks * this.memory.slot;
    const count = chunkCount(ranges, size);
    const read = (chunk: number): Promise<void> =>
      device.readInto(placed(chunkOf(ranges[this.rank]!, chunk, size), this.slots(this.turn, this.rank)));
    await this.inTurn(count, read, (turn, chunk) => {
      for (const [owner, list] of ranges.entries())
        if (owner !== this.rank) this.write(device, this.slots(turn, owner), chunkOf(list, chunk, size));
    });
  }

  /** Ranks meet at each chunk, once all have read it, and use it while their devices copy the next one. */
  private async inTurn(
    count: number,
    read: (chunk: number) => Promise<void>,
    use: (turn: number, chunk: number) => void,
  ): Promise<void> {
    let reading = read(0);
    for (let chunk = 0; chunk < count; chunk++) {
      await reading;
      const turn = this.turn++;
      if (chunk + 1 < count) reading = read(chunk + 1);
      this.meet();
      use(turn, chunk);
    }
  }

  /** Adds what all ranks have in the slots of this one. */
  private add(turn: number): void {
    const total = this.slot(turn, this.rank, this.rank);
    for (let rank = 0; rank < this.ranks; rank++)
      if (rank !== this.rank)
        this.addWide(total.byteOffset, this.slot(turn, rank, this.rank).byteOffset, total.length / 8);
  }

  private write(device: Device, from: Uint8Array, ranges: readonly BufferRange[]): void {
    let at = 0;
    for (const { buffer, offset = 0, bytes } of ranges) {
      device.write(buffer, offset, from.subarray(at, at + bytes));
      at += bytes;
    }
  }

  /** All of a rank's part of a chunk. */
  private slots(turn: number, rank: number): Uint8Array {
    const { areas, slot } = this.memory;
    const place = (turn % AREAS) * this.ranks + rank;
    return new Uint8Array(areas.buffer, place * this.ranks * slot, this.ranks * slot);
  }

  /** A rank's part of what `owner` adds. */
  private slot(turn: number, rank: number, owner: number): Uint8Array {
    const { slot } = this.memory;
    return this.slots(turn, rank).subarray(owner * slot, (owner + 1) * slot);
  }
}

/** Chunks of so many bytes that the longest list takes. */
function chunkCount(ranges: Lists, size: number): number {
  const totals = ranges.map((list) => list.reduce((total, { bytes }) => total + bytes, 0));
  return Math.ceil(Math.max(...totals) / size);
}

const chunkOf = (list: readonly BufferRange[], chunk: number, size: number): BufferRange[] =>
  between(list, chunk * size, (chunk + 1) * size);

/** Ranges with the host memory, one after the other, that they are read into. */
function placed(ranges: readonly BufferRange[], memory: Uint8Array): (BufferRange & { to: Uint8Array })[] {
  let at = 0;
  return ranges.map((range) => {
    at += range.bytes;
    return { ...range, to: memory.subarray(at - range.bytes, at) };
  });
}
