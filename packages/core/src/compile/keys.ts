/** Constants that a dispatch passes as immediates, so that the text of a kernel is the same for every layer and shape. */

/** Immediates for keys; further ones are written into the text. */
const MAX_KEYS = 4;

export class Keys {
  readonly values: number[] = [];
  /** Positions of those that are sizes. */
  private readonly sizes = new Set<number>();

  /** WGSL of a constant of this use. */
  key(value: number): string {
    const known = this.values.findIndex((key, position) => key === value && !this.sizes.has(position));
    return known >= 0 ? nameOf(known) : this.add(value);
  }

  /** As `key`, but never shared, so that sizes that happen to be equal do not change the text. */
  extent(size: number): string {
    this.sizes.add(this.values.length);
    return this.add(size);
  }

  /** What each immediate's name stands for. */
  byName(): ReadonlyMap<string, number> {
    return new Map(this.values.map((value, position) => [nameOf(position), value]));
  }

  private add(value: number): string {
    if (this.values.length === MAX_KEYS) return `${value}u`;
    return nameOf(this.values.push(value) - 1);
  }
}

const nameOf = (position: number): string => `frame.k.${'xyzw'[position]}`;
