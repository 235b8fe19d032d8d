/** Indexes of FASTA files, as samtools writes them: `.fai` (where each sequence is) and `.gzi` (where each BGZF block is). */
import { BGZF_HEADER_BYTES, bgzfBlockBytes } from './checked-file.ts';
import type { OpenFile } from './open-file.ts';

/** One row of a `.fai`. */
export interface FastaEntry {
  readonly name: string;
  readonly lengthBp: number;
  /** First base, in bytes of the uncompressed file. */
  readonly offset: number;
  readonly lineBases: number;
  /** With the line's end. */
  readonly lineBytes: number;
}

const [NEWLINE, RETURN, GREATER] = [10, 13, 62];

/**
 * Where the sequences of a FASTA are.
 *
 * @throws when it does not begin with a header, a name comes twice, or the lines of a sequence differ in length before the last
 */
export async function fastaIndex(chunks: AsyncIterable<Uint8Array>, path: string): Promise<FastaEntry[]> {
  const scanner = new Scanner(path);
  for await (const chunk of chunks) {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      scanner.part(chunk.subarray(from, end + 1));
      scanner.endLine();
      from = end + 1;
    }
    scanner.part(chunk.subarray(from));
  }
  scanner.endLine();
  return scanner.entries();
}

interface Entry {
  readonly name: string;
  readonly offset: number;
  lengthBp: number;
  lineBases: number;
  lineBytes: number;
  /** A shorter line came: only the next header may follow. */
  ended: boolean;
}

/** Takes lines in parts; keeps counts, and the text of headers only. */
class Scanner {
  readonly #path: string;
  readonly #entries = new Map<string, Entry>();
  #current: Entry | undefined;
  #line = 0;
  #lineStart = 0;
  #bytes = 0;
  #ends = 0; // of them, the bytes of the line's end
  #header: string | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  part(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#bytes === 0 && bytes[0] === GREATER) this.#header = '';
    if (this.#header !== undefined) this.#header += new TextDecoder().decode(bytes);
    this.#bytes += bytes.length;
    const last = bytes.length - 1;
    this.#ends = bytes[last] === NEWLINE ? (bytes[last - 1] === RETURN ? 2 : 1) : 0;
  }

  endLine(): void {
    if (this.#bytes === 0) return;
    this.#line++;
    if (this.#header !== undefined) this.#open(this.#header);
    else this.#add(this.#bytes - this.#ends);
    this.#lineStart += this.#bytes;
    this.#bytes = this.#ends = 0;
    this.#header = undefined;
  }

  entries(): FastaEntry[] {
    return [...this.#entries.values()].map(({ ended: _, ...entry }) => entry);
  }

  #open(header: string): void {
    const name = /^>\s*(\S+)/.exec(header)?.[1];
    if (name === undefined) throw this.#fault('a header without a name');
    if (this.#entries.has(name)) throw this.#fault(`a second sequence named ${name}`);
    const offset = this.#lineStart + this.#bytes;
    this.#current = { name, offset, lengthBp: 0, lineBases: 0, lineBytes: 0, ended: false };
    this.#entries.set(name, this.#current);
  }

  #add(bases: number): void {
    const entry = this.#current;
    if (entry === undefined) throw this.#fault('expected a header, a line that begins with >');
    if (bases === 0) {
      entry.ended = true;
      return;
    }
    if (entry.lineBases === 0) [entry.lineBases, entry.lineBytes] = [bases, this.#bytes];
    if (entry.ended || bases > entry.lineBases) {
      throw this.#fault(
        `lines of different lengths in ${entry.name}; only its last may be shorter: fold them again, as \`seqtk seq -l 60\` does`,
      );
    }
    entry.ended = bases < entry.lineBases;
    entry.lengthBp += bases;
  }

  #fault(what: string): Error {
    return new Error(`${this.#path}: line ${this.#line}: ${what}`);
  }
}

/** The text of a `.fai`. */
export function formatFai(entries: readonly FastaEntry[]): string {
  return entries
    .map(
      ({ name, lengthBp, offset, lineBases, lineBytes }) =>
        `${[name, lengthBp, offset, lineBases, lineBytes].join('\t')}\n`,
    )
    .join('');
}

/** @throws for a row that is no row of a `.fai`, a name that comes twice, or none at all */
export function parseFai(text: string, path: string): FastaEntry[] {
  const names = new Set<string>();
  const entries = text.split(/\r?\n/).flatMap((line, i): FastaEntry[] => {
    if (line === '') return [];
    const [name = '', ...cells] = line.split('\t');
    const [lengthBp, offset, lineBases, lineBytes] = cells.map(Number);
    const sound = cells.length >= 4 && cells.slice(0, 4).every((cell) => /^\d+$/.test(cell));
    if (!sound || lineBases! > lineBytes! || (lengthBp! > 0 && lineBases === 0)) {
      throw new Error(
        `${path}: line ${i + 1}: expected name, length, offset, bases and bytes per line, found ${JSON.stringify(line)}; delete the index, it is made again`,
      );
    }
    if (names.has(name)) throw new Error(`${path}: line ${i + 1}: ${name} comes twice`);
    names.add(name);
    return [{ name, lengthBp: lengthBp!, offset: offset!, lineBases: lineBases!, lineBytes: lineBytes! }];
  });
  if (entries.length === 0)
    throw new Error(`${path}: names no sequences; delete the index, it is made again`);
  return entries;
}

/**
 * The bytes of a `.gzi`: for each block but the first and the empty last, its offset in the file and in the uncompressed bytes.
 *
 * @throws when a block is no block of BGZF
 */
export async function bgzfIndex(file: OpenFile): Promise<Uint8Array<ArrayBuffer>> {
  const offsets: [bigint, bigint][] = [];
  let unpacked = 0;
  for (let at = 0; at < file.bytes; ) {
    const blockBytes = bgzfBlockBytes(await file.read(BGZF_HEADER_BYTES, at), 0);
    if (blockBytes === undefined || at + blockBytes > file.bytes)
      throw new Error(
        `${file.path}: no whole BGZF block at byte ${at}; the file was cut short or is damaged`,
      );
    const tail = await file.read(4, at + blockBytes - 4);
    const blockUnpacked = new DataView(tail.buffer).getUint32(0, true);
    if (at > 0 && blockUnpacked > 0) offsets.push([BigInt(at), BigInt(unpacked)]);
    unpacked += blockUnpacked;
    at += blockBytes;
  }
  const index = new DataView(new ArrayBuffer(8 + 16 * offsets.length));
  index.setBigUint64(0, BigInt(offsets.length), true);
  for (const [i, [packed, start]] of offsets.entries()) {
    index.setBigUint64(8 + 16 * i, packed, true);
    index.setBigUint64(16 + 16 * i, start, true);
  }
  return new Uint8Array(index.buffer);
}
