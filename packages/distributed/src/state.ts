import { elementCount, type HostDType, type HostTensor, type ProgramState } from '@cohesin/core';
import type { Mesh } from './mesh.ts';
import type { SharedTensor } from './rank-worker.ts';

let nextId = 0;

/** A number that no other function or state of this process has. */
export const freshId = (): number => nextId++;

/** Parameters, running statistics and moments on the ranks of a mesh: on all of them, or on those of their stage. */
export class DistributedState {
  readonly id: number;
  /** The rank that moves a parameter, where ranks share the update: other functions on this state keep to it. */
  readonly owners: Map<string, number> = new Map();
  private readonly mesh: Mesh;
  private readonly shapes = new Map<string, readonly number[]>();
  private readonly holders = new Map<string, Holders>();
  private stale = false;

  constructor(mesh: Mesh) {
    this.mesh = mesh;
    this.id = freshId();
  }

  get names(): readonly string[] {
    return [...this.shapes.keys()].sort();
  }

  /** Bytes on all ranks together. */
  get bytes(): number {
    return [...this.shapes].reduce(
      (total, [name, shape]) => total + this.ranksOf(name).length * 4 * elementCount(shape),
      0,
    );
  }

  has(name: string): boolean {
    return this.shapes.has(name);
  }

  /** The ranks that hold a tensor, the first of them one that it is read from. */
  ranksOf(name: string): readonly number[] {
    const { ranks = [], copies = [] } = this.holders.get(name) ?? {};
    return [...ranks, ...copies];
  }

  /**
   * Declares state that a program has on some ranks; called by `distribute`. Where a program that assigns it is on other
   * ranks, these have copies, which `refresh` brings up to date.
   *
   * @throws when programs on different ranks assign it.
   */
  declare(
    { name, shape }: Pick<ProgramState, 'name' | 'shape'>,
    ranks: readonly number[],
    assigns: boolean,
  ): void {
    const known = this.holders.get(name);
    if (assigns && known?.assigned === true && !sameRanks(known.ranks, ranks))
      throw new Error(
        `${name} is trained on rank ${known.ranks.join(', ')} but this function trains it on rank ${ranks.join(', ')}; give both the same stages`,
      );
    const first = known === undefined || (assigns && !known.assigned) ? ranks : known.ranks;
    const others = [...ranks, ...this.ranksOf(name)].filter((rank) => !first.includes(rank));
    this.shapes.set(name, shape);
    this.holders.set(name, {
      ranks: first,
      copies: [...new Set(others)],
      assigned: assigns || known?.assigned === true,
    });
    this.stale ||= others.length > 0;
  }

  /** To be called when a step has changed the state: copies are then out of date. */
  changed(): void {
    this.stale = true;
  }

  /** Brings copies up to date. */
  async refresh(): Promise<void> {
    if (!this.stale) return;
    const copied = [...this.holders].flatMap(([name, { copies }]) => (copies.length > 0 ? name : []));
    if (copied.length > 0) await this.write(await this.read(copied));
    this.stale = false;
  }

  /** Sets values on every rank that holds them. @throws for unknown names or other shapes. */
  async write(values: ReadonlyMap<string, HostTensor>): Promise<void> {
    const unknown = [...values.keys()].find((name) => !this.has(name));
    if (unknown !== undefined)
      throw new Error(`no state is called '${unknown}'; there are ${this.names.slice(0, 20).join(', ')}`);
    for (const piece of inPieces(values, ([, { shape }]) => 4 * elementCount(shape))) {
      const tensors = piece.map(([name, { shape, data }]) => {
        const tensor = sharedTensor(name, shape, 'f32');
        new Float32Array(tensor.memory).set(data as Float32Array);
        return tensor;
      });
      await Promise.all(
        this.mesh.ranks.map((rank) => {
          const own = tensors.filter(({ name }) => this.ranksOf(name).includes(rank.index));
          return own.length === 0 ? undefined : rank.call((api) => api.writeState(this.id, own));
        }),
      );
    }
  }

  /** Values in name order, each from the first rank that holds it. */
  async read(names: readonly string[] = this.names): Promise<Map<string, HostTensor>> {
    const values = new Map<string, HostTensor>();
    for (const piece of inPieces(names, (name) => 4 * elementCount(this.shapes.get(name)!))) {
      const tensors = piece.map((name) => sharedTensor(name, this.shapes.get(name)!, 'f32'));
      await Promise.all(
        this.mesh.ranks.map((rank) => {
          const own = tensors.filter(({ name }) => this.ranksOf(name)[0] === rank.index);
          return own.length === 0 ? undefined : rank.call((api) => api.readState(this.id, own));
        }),
      );
      for (const { name, shape, memory } of tensors)
        values.set(name, { shape, dtype: 'f32', data: new Float32Array(memory).slice() });
    }
    return values;
  }

  /** @throws when ranks hold different bits, naming the first tensor that differs. */
  async checkEqual(): Promise<void> {
    await this.refresh();
    const shared = this.names.filter((name) => this.ranksOf(name).length > 1);
    const held = this.mesh.ranks.map(({ index }) =>
      shared.filter((name) => this.ranksOf(name).includes(index)),
    );
    const hashes = await Promise.all(
      this.mesh.ranks.map(async (rank, i) => {
        const own = held[i]!;
        const values = own.length === 0 ? [] : await rank.call((api) => api.hashState(this.id, own));
        return new Map(own.map((name, k) => [name, values[k]!]));
      }),
    );
    for (const name of shared) {
      const [first, ...others] = this.ranksOf(name);
      const other = others.find((rank) => hashes[rank]!.get(name) !== hashes[first!]!.get(name));
      if (other !== undefined)
        throw new Error(
          `rank ${other} holds another ${name} than rank ${first}; a device computed something else. Restart from the last checkpoint`,
        );
    }
  }
}

interface Holders {
  /** Ranks that programs keep alike. */
  readonly ranks: readonly number[];
  readonly copies: readonly number[];
  /** Whether a program assigns it. */
  readonly assigned: boolean;
}

const sameRanks = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((rank) => b.includes(rank));

const PIECE_BYTES = 2 ** 26;

/** Items in order, a few at a time: what is made of them for the ranks then takes little memory beside them. */
export function* inPieces<T>(items: Iterable<T>, bytesOf: (item: T) => number): Generator<T[]> {
  let piece: T[] = [];
  let bytes = 0;
  for (const item of items) {
    piece.push(item);
    bytes += bytesOf(item);
    if (bytes < PIECE_BYTES) continue;
    yield piece;
    [piece, bytes] = [[], 0];
  }
  if (piece.length > 0) yield piece;
}

const BYTES: Partial<Record<HostDType, number>> = { u8: 1, f16: 2 };

export function sharedTensor(name: string, shape: readonly number[], dtype: HostDType): SharedTensor {
  const bytes = elementCount(shape) * (BYTES[dtype] ?? 4);
  return { name, shape, dtype, memory: new SharedArrayBuffer(Math.max(4, Math.ceil(bytes / 4) * 4)) };
}
