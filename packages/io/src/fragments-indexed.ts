/** Fragments in a BED file that tabix has indexed: ends are read by place, and nothing is held in memory. */
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { explain } from '@cohesin/core';
import { TabixIndexedFile } from '@gmod/tabix';
import { checkPlace } from './bases.ts';
import { checkedBgzf, MAX_INFLATION } from './checked-file.ts';
import { endOutside, endsOf, type FragmentOptions, noFragments, passedOver } from './fragment-ends.ts';
import { parseBedRow } from './intervals.ts';
import { MemoryFile, OpenFile } from './open-file.ts';
import { nameIn } from './prepare/names.ts';
import type { Track } from './track.ts';

/** The index beside a file of fragments: `.tbi`, or `.csi` for chromosomes above 512 Mb. */
export async function findIndex(path: string): Promise<string | undefined> {
  for (const index of [`${path}.tbi`, `${path}.csi`]) {
    const found = await stat(index).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw explain(index, error);
    });
    if (found) return index;
  }
  return undefined;
}

/**
 * As `openFragments`, by way of the index.
 *
 * @throws when the file or its index is damaged, the index is of other columns or coordinates than BED's, an end lies
 *   outside its chromosome, or no chromosome is known
 */
export async function openIndexedFragments(
  path: string,
  indexPath: string,
  genome: ReadonlyMap<string, number>,
  options: FragmentOptions,
): Promise<Track> {
  const index = await readIndex(path, indexPath);
  const file = await OpenFile.open(path);
  try {
    const reader = new WholeLines(
      indexPath.endsWith('.tbi')
        ? { filehandle: checkedBgzf(file), tbiFilehandle: index }
        : { filehandle: checkedBgzf(file), csiFilehandle: index },
    );
    const names = await checkIndex(reader, path, indexPath);
    const own = ownNames(names, genome);
    if (own.size === 0) throw noFragments(path, names, genome);
    const track = new IndexedEnds(path, reader, own, genome, options);
    await track.checkEnds();
    return {
      path,
      chromosomes: track.chromosomes,
      warnings: await unknownNames(reader, path, names, own),
      read: (chrom, startBp, endBp) => track.read(chrom, startBp, endBp),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

const NEWLINE = 10;

/**
 * The reader passes over a last line that has no line end. Its chunks hold whole lines and the first byte of the next: what
 * is longer than that after the last line end is a line, and gets one.
 */
class WholeLines extends TabixIndexedFile {
  override async readChunk(...given: Parameters<TabixIndexedFile['readChunk']>) {
    const chunk = await super.readChunk(...given);
    const { length } = chunk.buffer;
    if (length - chunk.buffer.lastIndexOf(NEWLINE) <= 2) return chunk;
    const buffer = new Uint8Array(length + 1);
    buffer.set(chunk.buffer);
    buffer[length] = NEWLINE;
    return { ...chunk, buffer };
  }
}

/** The index in memory, after its checksums were checked: the reader believes what it states of its size. */
async function readIndex(path: string, indexPath: string): Promise<MemoryFile> {
  const file = await OpenFile.open(indexPath);
  try {
    const bytes = await file.read(file.bytes);
    const most = Math.min(bytes.length * MAX_INFLATION, MOST_INDEX_BYTES);
    await unpacked(bytes, { maxOutputLength: most }).catch((cause: Error) => {
      throw noIndex(path, indexPath, cause);
    });
    return new MemoryFile(bytes);
  } finally {
    await file.close();
  }
}

const unpacked = promisify<Uint8Array, { maxOutputLength: number }, Buffer>(gunzip);
const MOST_INDEX_BYTES = 2 ** 28; // of a human genome it has a few million

function noIndex(path: string, indexPath: string, cause: Error): Error {
  return new Error(
    `${indexPath}: no sound index: ${cause.message}; make it again with \`tabix -p bed ${path}\``,
    { cause },
  );
}

/** The file's names of chromosomes. */
async function checkIndex(
  reader: TabixIndexedFile,
  path: string,
  indexPath: string,
): Promise<readonly string[]> {
  const { columnNumbers, coordinateType, refIdToName } = await reader.getMetadata().catch((cause: Error) => {
    throw noIndex(path, indexPath, cause);
  });
  const { ref, start, end } = columnNumbers;
  if (ref !== 1 || start !== 2 || end !== 3 || coordinateType !== 'zero-based-half-open')
    throw new Error(
      `${indexPath}: indexes columns ${ref}, ${start} and ${end} as ${coordinateType} places, but BED has 1, 2 and 3, half-open from 0; make it again with \`tabix -p bed ${path}\``,
    );
  return refIdToName;
}

/** The file's name of each chromosome of the genome. */
function ownNames(
  names: readonly string[],
  genome: ReadonlyMap<string, number>,
): ReadonlyMap<string, string> {
  return new Map(
    names.flatMap((name) => {
      const chrom = nameIn((candidate) => genome.has(candidate), name);
      return chrom === undefined ? [] : [[chrom, name] as const];
    }),
  );
}

async function unknownNames(
  reader: TabixIndexedFile,
  path: string,
  names: readonly string[],
  own: ReadonlyMap<string, string>,
): Promise<string[]> {
  const known = new Set(own.values());
  let [all, over] = [0, 0];
  for (const name of names) {
    const lines = await reader.lineCount(name);
    all += Math.max(0, lines);
    if (!known.has(name)) over += Math.max(0, lines);
  }
  return passedOver(
    path,
    names.filter((name) => !known.has(name)),
    over,
    all,
  );
}

/** Ends by place. */
class IndexedEnds {
  readonly chromosomes: ReadonlyMap<string, number>;
  readonly #path: string;
  readonly #reader: TabixIndexedFile;
  readonly #names: ReadonlyMap<string, string>;
  readonly #options: FragmentOptions;
  /** An end is moved by no more, in bp. */
  readonly #reachBp: number;

  constructor(
    path: string,
    reader: TabixIndexedFile,
    names: ReadonlyMap<string, string>,
    genome: ReadonlyMap<string, number>,
    options: FragmentOptions,
  ) {
    this.#path = path;
    this.#reader = reader;
    this.#names = names;
    this.#options = options;
    this.#reachBp = Math.max(...(options.shiftBp ?? [0, 0]).map(Math.abs));
    this.chromosomes = new Map([...genome].filter(([name]) => names.has(name)));
  }

  async read(chrom: string, startBp: number, endBp: number): Promise<Float32Array> {
    checkPlace(this.#path, this.chromosomes, chrom, startBp, endBp);
    const counts = new Float32Array(endBp - startBp);
    await this.#forEnds(chrom, startBp, endBp, (place) => {
      if (place >= startBp && place < endBp) counts[place - startBp]!++;
    });
    return counts;
  }

  /** Only fragments at the ends of a chromosome can have ends outside it: those alone are read. */
  async checkEnds(): Promise<void> {
    const { maxRefLength } = await this.#reader.getMetadata();
    for (const [chrom, length] of this.chromosomes) {
      const check = (place: number, line: string): void => {
        if (place < 0 || place >= length)
          throw endOutside(`${this.#path}: ${JSON.stringify(line)}`, place, chrom, length);
      };
      await this.#forEnds(chrom, 0, 1, check);
      await this.#forEnds(chrom, length - 1, maxRefLength, check);
    }
  }

  /** The ends of every fragment that has some within reach of a place, and other ends too. */
  async #forEnds(
    chrom: string,
    startBp: number,
    endBp: number,
    body: (place: number, line: string) => void,
  ): Promise<void> {
    if (startBp >= endBp) return;
    const [from, to] = [Math.max(0, startBp - this.#reachBp), endBp + this.#reachBp];
    const where = `${this.#path}: near ${chrom}:${startBp}-${endBp}`;
    await this.#reader
      .getLines(this.#names.get(chrom)!, from, to, (line) => {
        for (const place of endsOf(parseBedRow(line, where), where, this.#options)) body(place, line);
      })
      .catch((cause: Error) => {
        if (cause.message.startsWith(this.#path)) throw cause;
        throw new Error(
          `${this.#path}: ${chrom}:${startBp}-${endBp}: damaged, or its index is of another file: ${cause.message}; make the index again with \`tabix -f -p bed\``,
          { cause },
        );
      });
  }
}
