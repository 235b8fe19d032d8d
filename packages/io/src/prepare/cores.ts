/** Lists of places of one length, in few bytes each: a genome may have millions. */
import type { Interval } from '../intervals.ts';
import { NumberList } from '../number-list.ts';
import type { SplitContig } from './contigs.ts';

/** The place of a sequence's targets: the sequence itself extends `cropBp` beyond at both ends. */
export interface Core extends Interval {
  readonly split: string;
}

export interface Cores extends Iterable<Core> {
  readonly length: number;
  at(i: number): Core;
  /** Held for each, in bytes. */
  readonly bytesEach: number;
}

abstract class CoreList implements Cores {
  abstract readonly length: number;
  abstract readonly bytesEach: number;
  abstract at(i: number): Core;

  *[Symbol.iterator](): Generator<Core, void, undefined> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}

export interface StrideOptions {
  readonly coreBp: number;
  /** Between the starts of sequences, in bp, by split. */
  readonly strideBp: (split: string) => number;
  /** Starts are multiples of it, in bp. */
  readonly snapBp: number;
}

/** Places along each contig, as many as fit. None is held: they follow from the contigs. */
export class CutCores extends CoreList {
  readonly length: number;
  readonly bytesEach = 0;
  readonly #contigs: readonly SplitContig[];
  /** Of the places of each contig, the first. */
  readonly #first: readonly number[];
  readonly #options: StrideOptions;

  constructor(contigs: readonly SplitContig[], options: StrideOptions) {
    super();
    this.#options = options;
    this.#contigs = contigs;
    let length = 0;
    this.#first = contigs.map((contig) => {
      const first = length;
      const room = contig.endBp - options.coreBp - this.#startBp(contig);
      if (room >= 0) length += Math.floor(room / options.strideBp(contig.split)) + 1;
      return first;
    });
    this.length = length;
  }

  at(i: number): Core {
    let [low, high] = [0, this.#first.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#first[middle]! <= i) low = middle + 1;
      else high = middle;
    }
    const contig = this.#contigs[low - 1]!;
    const { coreBp, strideBp } = this.#options;
    const startBp = this.#startBp(contig) + (i - this.#first[low - 1]!) * strideBp(contig.split);
    return { chrom: contig.chrom, startBp, endBp: startBp + coreBp, split: contig.split };
  }

  #startBp({ startBp }: SplitContig): number {
    return Math.ceil(startBp / this.#options.snapBp) * this.#options.snapBp;
  }
}

/** Places that come one by one. */
export class ListedCores extends CoreList {
  readonly bytesEach = 16;
  readonly #coreBp: number;
  readonly #names: string[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #chroms = new NumberList(Uint32Array);
  readonly #starts = new NumberList(Float64Array);
  readonly #splits = new NumberList(Uint32Array);

  constructor(coreBp: number) {
    super();
    this.#coreBp = coreBp;
  }

  get length(): number {
    return this.#starts.length;
  }

  add(chrom: string, startBp: number, split: string): void {
    this.#chroms.push(this.#numberOf(chrom));
    this.#starts.push(startBp);
    this.#splits.push(this.#numberOf(split));
  }

  at(i: number): Core {
    const startBp = this.#starts.at(i);
    return {
      chrom: this.#names[this.#chroms.at(i)]!,
      startBp,
      endBp: startBp + this.#coreBp,
      split: this.#names[this.#splits.at(i)]!,
    };
  }

  #numberOf(name: string): number {
    const found = this.#numbers.get(name) ?? this.#names.push(name) - 1;
    this.#numbers.set(name, found);
    return found;
  }
}

/** Some of other places, in an order of their own. */
export class ChosenCores extends CoreList {
  readonly bytesEach: number;
  readonly #from: Cores;
  readonly #order: Uint32Array;

  constructor(from: Cores, order: Uint32Array) {
    super();
    this.#from = from;
    this.#order = order;
    this.bytesEach = 4 + (from.bytesEach * from.length) / Math.max(1, order.length);
  }

  get length(): number {
    return this.#order.length;
  }

  at(i: number): Core {
    return this.#from.at(this.#order[i]!);
  }
}

/** Those that pass, in their order. */
export function filterCores(cores: Cores, passes: (core: Core) => boolean): Cores {
  const kept = new NumberList(Uint32Array);
  for (let i = 0; i < cores.length; i++) if (passes(cores.at(i))) kept.push(i);
  return kept.length === cores.length ? cores : new ChosenCores(cores, kept.values());
}

/** Each place once: the first of those that are alike. */
export function uniqueCores(cores: Cores): Cores {
  const { order, keys } = alongGenome(cores);
  const again = new Uint8Array(cores.length);
  for (let i = 1; i < order.length; i++) if (keys[order[i]!] === keys[order[i - 1]!]) again[order[i]!] = 1;
  let i = 0;
  return filterCores(cores, () => again[i++] === 0);
}

/** How many pairs of places of different splits overlap, and the first pair. */
export function splitOverlaps(cores: Cores): { pairs: number; first?: readonly [Core, Core] } {
  let pairs = 0;
  let first: readonly [Core, Core] | undefined;
  let open: Core[] = [];
  for (const i of alongGenome(cores).order) {
    const core = cores.at(i);
    open = open.filter(({ chrom, endBp }) => chrom === core.chrom && endBp > core.startBp);
    for (const other of open) {
      if (other.split === core.split) continue;
      pairs++;
      first ??= [other, core];
    }
    open.push(core);
  }
  return first ? { pairs, first } : { pairs };
}

/** By chromosome and start; where both are alike as they came. */
function alongGenome(cores: Cores): { order: Uint32Array; keys: Float64Array } {
  const numbers = new Map<string, number>();
  const keys = new Float64Array(cores.length);
  for (let i = 0; i < keys.length; i++) {
    const { chrom, startBp } = cores.at(i);
    const number = numbers.get(chrom) ?? numbers.size;
    numbers.set(chrom, number);
    keys[i] = number * 2 ** 33 + startBp;
  }
  const order = Uint32Array.from(keys.keys());
  order.sort((a, b) => keys[a]! - keys[b]! || a - b);
  return { order, keys };
}
