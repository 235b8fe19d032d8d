/** Numbers that come one by one, in as many bytes as their type has. */
type Numbers = Uint32Array | Int32Array | Float64Array;

const FIRST_COUNT = 16;

export class NumberList<Values extends Numbers> {
  readonly #type: new (
    count: number,
  ) => Values;
  #values: Values;
  #length = 0;

  constructor(type: new (count: number) => Values) {
    this.#type = type;
    this.#values = new type(FIRST_COUNT);
  }

  get length(): number {
    return this.#length;
  }

  push(value: number): void {
    if (this.#length === this.#values.length) {
      const more = new this.#type(2 * this.#length);
      more.set(this.#values);
      this.#values = more;
    }
    this.#values[this.#length++] = value;
  }

  at(i: number): number {
    return this.#values[i]!;
  }

  /** All of them; valid until the next is pushed. */
  values(): Values {
    return this.#values.subarray(0, this.#length) as Values;
  }

  /** Keeps the memory for the next ones. */
  clear(): void {
    this.#length = 0;
  }
}
