/** Memory that grows and is used again. */
export class Scratch {
  bytes: Uint8Array = new Uint8Array(0);
}

/** Bytes by the number asked for, out of chunks as they come; each chunk is used up before the next is asked for. */
export class ChunkQueue {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #scratch: Scratch;
  #held: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array>, scratch: Scratch) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#scratch = scratch;
  }

  /**
   * The next `length` bytes; fewer when the chunks end. A view where one chunk holds them all, else in the scratch memory,
   * valid until its next use. Memory grows with the bytes that arrive, not with `length`. `onPart` sees the bytes as they come.
   *
   * @throws what the chunks throw
   */
  async take(length: number, onPart?: (part: Uint8Array) => void): Promise<Uint8Array> {
    if (this.#held.length === 0) await this.#refill();
    if (this.#held.length >= length) {
      const whole = this.#split(length);
      onPart?.(whole);
      return whole;
    }
    let filled = 0;
    while (filled < length) {
      if (this.#held.length === 0 && !(await this.#refill())) break;
      const part = this.#split(Math.min(length - filled, this.#held.length));
      if (filled + part.length > this.#scratch.bytes.length) this.#grow(filled, filled + part.length, length);
      onPart?.(part);
      this.#scratch.bytes.set(part, filled);
      filled += part.length;
    }
    return this.#scratch.bytes.subarray(0, filled);
  }

  #split(length: number): Uint8Array {
    const part = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return part;
  }

  #grow(filled: number, needed: number, length: number): void {
    const larger = new Uint8Array(Math.min(length, 2 * needed));
    larger.set(this.#scratch.bytes.subarray(0, filled));
    this.#scratch.bytes = larger;
  }

  async #refill(): Promise<boolean> {
    const next = await this.#chunks.next();
    if (next.done) return false;
    this.#held = next.value;
    return true;
  }
}
