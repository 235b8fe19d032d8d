/** Bytes by the number asked for, out of chunks as they come. */
export class ChunkQueue {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array(0);
  #joined: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /**
   * The next `length` bytes; fewer when the chunks end. A view where one chunk holds them all, else in memory that the next
   * call uses again. Memory grows with the bytes that arrive, not with `length`. `onPart` sees the bytes as they come.
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
      if (filled + part.length > this.#joined.length) this.#grow(filled, filled + part.length, length);
      onPart?.(part);
      this.#joined.set(part, filled);
      filled += part.length;
    }
    return this.#joined.subarray(0, filled);
  }

  #split(length: number): Uint8Array {
    const part = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return part;
  }

  #grow(filled: number, needed: number, length: number): void {
    const larger = new Uint8Array(Math.min(length, 2 * needed));
    larger.set(this.#joined.subarray(0, filled));
    this.#joined = larger;
  }

  async #refill(): Promise<boolean> {
    const next = await this.#chunks.next();
    if (next.done) return false;
    this.#held = next.value;
    return true;
  }
}
