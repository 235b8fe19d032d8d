import { type BufferRange, between, type Device, type SubmitSums } from '@cohesin/core';
import { type AddWide, type VectorMemory, vectorMemory, wideAdder } from './add-wide.ts';

/** The most shared memory through which ranks add gradients, whatever the model. */
export const CHUNK_MEMORY_BYTES: number = 64 * 2 ** 20;
/** The most in a chunk, so that few are as large as a layer; and the least, as each costs a meeting. */
const CHUNK_BYTES = { most: 4 * 2 ** 20, least: 2 ** 20 } as const;
/** Chunks that a device may have copied before they are added: it goes on while its rank waits for others. */
const AHEAD = 8;
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
  if (ranks === 1) return { areas: vectorMemory(0), slot: 0 };
  const most = Math.min(CHUNK_BYTES.most, CHUNK_MEMORY_BYTES / (AREAS * ranks));
  const chunk = Math.min(bytes, Math.max(CHUNK_BYTES.least, bytes / AHEAD), most);
  const units = chunk / ranks / ALIGNMENT;
  const slot = Math.max(1, chunk < most ? Math.ceil(units) : Math.floor(units)) * ALIGNMENT;
  return { areas: vectorMemory(AREAS * ranks * ranks * slot), slot };
}

/** Bytes of chunk memory, with what ranks hold of chunks. */
export function chunkBytes(memory: ChunkMemory, ranks: number): number {
  return memory.areas.buffer.byteLength + ranks * heldBytes(memory, ranks);
}

/** Bytes of chunks that a device has copied for its rank. */
export function heldBytes({ slot }: ChunkMemory, ranks: number): number {
  return AHEAD * ranks * slot;
}

/** Ranges by rank. */
type Lists = readonly (readonly BufferRange[])[];

export interface ChunksOptions {
  readonly memory: ChunkMemory;
  readonly ranks: number;
  /** Place among them. */
  readonly rank: number;
  /** Waits for the others. */
  readonly meet: () => void;
  /** Runs what meets the others and adds so many bytes; `last`: no more are to come, and all work is done that makes them. */
  readonly adding: (bytes: number, last: boolean, add: () => void) => void;
}

/** A rank's side of what goes through shared memory in chunks. Ranks call its methods together, with equal sizes. */
export class Chunks {
  private readonly memory: ChunkMemory;
  private readonly ranks: number;
  private readonly rank: number;
  private readonly meet: () => void;
  private readonly adding: ChunksOptions['adding'];
  private readonly addWide: AddWide;
  /** Meetings so far: each has the next area. */
  private turn = 0;

  constructor({ memory, ranks, rank, meet, adding }: ChunksOptions) {
    this.memory = memory;
    this.ranks = ranks;
    this.rank = rank;
    this.meet = meet;
    this.adding = adding;
    this.addWide = wideAdder(memory.areas);
  }

  /** Adds 64-bit integers over all ranks, a part of each chunk on each, and puts the totals in their place on all. */
  async sum(device: Device, { buffer, offset = 0, bytes }: BufferRange, submit: SubmitSums): Promise<void> {
    const { slot } = this.memory;
    const ranges = Array.from({ length: this.ranks }, (): BufferRange[] => []);
    for (let at = 0; at < bytes; at += slot)
      ranges[(at / slot) % this.ranks]!.push({
        buffer,
        offset: offset + at,
        bytes: Math.min(slot, bytes - at),
      });
    const write = (turn: number, chunk: number): void => {
      for (const [owner, list] of ranges.entries())
        this.write(device, this.slot(turn, owner, owner), chunkOf(list, chunk, slot));
    };
    const count = await this.add(device, ranges, submit, (turn, chunk) => {
      if (chunk > 0) write(turn - 1, chunk - 1); // all have met since they added them
    });
    const turn = this.turn++;
    this.meet();
    write(turn - 1, count - 1);
  }

  /** The same for ranges listed by rank; each adds, and gets the totals of, its own. */
  async sumOwn(device: Device, ranges: Lists, submit: SubmitSums): Promise<void> {
    const { slot } = this.memory;
    await this.add(device, ranges, submit, (turn, chunk) =>
      this.write(device, this.slot(turn, this.rank, this.rank), chunkOf(ranges[this.rank]!, chunk, slot)),
    );
  }

