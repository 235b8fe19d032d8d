/** Contact maps in cooler files (`.cool`, `.mcool`), through the HDF5 library. */
import { statSync } from 'node:fs';
import type { Dataset, File } from 'h5wasm/node';
import { checkPlace, someNames } from '../bases.ts';
import { checkStored, entityAt, withFile } from '../weights/keras.ts';
import type { ContactLayout, ContactMap, ContactMapOptions } from './contact-map.ts';
import { type ContactWindow, checkBins } from './contact-target.ts';

/** What is kept of a file: nothing that grows with its bins. */
interface Index {
  readonly root: string;
  readonly binBp: number;
  readonly chromosomes: ReadonlyMap<string, number>;
  /** First bin of each chromosome. */
  readonly firstBin: ReadonlyMap<string, number>;
  /** Contacts times the weights of both bins are balanced; else counts are given as they are. */
  readonly balanced: boolean;
}

/**
 * @throws when the file is no cooler, has several resolutions and none is chosen, or another than the one chosen, is not
 *   balanced, or its tables contradict each other
 */
export async function openCooler(path: string, options: ContactMapOptions = {}): Promise<ContactMap> {
  const index = await withFile(path, 'r', (file) => readIndex(file, path, options));
  const { chromosomes } = index;
  return {
    path,
    binBp: index.binBp,
    chromosomes,
    read: async (chrom, startBp, endBp) => {
      checkPlace(path, chromosomes, chrom, startBp, endBp);
      checkBins(path, index.binBp, chrom, startBp, endBp);
      return await withFile(path, 'r', (file) => readWindow(file, index, { path, chrom, startBp, endBp }));
    },
    filtered: async (chrom) => {
      checkPlace(path, chromosomes, chrom, 0, 0);
      const bins = Math.floor(chromosomes.get(chrom)! / index.binBp);
      if (!index.balanced) return new Uint8Array(bins);
      const first = index.firstBin.get(chrom)!;
      const name = `${index.root}bins/weight`;
      const weights = await withFile(path, 'r', (file) => numbersAt(file, name, path, [first, first + bins]));
      return Uint8Array.from(weights, (weight) => (Number.isNaN(weight) ? 1 : 0));
    },
    close: async () => {}, // no file is open between reads
  };
}

/** Whether an HDF5 file is laid out as a cooler. */
export async function isCooler(path: string): Promise<boolean> {
  return await withFile(path, 'r', (file) => rootsOf(file).size > 0);
}

/** @throws when the file is no cooler */
export async function coolerLayout(path: string): Promise<ContactLayout> {
  return await withFile(path, 'r', (file) => {
    const roots = rootsOf(file);
    if (roots.size === 0) throw noCooler(file, path);
    const first = [...roots.values()][0]!;
    const balanced = entityAt(file, `${first}bins/weight`) !== undefined;
    const assembly = file.attrs['genome-assembly']?.value;
    const sizes = [...roots.keys()].filter(Number.isFinite);
    return {
      format: 'cooler',
      ...(typeof assembly === 'string' ? { assembly } : {}),
      resolutions: sizes.length > 0 ? sizes : [binSize(file, first, path)],
      normalizations: balanced ? ['weight'] : [],
    };
  });
}

/** Groups of the maps by their resolution, `''` or with a slash at the end; NaN for that of a file of one. */
function rootsOf(file: File): Map<number, string> {
  if (['bins', 'chroms', 'pixels'].every((name) => file.keys().includes(name)))
    return new Map([[Number.NaN, '']]);
  const several = entityAt(file, 'resolutions');
  const names =
    typeof several === 'object' && several !== null && 'keys' in several ? (several as File).keys() : [];
  return new Map(names.map((name) => [Number(name), `resolutions/${name}/`]));
}

function noCooler(file: File, path: string): Error {
  return new Error(
    `${path}: no cooler: expected the groups bins, chroms, indexes and pixels, or resolutions, found ${someNames(file.keys())}`,
  );
}

function readIndex(
  file: File,
  path: string,
  { binBp: wanted, normalization = 'weight' }: ContactMapOptions,
): Index {
  if (normalization !== 'weight' && normalization !== 'NONE')
    throw new Error(`${path}: coolers are balanced by bins/weight; ${normalization} is of .hic files`);
  const root = rootOf(file, path, wanted);
  const column = (name: string): number[] => [...numbersAt(file, `${root}${name}`, path)];
  const names = stringsAt(file, `${root}chroms/name`, path).map((name) => name.replace(/\0+$/, ''));
  const lengths = column('chroms/length');
  const starts = column('indexes/chrom_offset');
  const bins = lengthOf(file, `${root}bins/start`, path);
  const binBp = binSize(file, root, path);
  if (wanted !== undefined && binBp !== wanted)
    throw new Error(`${path}: bins are of ${binBp} bp, not ${wanted}`);
  const expected = starts
    .slice(0, -1)
    .every((start, i) => starts[i + 1]! - start === Math.ceil(lengths[i]! / binBp));
  if (!expected || lengthOf(file, `${root}indexes/bin1_offset`, path) !== bins + 1 || starts.at(-1) !== bins)
    throw new Error(
      `${path}: ${bins} bins of ${binBp} bp do not cover its ${names.length} chromosomes; only bins of one size are read, or the file is damaged`,
    );
  const balanced = normalization === 'weight';
  if (balanced && entityAt(file, `${root}bins/weight`) === undefined)
    throw new Error(`${path}: is not balanced: there is no bins/weight; run \`cooler balance\` on it`);
  return {
    root,
    binBp,
    chromosomes: new Map(names.map((name, i) => [name, lengths[i]!])),
    firstBin: new Map(names.map((name, i) => [name, starts[i]!])),
    balanced,
  };
}

