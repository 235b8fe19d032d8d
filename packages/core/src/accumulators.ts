import type { ProgramBuffers } from './buffers.ts';
import type { BufferRange, Device } from './device.ts';
import type { GradientSums, Program, UpdateShare } from './program.ts';

/** The gradient sums of a program on its device: started before the first leaf, finished by the update. */
export class Accumulators {
  private readonly device: Device;
  private readonly sums: GradientSums;
  private readonly bytes: number;
  private readonly buffers: ProgramBuffers;

  constructor(device: Device, program: Program, sums: GradientSums, buffers: ProgramBuffers) {
    this.device = device;
    this.sums = sums;
    this.bytes = program.slots[sums.slot]!.bytes;
    this.buffers = buffers;
  }

  /** Clears them, and sets their units 2^q. */
  start(q: Int32Array): void {
    const encoder = this.device.encoder('clear gradient sums');
    encoder.clearBuffer(this.buffer(this.sums.slot));
    encoder.clearBuffer(this.buffer(this.sums.peakSlot));
    this.device.submit(encoder);
    this.device.queue.writeBuffer(this.buffer(this.sums.scaleSlot), 0, q as Int32Array<ArrayBuffer>);
  }

  /** Bits of the largest |leaf gradient| of this device, of each tensor. */
  async peaks(): Promise<Uint32Array<ArrayBuffer>> {
    const bytes = 4 * this.sums.tensors.length;
    const [peaks] = await this.device.read([{ buffer: this.buffer(this.sums.peakSlot), bytes }]);
    return new Uint32Array(peaks!.buffer);
  }

  /** Where the sums of all tensors lie. */
  get range(): BufferRange {
    return { buffer: this.buffer(this.sums.slot), bytes: this.bytes };
  }

  /** Where the sums lie that each rank finishes. */
  rangesOf({ owners, ranks }: UpdateShare): BufferRange[][] {
    const buffer = this.buffer(this.sums.slot);
    return Array.from({ length: ranks }, (_, rank) =>
      this.sums.tensors
        .filter((_, i) => owners[i] === rank)
        .map(({ offset, count }) => ({ buffer, offset: 8 * offset, bytes: 8 * count })),
    );
  }

  private buffer(slot: number): GPUBuffer {
    return this.buffers.of(slot, 0);
  }
}