  /** Brings what each rank has in the ranges listed for it to the others. */
  async give(device: Device, ranges: Lists): Promise<void> {
    const size = this.ranks * this.memory.slot;
    const partOf = (chunk: number): BufferRange[] => chunkOf(ranges[this.rank]!, chunk, size);
    const copy = (chunk: number): Promise<Take> => device.stage(partOf(chunk));
    await this.inTurn(chunkCount(ranges, size), copy, (take, turn, chunk) => {
      take(placed(partOf(chunk), this.slots(turn, this.rank)));
      this.meet();
      for (const [owner, list] of ranges.entries())
        if (owner !== this.rank) this.write(device, this.slots(turn, owner), chunkOf(list, chunk, size));
    });
  }

  /** Adds what all ranks have in the ranges of this one, chunk by chunk. Gives how many there were. */
  private async add(
    device: Device,
    ranges: Lists,
    submit: SubmitSums,
    use: (turn: number, chunk: number) => void,
  ): Promise<number> {
    const { slot } = this.memory;
    const count = chunkCount(ranges, slot);
    const partsOf = (chunk: number): BufferRange[][] => ranges.map((list) => chunkOf(list, chunk, slot));
    const copy = (chunk: number): Promise<Take> => {
      submit(endOf(partsOf(chunk)));
      const copied = device.stage(partsOf(chunk).flat());
      if (chunk === count - 1) submit(Number.POSITIVE_INFINITY);
      return copied;
    };
    await this.inTurn(count, copy, (take, turn, chunk) => {
      const parts = partsOf(chunk);
      take(parts.flatMap((list, owner) => placed(list, this.slot(turn, this.rank, owner))));
      this.adding(bytesOf(parts.flat()), chunk === count - 1, () => {
        this.meet();
        this.addSlots(turn, bytesOf(parts[this.rank]!));
        use(turn, chunk);
      });
    });
    return count;
  }

  /** Uses chunk by chunk, for which ranks meet, while devices compute and copy the next ones. */
  private async inTurn(
    count: number,
    copy: (chunk: number) => Promise<Take>,
    use: (take: Take, turn: number, chunk: number) => void,
  ): Promise<void> {
    const copies: Promise<Take>[] = [];
    for (let chunk = 0; chunk < count; chunk++) {
      while (copies.length < Math.min(count, chunk + AHEAD)) {
        const copied = copy(copies.length);
        copied.catch(() => {}); // is thrown where it is awaited
        copies.push(copied);
      }
      use(await copies[chunk]!, this.turn++, chunk);
    }
  }

  /** Adds so many bytes of what all ranks have in the slots of this one. */
  private addSlots(turn: number, bytes: number): void {
    const total = this.slot(turn, this.rank, this.rank);
    for (let rank = 0; rank < this.ranks; rank++)
      if (rank !== this.rank)
        this.addWide(total.byteOffset, this.slot(turn, rank, this.rank).byteOffset, bytes / 8);
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
  return Math.ceil(Math.max(...ranges.map(bytesOf)) / size);
}

const bytesOf = (ranges: readonly BufferRange[]): number =>
  ranges.reduce((total, { bytes }) => total + bytes, 0);

/** The byte after the last of the ranges. */
const endOf = (ranges: Lists): number =>
  Math.max(0, ...ranges.flat().map(({ offset = 0, bytes }) => offset + bytes));

const chunkOf = (list: readonly BufferRange[], chunk: number, size: number): BufferRange[] =>
  between(list, chunk * size, (chunk + 1) * size);

/** Takes what a device has copied to host memory. */
type Take = (to: readonly Uint8Array[]) => void;

/** The parts of memory that ranges fill, one after the other. */
function placed(ranges: readonly BufferRange[], memory: Uint8Array): Uint8Array[] {
  let at = 0;
  return ranges.map(({ bytes }) => {
    at += bytes;
    return memory.subarray(at - bytes, at);
  });
}