/** `''`, or the group of a resolution with a slash. */
function rootOf(file: File, path: string, wanted: number | undefined): string {
  const roots = rootsOf(file);
  if (roots.size === 0) throw noCooler(file, path);
  const found = roots.get(Number.NaN) ?? (wanted === undefined ? undefined : roots.get(wanted));
  if (found !== undefined) return found;
  throw new Error(
    `${path}: has bins of ${[...roots.keys()].join(', ')} bp; ${wanted === undefined ? 'choose one' : `none of ${wanted}`}`,
  );
}

/** Of a map's bins but the last of each chromosome, in bp. */
function binSize(file: File, root: string, path: string): number {
  const count = Math.min(LOOKED_AT, lengthOf(file, `${root}bins/start`, path));
  const [start, end] = ['start', 'end'].map((name) =>
    numbersAt(file, `${root}bins/${name}`, path, [0, count]),
  );
  return Math.max(...end!.map((at, i) => at - start![i]!));
}

const LOOKED_AT = 1000; // bins

type Stored = Pick<Dataset, 'metadata' | 'value'> & {
  slice(ranges: readonly (readonly [number, number])[]): unknown;
};

function datasetAt(file: File, name: string, path: string): Stored {
  const found = entityAt(file, name);
  if (typeof found === 'object' && found !== null && 'slice' in found) return found as Stored;
  throw new Error(`${path}: ${name} is missing; this is no cooler, or a damaged one`);
}

function lengthOf(file: File, name: string, path: string): number {
  return datasetAt(file, name, path).metadata.shape?.[0] ?? 0;
}

function stringsAt(file: File, name: string, path: string): string[] {
  const dataset = datasetAt(file, name, path);
  checkStored(dataset, statSync(path).size, `${path}: ${name}`);
  return Array.from(dataset.value as ArrayLike<unknown>, String);
}

/** Numbers of any type, all or those of a range. */
function numbersAt(file: File, name: string, path: string, range?: readonly [number, number]): Float64Array {
  const dataset = datasetAt(file, name, path);
  checkStored(dataset, statSync(path).size, `${path}: ${name}`);
  const length = dataset.metadata.shape?.[0] ?? 0;
  const [from, to] = range ?? [0, length];
  if (!(from >= 0 && from <= to && to <= length))
    throw new Error(`${path}: values ${from} to ${to} of the ${length} of ${name}; the file is damaged`);
  if (from === to) return new Float64Array(0);
  const values = range ? dataset.slice([range]) : dataset.value;
  return Float64Array.from(values as ArrayLike<number | bigint>, Number);
}

/** Contacts of a bin with all others may be many: so many are read at a time. */
const CONTACTS_AT_ONCE = 2 ** 16;

function readWindow(
  file: File,
  { root, binBp, firstBin, balanced }: Index,
  { path, chrom, startBp, endBp }: { path: string; chrom: string; startBp: number; endBp: number },
): ContactWindow {
  const first = firstBin.get(chrom)! + startBp / binBp;
  const bins = (endBp - startBp) / binBp;
  const counts = new Float64Array(bins * bins);
  if (bins === 0) return { bins, balanced: counts, counts };
  const column = (name: string, range: readonly [number, number]): Float64Array =>
    numbersAt(file, `${root}${name}`, path, range);
  const firstContact = (bin: number): number => column('indexes/bin1_offset', [bin, bin + 1])[0]!;
  const [begin, end] = [firstContact(first), firstContact(first + bins)];
  if (begin > end)
    throw new Error(
      `${path}: contacts ${begin} to ${end} of bins ${first} to ${first + bins}; the file is damaged`,
    );
  for (let from = begin; from < end; from += CONTACTS_AT_ONCE) {
    const range = [from, Math.min(end, from + CONTACTS_AT_ONCE)] as const;
    const [rows, columns] = [column('pixels/bin1_id', range), column('pixels/bin2_id', range)];
    for (const [i, count] of column('pixels/count', range).entries()) {
      const [row, other] = [rows[i]! - first, columns[i]! - first];
      if (!(row >= 0 && row < bins && other >= row))
        throw new Error(
          `${path}: contact ${from + i} is of bins ${rows[i]} and ${columns[i]}; the index is of another file, or the map is not its upper triangle`,
        );
      if (other < bins) counts[row * bins + other] = counts[other * bins + row] = count;
    }
  }
  if (!balanced) return { bins, balanced: counts.slice(), counts };
  const weights = column('bins/weight', [first, first + bins]);
  return {
    bins,
    balanced: counts.map((count, i) => count * weights[Math.floor(i / bins)]! * weights[i % bins]!),
    counts,
  };
}
