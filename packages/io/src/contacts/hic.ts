/** Contact maps in Juicer's files (`.hic`), through hic-straw. */
import { promisify } from 'node:util';
import { inflate } from 'node:zlib';
import type { HicFile, Region } from 'hic-straw/dist/hic-straw.esm.js';
import { checkPlace, someNames } from '../bases.ts';
import { SeenPlaces } from '../checked-file.ts';
import { OpenFile } from '../open-file.ts';
import type { ContactLayout, ContactMap, ContactMapOptions } from './contact-map.ts';
import { type ContactWindow, checkBins } from './contact-target.ts';

const DEFAULT_NORMALIZATION = 'KR';

/**
 * @throws when the file is damaged or older than version 6, has several resolutions and none is chosen, or lacks the one
 *   chosen or the normalization
 */
export async function openHic(
  path: string,
  { binBp: wanted, normalization = DEFAULT_NORMALIZATION }: ContactMapOptions = {},
): Promise<ContactMap> {
  const bytes = await HicBytes.open(path);
  try {
    const hic = await readIndexes(bytes);
    const binBp = chooseResolution(hic, path, wanted);
    const { chromosomes, withheld } = balancedChromosomes(hic, { path, binBp, normalization });
    const checked = new SeenPlaces();
    return {
      path,
      binBp,
      chromosomes,
      ...(withheld === undefined ? {} : { withheld }),
      read: async (chrom, startBp, endBp) => {
        checkPlace(path, chromosomes, chrom, startBp, endBp);
        checkBins(path, binBp, chrom, startBp, endBp);
        const region = { chr: chrom, start: startBp, end: endBp };
        return await readWindow(hic, region, { binBp, normalization, bytes, checked }).catch((cause) => {
          throw damaged(`${path}: ${chrom}:${startBp}-${endBp}`, cause);
        });
      },
      filtered: async (chrom) => {
        checkPlace(path, chromosomes, chrom, 0, 0);
        return await filteredBins(hic, chrom, chromosomes.get(chrom)!, { binBp, normalization }).catch(
          (cause) => {
            throw damaged(`${path}: ${chrom}`, cause);
          },
        );
      },
      close: () => bytes.close(),
    };
  } catch (error) {
    await bytes.close();
    throw error;
  }
}

/** @throws when the file is damaged */
export async function hicLayout(path: string): Promise<ContactLayout> {
  const bytes = await HicBytes.open(path);
  try {
    const hic = await readIndexes(bytes);
    return {
      format: `.hic, version ${hic.version}`,
      assembly: hic.genomeId,
      resolutions: hic.bpResolutions,
      normalizations: hic.normalizationTypes.filter((name) => name !== 'NONE'),
    };
  } finally {
    await bytes.close();
  }
}

/** Bytes that hic-straw may ask for beyond the end while it looks for the normalizations, whose sizes it guesses. */
const MOST_BEYOND = 2 ** 20;

/** A file as hic-straw reads it. Its own would give zeros beyond the end, and so hide that a file was cut. */
class HicBytes {
  /** Gives zeros beyond the end. */
  pads = false;
  readonly #file: OpenFile;

  private constructor(file: OpenFile) {
    this.#file = file;
  }

  static async open(path: string): Promise<HicBytes> {
    return new HicBytes(await OpenFile.open(path));
  }

  get path(): string {
    return this.#file.path;
  }

  get size(): number {
    return this.#file.bytes;
  }

