/** Genomes in 2bit: four bases a byte, runs of N apart (UCSC's format page, versions 0 and 1, either byte order). */
import { checkPlace } from './bases.ts';
import type { Genome } from './genome.ts';
import { OpenFile } from './open-file.ts';

export const TWO_BIT_MAGIC = 0x1a412743;

const CODE_OF_BITS = Uint8Array.of(3, 1, 0, 2); // stored as T, C, A, G
const READ_BYTES = 2 ** 16;

interface Sequence {
  readonly lengthBp: number;
  /** Starts and lengths of runs of N, in bp. */
  readonly unknown: readonly [starts: readonly number[], lengths: readonly number[]];
  /** Where its bases begin, in bytes of the file. */
  readonly basesAt: number;
}

/** @throws when the file is damaged */
export async function openTwoBit(path: string): Promise<Genome> {
  const file = await OpenFile.open(path);
  try {
    const sequences = await readSequences(new Words(file, await isLittle(file)));
    const chromosomes = new Map([...sequences].map(([name, { lengthBp }]) => [name, lengthBp]));
    if (chromosomes.size === 0) throw new Error(`${path}: holds no sequences`);
    return {
      path,
      format: '2bit',
      chromosomes,
      read: async (chrom, startBp, endBp) => {
        checkPlace(path, chromosomes, chrom, startBp, endBp);
        return await readCodes(file, sequences.get(chrom)!, startBp, endBp);
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function isLittle(file: OpenFile): Promise<boolean> {
  const magic = await file.read(4);
  return new DataView(magic.buffer).getUint32(0, true) === TWO_BIT_MAGIC;
}

async function readSequences(words: Words): Promise<Map<string, Sequence>> {
  const [, version = 0, count = 0] = await words.take(4, 0);
  if (version > 1) throw words.fault(`version ${version}; versions 0 and 1 are read`);
  const places = new Map<string, number>();
  let at = 16;
  for (let i = 0; i < count; i++) {
    const { name, offset, end } = await words.entry(at, version === 1);
    if (places.has(name)) throw words.fault(`a second sequence named ${name}`);
    places.set(name, offset);
    at = end;
  }
  const sequences = new Map<string, Sequence>();
  for (const [name, offset] of places) sequences.set(name, await readSequence(words, name, offset));
  return sequences;
}

async function readSequence(words: Words, name: string, offset: number): Promise<Sequence> {
  const [lengthBp = 0, runs = 0] = await words.take(2, offset);
  const starts = await words.take(runs, offset + 8);
  const lengths = await words.take(runs, offset + 8 + 4 * runs);
  const inside = starts.every((start, i) => start + lengths[i]! <= lengthBp);
  if (!inside) throw words.fault(`a run of N beyond the ${lengthBp} bp of ${name}`);
  const maskedAt = offset + 8 + 8 * runs;
  const [masked = 0] = await words.take(1, maskedAt);
  const basesAt = maskedAt + 8 + 8 * masked; // runs of lower case, and a reserved word
  words.check(basesAt, Math.ceil(lengthBp / 4), `the ${lengthBp} bp of ${name}`);
  return { lengthBp, unknown: [starts, lengths], basesAt };
}

async function readCodes(
  file: OpenFile,
  { unknown: [starts, lengths], basesAt }: Sequence,
  startBp: number,
  endBp: number,
): Promise<Uint8Array> {
  const first = startBp >> 2;
  const packed = await file.read(Math.ceil(endBp / 4) - first, basesAt + first);
  const codes = new Uint8Array(endBp - startBp);
  for (let i = 0, bp = startBp; bp < endBp; i++, bp++)
    codes[i] = CODE_OF_BITS[(packed[(bp >> 2) - first]! >> (6 - 2 * (bp & 3))) & 3]!;
  for (const [i, start] of starts.entries())
    codes.fill(4, Math.max(0, start - startBp), Math.max(0, start + lengths[i]! - startBp));
  return codes;
}

/** The numbers of a file, none of which is believed before it is seen to lie inside. */
class Words {
  readonly #file: OpenFile;
  readonly #little: boolean;
  #held = new Uint8Array(0);
  #heldAt = 0;

  constructor(file: OpenFile, little: boolean) {
    this.#file = file;
    this.#little = little;
  }

  /** 32-bit words from a place on. @throws when they are not all inside the file */
  async take(count: number, at: number): Promise<number[]> {
    const view = await this.#view(4 * count, at, `${count} numbers`);
    return Array.from({ length: count }, (_, i) => view.getUint32(4 * i, this.#little));
  }

  /** A name and an offset of the index. */
  async entry(at: number, wide: boolean): Promise<{ name: string; offset: number; end: number }> {
    const length = (await this.#view(1, at, 'a name')).getUint8(0);
    const bytes = 1 + length + (wide ? 8 : 4);
    const view = await this.#view(bytes, at, 'a name');
    const name = new TextDecoder('latin1').decode(new Uint8Array(view.buffer, view.byteOffset + 1, length));
    const offset = wide
      ? Number(view.getBigUint64(1 + length, this.#little))
      : view.getUint32(1 + length, this.#little);
    return { name, offset, end: at + bytes };
  }

  check(at: number, bytes: number, what: string): void {
    if (at + bytes > this.#file.bytes)
      throw this.fault(`${what} at byte ${at} end beyond the file, which has ${this.#file.bytes}`);
  }

  fault(what: string): Error {
    return new Error(`${this.#file.path}: damaged 2bit file: ${what}; download or write it again`);
  }

  async #view(bytes: number, at: number, what: string): Promise<DataView> {
    this.check(at, bytes, what);
    if (at < this.#heldAt || at + bytes > this.#heldAt + this.#held.length) {
      this.#held = await this.#file.read(Math.max(bytes, READ_BYTES), at);
      this.#heldAt = at;
    }
    return new DataView(this.#held.buffer, at - this.#heldAt, bytes);
  }
}
