/** Memory for a fixed number of decoded records, shared by threads. */
import type { RecordMemory, RecordShape } from './record.ts';

/** Slots that are lent out one record at a time; there is never more memory than them. */
export class RecordSlots {
  readonly memory: readonly SharedArrayBuffer[];
  readonly #free: number[];

  constructor(count: number, shape: RecordShape) {
    const bytes = targetBytes(shape) + shape.sequenceLengthBp;
    this.memory = Array.from({ length: count }, () => new SharedArrayBuffer(bytes));
    this.#free = Array.from({ length: count }, (_, slot) => count - 1 - slot);
  }

  /** Slots that hold a record or wait for one. */
  get inUse(): number {
    return this.memory.length - this.#free.length;
  }

  /** A free slot, or undefined when all are in use. */
  take(): number | undefined {
    return this.#free.pop();
  }

  give(slot: number): void {
    this.#free.push(slot);
  }
}

/** The parts of a slot: targets `[targetLength × numTargets]` as f32, the sequence `[sequenceLengthBp]`. */
export function partsOf(slot: SharedArrayBuffer, shape: RecordShape): RecordMemory {
  const bytes = targetBytes(shape);
  return {
    targets: new Float32Array(slot, 0, bytes / 4),
    sequence: new Uint8Array(slot, bytes, shape.sequenceLengthBp),
  };
}

function targetBytes({ targetLength, numTargets }: RecordShape): number {
  return targetLength * numTargets * 4; // pages that f16 targets leave alone take no memory
}
