import type { ProgramBuffers } from './buffers.ts';
import type { BufferRange, Device } from './device.ts';
import type { Exchange, SubmitSums } from './exchange.ts';
import type { Binding, GradientSums, Program, Step, UpdateShare } from './program.ts';

/** The gradient sums of a program on its device: started before the first leaf, finished by the update. */
export class Accumulators {
  private readonly device: Device;
  private readonly sums: GradientSums;
  private readonly bytes: number;
  private readonly updateShare: UpdateShare | undefined;
  private readonly buffers: ProgramBuffers;

  constructor(device: Device, program: Program, sums: GradientSums, buffers: ProgramBuffers) {
    this.device = device;
    this.sums = sums;
    this.bytes = program.slots[sums.slot]!.bytes;
    this.updateShare = program.updateShare;
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

  /**
   * Adds them over ranks, for all ranks or those that move the parameters. Totals take the place of the sums before it is
   * known whether they count: a step that is repeated clears them.
   */
  async add(exchange: Exchange, submit: SubmitSums): Promise<void> {
    const { device, updateShare, bytes } = this;
    if (updateShare !== undefined) await exchange.sumOwn(device, this.rangesOf(updateShare), submit);
    else await exchange.sum(device, { buffer: this.buffer(this.sums.slot), bytes }, submit);
  }

  /** How many of a leaf's steps finish its additions to the sums before a byte of the range; all for `Infinity`. */
  stepsBefore(end: number, steps: readonly Step[]): number {
    if (end === Number.POSITIVE_INFINITY) return steps.length;
    const adds = ({ slot, access, offset = 0 }: Binding): boolean =>
      slot === this.sums.slot && access === 'read_write' && offset < end;
    return steps.findLastIndex(({ bindings }) => bindings.some(adds)) + 1;
  }

  /** Where the sums lie that each rank finishes, in their order. */
  private rangesOf({ owners, ranks }: UpdateShare): BufferRange[][] {
    const buffer = this.buffer(this.sums.slot);
    return Array.from({ length: ranks }, (_, rank) =>
      this.sums.tensors
        .filter((_, i) => owners[i] === rank)
        .sort((a, b) => a.offset - b.offset)
        .map(({ offset, count }) => ({ buffer, offset: 8 * offset, bytes: 8 * count })),
    );
  }

  private buffer(slot: number): GPUBuffer {
    return this.buffers.of(slot, 0);
  }
}
