/** Contact maps in cooler files (`.cool`, `.mcool`), through the HDF5 library. */
import { statSync } from 'node:fs';
import type { Dataset, File } from 'h5wasm/node';
import { checkPlace, someNames } from '../bases.ts';
import { checkStored, entityAt, withFile } from '../weights/keras.ts';
import type { ContactLayout, ContactMap, ContactMapOptions } from './contact-map.ts';
import { type ContactWindow, checkBins } from './contact-target.ts';

/** What is kept of a file: all but its contacts. */
interface Index {
  readonly root: string;
  readonly binBp: number;
  readonly chromosomes: ReadonlyMap<string, number>;
  /** First bin of each chromosome. */
  readonly firstBin: ReadonlyMap<string, number>;
  /** Of each bin: contacts times both weights are balanced. None: counts are given as they are. */
  readonly weights: Float64Array | undefined;
  /** First contact of each bin, and their number at the end. */
  readonly firstContact: readonly number[];
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
  const column = (name: string): readonly unknown[] => valuesAt(file, `${root}${name}`, path);
  const names = column('chroms/name').map((name) => String(name).replace(/\0+$/, ''));
  const lengths = column('chroms/length').map(Number);
  const starts = column('indexes/chrom_offset').map(Number);
  const bins = column('bins/start').length;
  const binBp = binSize(file, root, path);
  const firstContact = column('indexes/bin1_offset').map(Number);
  if (wanted !== undefined && binBp !== wanted)
    throw new Error(`${path}: bins are of ${binBp} bp, not ${wanted}`);
  const expected = starts
    .slice(0, -1)
    .every((start, i) => starts[i + 1]! - start === Math.ceil(lengths[i]! / binBp));
  if (!expected || firstContact.length !== bins + 1 || starts.at(-1) !== bins)
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
    weights: balanced ? Float64Array.from(column('bins/weight'), Number) : undefined,
    firstContact,
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
  const [start, end] = ['start', 'end'].map((name) =>
    valuesAt(file, `${root}bins/${name}`, path).map(Number),
  );
  return Math.max(...end!.slice(0, 1000).map((at, i) => at - start![i]!));
}

function valuesAt(
  file: File,
  name: string,
  path: string,
  range?: readonly [number, number],
): ArrayLike<unknown> & readonly unknown[] {
  const found = entityAt(file, name);
  if (typeof found !== 'object' || found === null || !('slice' in found))
    throw new Error(`${path}: ${name} is missing; this is no cooler, or a damaged one`);
  const dataset = found as Pick<Dataset, 'metadata' | 'value'> & {
    slice(ranges: readonly (readonly [number, number])[]): unknown;
  };
  checkStored(dataset, statSync(path).size, `${path}: ${name}`);
  const length = dataset.metadata.shape?.[0] ?? 0;
  const [from, to] = range ?? [0, length];
  if (!(from >= 0 && from <= to && to <= length))
    throw new Error(`${path}: values ${from} to ${to} of the ${length} of ${name}; the file is damaged`);
  const values = range ? dataset.slice([range]) : dataset.value;
  return Array.from(values as ArrayLike<unknown>);
}

function readWindow(
  file: File,
  { root, binBp, firstBin, weights, firstContact }: Index,
  { path, chrom, startBp, endBp }: { path: string; chrom: string; startBp: number; endBp: number },
): ContactWindow {
  const first = firstBin.get(chrom)! + startBp / binBp;
  const bins = (endBp - startBp) / binBp;
  const range = [firstContact[first]!, firstContact[first + bins]!] as const;
  const [rows, columns, values] = ['bin1_id', 'bin2_id', 'count'].map((name) =>
    range[0] === range[1] ? [] : valuesAt(file, `${root}pixels/${name}`, path, range).map(Number),
  );
  const counts = new Float64Array(bins * bins);
  for (const [i, count] of values!.entries()) {
    const [row, column] = [rows![i]! - first, columns![i]! - first];
    if (row < 0 || row >= bins || column < row)
      throw new Error(
        `${path}: contact ${range[0] + i} is of bins ${rows![i]} and ${columns![i]}; the index is of another file, or the map is not its upper triangle`,
      );
    if (column < bins) counts[row * bins + column] = counts[column * bins + row] = count;
  }
  if (weights === undefined) return { bins, balanced: counts.slice(), counts };
  const balanced = counts.map(
    (count, i) => count * weights[first + Math.floor(i / bins)]! * weights[first + (i % bins)]!,
  );
  return { bins, balanced, counts };
}