  async read(position: number, length: number): Promise<ArrayBuffer> {
    const bytes = await this.#file.read(length, position);
    if (bytes.length === length) return bytes.buffer;
    if (!this.pads || length - bytes.length > MOST_BEYOND)
      throw new Error(`${length} bytes are expected at ${position}, but the file ends at ${this.size}`);
    const padded = new Uint8Array(length);
    padded.set(bytes);
    return padded.buffer;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function damaged(where: string, cause: unknown): Error {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new Error(`${where}: the .hic file is damaged or was cut short: ${why}`, { cause });
}

const OLDEST_VERSION = 6; // the first with normalizations

/** The file with the places of its maps and of its normalizations. */
async function readIndexes(bytes: HicBytes): Promise<HicFile> {
  const { path } = bytes;
  const { default: Straw } = await import('hic-straw/dist/hic-straw.esm.js');
  const hic = new Straw({ file: bytes }).hicFile;
  try {
    await hic.init();
    bytes.pads = true;
    // Not `getNormVectorIndex`: it prints errors and goes on without normalizations.
    const { normVectorIndexPosition: start, normVectorIndexSize: size } = hic;
    if (start > 0 && size > 0) await hic.readNormVectorIndex({ start, size });
    else if ((hic.normExpectedValueVectorsPosition ?? bytes.size) < bytes.size)
      await hic.readNormExpectedValuesAndNormVectorIndex();
    bytes.pads = false;
  } catch (cause) {
    throw damaged(path, cause);
  }
  if (hic.version < OLDEST_VERSION)
    throw new Error(
      `${path}: version ${hic.version} of .hic has no normalizations; write it again with juicer tools`,
    );
  return hic;
}

function chooseResolution({ bpResolutions }: HicFile, path: string, wanted: number | undefined): number {
  if (wanted !== undefined && bpResolutions.includes(wanted)) return wanted;
  if (wanted === undefined && bpResolutions.length === 1) return bpResolutions[0]!;
  throw new Error(
    `${path}: has bins of ${bpResolutions.join(', ')} bp; ${wanted === undefined ? 'choose one' : `none of ${wanted}`}`,
  );
}

interface Chosen {
  readonly path: string;
  readonly binBp: number;
  readonly normalization: string;
}

/** The chromosomes that have a map with itself and the vector that balances it; and what the others lack. */
function balancedChromosomes(
  hic: HicFile,
  { path, binBp, normalization }: Chosen,
): { readonly chromosomes: ReadonlyMap<string, number>; readonly withheld?: string } {
  const own = hic.chromosomes.filter(
    ({ name, index }) => name.toLowerCase() !== 'all' && `${index}_${index}` in hic.masterIndex,
  );
  const has = (type: string, index: number): boolean =>
    type === 'NONE' || `${type}_${index}_BP_${binBp}` in (hic.normVectorIndex ?? {});
  const balanced = own.filter(({ index }) => has(normalization, index));
  if (own.length === 0) throw new Error(`${path}: no chromosome has contacts with itself`);
  if (balanced.length === 0) {
    const others = hic.normalizationTypes.filter(
      (type) => type !== 'NONE' && own.some(({ index }) => has(type, index)),
    );
    throw new Error(
      `${path}: no chromosome is normalized by ${normalization} in bins of ${binBp} bp; it has ${someNames(others)}${others.length === 0 ? ': run `juicer_tools addNorm` on it' : ': choose one of them'}`,
    );
  }
  const chromosomes = new Map(balanced.map(({ name, size }) => [name, size]));
  const lacking = own.filter(({ name }) => !chromosomes.has(name)).map(({ name }) => name);
  if (lacking.length === 0) return { chromosomes };
  return { chromosomes, withheld: `${someNames(lacking)} lack ${normalization} in bins of ${binBp} bp` };
}

async function readWindow(
  hic: HicFile,
  region: Region,
  { binBp, normalization, bytes, checked }: Omit<Chosen, 'path'> & { bytes: HicBytes; checked: SeenPlaces },
): Promise<ContactWindow> {
  const first = region.start / binBp;
  const bins = (region.end - region.start) / binBp;
  const counts = new Float64Array(bins * bins);
  if (bins === 0) return { bins, balanced: counts, counts };
  const { index } = hic.chromosomes.find(({ name }) => name === region.chr)!;
  await checkBlocks(hic, region, { index, binBp, bytes, checked });
  for (const { bin1, bin2, counts: count } of await hic.getContactRecords(
    'NONE',
    region,
    region,
    'BP',
    binBp,
  )) {
    const [row, column] = [bin1 - first, bin2 - first];
    if (!(Math.min(row, column) >= 0 && Math.max(row, column) < bins && Number.isFinite(count) && count >= 0))
      throw new Error(`${count} contacts of bins ${bin1} and ${bin2}`);
    counts[row * bins + column] = counts[column * bins + row] = count;
  }
  if (normalization === 'NONE') return { bins, balanced: counts.slice(), counts };
  const divisors = await divisorsOf(hic, { index, first, bins }, { binBp, normalization });
  const balanced = counts.map((count, i) => {
    const divisor = divisors[Math.floor(i / bins)]! * divisors[i % bins]!;
    return divisor === 0 ? Number.NaN : count / divisor; // NaN, as 0, stands for a bin that was filtered
  });
  return { bins, balanced, counts };
}

/** What balances bins of a chromosome. */
async function divisorsOf(
  hic: HicFile,
  { index, first, bins }: { index: number; first: number; bins: number },
  { binBp, normalization }: Pick<Chosen, 'binBp' | 'normalization'>,
): Promise<readonly number[]> {
  const vector = await hic.getNormalizationVector(normalization, index, 'BP', binBp);
  if (vector.nValues < first + bins)
    throw new Error(`${normalization} has ${vector.nValues} values, but ${first + bins} bins are asked for`);
  return await vector.getValues(first, first + bins);
}

const BINS_AT_ONCE = 2 ** 14;

async function filteredBins(
  hic: HicFile,
  chrom: string,
  lengthBp: number,
  chosen: Pick<Chosen, 'binBp' | 'normalization'>,
): Promise<Uint8Array> {
  const { index } = hic.chromosomes.find(({ name }) => name === chrom)!;
  const filtered = new Uint8Array(Math.floor(lengthBp / chosen.binBp));
  if (chosen.normalization === 'NONE') return filtered;
  for (let first = 0; first < filtered.length; first += BINS_AT_ONCE) {
    const bins = Math.min(BINS_AT_ONCE, filtered.length - first);
    const divisors = await divisorsOf(hic, { index, first, bins }, chosen);
    filtered.set(
      divisors.map((divisor) => (divisor === 0 || Number.isNaN(divisor) ? 1 : 0)),
      first,
    );
  }
  return filtered;
}

const inflated = promisify(inflate);

/** Once for each block of contacts that a window needs: hic-straw inflates without a look at the checksum. */
async function checkBlocks(
  hic: HicFile,
  region: Region,
  { index, binBp, bytes, checked }: { index: number; binBp: number; bytes: HicBytes; checked: SeenPlaces },
): Promise<void> {
  const zoom = (await hic.getMatrix(index, index))?.getZoomData(binBp, 'BP');
  if (!zoom) throw new Error(`the map of ${region.chr} has no bins of ${binBp} bp`);
  for (const number of zoom.getBlockNumbers(region, region, hic.version)) {
    const block = await zoom.blockIndex.getBlockIndexEntry(number);
    if (block === undefined || checked.has(block.filePosition)) continue; // blocks without contacts are not stored
    await inflated(new Uint8Array(await bytes.read(block.filePosition, block.size))).catch((cause: Error) => {
      throw new Error(`block ${number} at byte ${block.filePosition}: ${cause.message}`, { cause });
    });
    checked.add(block.filePosition);
  }
}
