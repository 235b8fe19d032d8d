import type { ProgramBuffers } from './buffers.ts';
import type { Device } from './device.ts';
import type { SumParts } from './exchange.ts';
import type { GradientSums, Program } from './program.ts';

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

  /** What the leaves of this device added; the sums themselves only when they are needed elsewhere. */
  async read(withSums: boolean): Promise<SumParts> {
    const peakPart = { buffer: this.buffer(this.sums.peakSlot), bytes: 4 * this.sums.tensors.length };
    const sumPart = { buffer: this.buffer(this.sums.slot), bytes: this.bytes };
    const read = await this.device.read(withSums ? [peakPart, sumPart] : [peakPart]);
    const [peaks, sums] = read.map((part) => new Uint32Array(part.slice().buffer));
    return { peaks: peaks!, sums };
  }

  /** Puts the sums over all leaves in place of this device's. */
  write(sums: Uint32Array): void {
    const { buffer, byteOffset, byteLength } = sums as Uint32Array<ArrayBuffer>;
    this.device.write(this.buffer(this.sums.slot), 0, new Uint8Array(buffer, byteOffset, byteLength));
  }

  private buffer(slot: number): GPUBuffer {
    return this.buffers.of(slot, 0);
  }
}
