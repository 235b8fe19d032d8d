/** Contact maps in cooler files (`.cool`, `.mcool`), through the HDF5 library. */
import type { File } from 'h5wasm/node';
import { checkPlace, someNames } from '../bases.ts';
import { entityAt, withFile } from '../weights/keras.ts';
import type { ContactWindow } from './contact-target.ts';

/** Balanced contacts by place. Holds no file open between reads. */
export interface ContactMap {
  readonly path: string;
  /** In bp. */
  readonly binBp: number;
  /** Lengths in bp. */
  readonly chromosomes: ReadonlyMap<string, number>;
  /**
   * The square window of a place that begins at a bin; NaN where balancing has filtered a bin.
   *
   * @throws for an unknown chromosome, a place outside it or between bins, or damage
   */
  read(chrom: string, startBp: number, endBp: number): Promise<ContactWindow>;
}

export interface CoolerOptions {
  /** Of a file with several resolutions, in bp. */
  readonly binBp?: number;
}

/** What is kept of a file: all but its contacts. */
interface Index {
  readonly root: string;
  readonly binBp: number;
  readonly chromosomes: ReadonlyMap<string, number>;
  /** First bin of each chromosome. */
  readonly firstBin: ReadonlyMap<string, number>;
  /** Of each bin: contacts times both weights are balanced. */
  readonly weights: Float64Array;
  /** First contact of each bin, and their number at the end. */
  readonly firstContact: readonly number[];
}

/**
 * @throws when the file is no cooler, has several resolutions and none is chosen, or another than the one chosen, is not
 *   balanced, or its tables contradict each other
 */
export async function openCooler(path: string, { binBp }: CoolerOptions = {}): Promise<ContactMap> {
  const index = await withFile(path, 'r', (file) => readIndex(file, path, binBp));
  const { chromosomes } = index;
  return {
    path,
    binBp: index.binBp,
    chromosomes,
    read: async (chrom, startBp, endBp) => {
      checkPlace(path, chromosomes, chrom, startBp, endBp);
      if (startBp % index.binBp !== 0 || endBp % index.binBp !== 0)
        throw new Error(
          `${path}: ${chrom}:${startBp}-${endBp} does not begin and end with bins of ${index.binBp} bp`,
        );
      return await withFile(path, 'r', (file) => readWindow(file, index, { path, chrom, startBp, endBp }));
    },
  };
}

/** Whether an HDF5 file is laid out as a cooler. */
export async function isCooler(path: string): Promise<boolean> {
  return (await resolutions(path)).length > 0;
}

/** Sizes of bins in bp that can be chosen; `['']` for a file of one. */
export async function resolutions(path: string): Promise<readonly string[]> {
  return await withFile(path, 'r', (file) => {
    if (['bins', 'chroms', 'pixels'].every((name) => file.keys().includes(name))) return [''];
    const several = entityAt(file, 'resolutions');
    return typeof several === 'object' && several !== null && 'keys' in several
      ? (several as File).keys()
      : [];
  });
}

function readIndex(file: File, path: string, wanted: number | undefined): Index {
  const root = rootOf(file, path, wanted);
  const column = (name: string): readonly unknown[] => valuesAt(file, `${root}${name}`, path);
  const names = column('chroms/name').map((name) => String(name).replace(/\0+$/, ''));
  const lengths = column('chroms/length').map(Number);
  const starts = column('indexes/chrom_offset').map(Number);
  const bins = { start: column('bins/start').map(Number), end: column('bins/end').map(Number) };
  const binBp = Math.max(...bins.end.slice(0, 1000).map((end, i) => end - bins.start[i]!));
  const firstContact = column('indexes/bin1_offset').map(Number);
  if (wanted !== undefined && binBp !== wanted)
    throw new Error(`${path}: bins are of ${binBp} bp, not ${wanted}`);
  const expected = starts
    .slice(0, -1)
    .every((start, i) => starts[i + 1]! - start === Math.ceil(lengths[i]! / binBp));
  if (!expected || firstContact.length !== bins.start.length + 1 || starts.at(-1) !== bins.start.length)
    throw new Error(
      `${path}: ${bins.start.length} bins of ${binBp} bp do not cover its ${names.length} chromosomes; only bins of one size are read, or the file is damaged`,
    );
  if (entityAt(file, `${root}bins/weight`) === undefined)
    throw new Error(`${path}: is not balanced: there is no bins/weight; run \`cooler balance\` on it`);
  return {
    root,
    binBp,
    chromosomes: new Map(names.map((name, i) => [name, lengths[i]!])),
    firstBin: new Map(names.map((name, i) => [name, starts[i]!])),
    weights: Float64Array.from(column('bins/weight'), Number),
    firstContact,
  };
}

/** `''`, or the group of a resolution with a slash. */
function rootOf(file: File, path: string, wanted: number | undefined): string {
  const keys = file.keys();
  if (keys.includes('pixels')) return '';
  const several = entityAt(file, 'resolutions');
  if (typeof several !== 'object' || several === null || !('keys' in several))
    throw new Error(
      `${path}: no cooler: expected the groups bins, chroms, indexes and pixels, or resolutions, found ${someNames(keys)}`,
    );
  const found = (several as File).keys();
  if (wanted !== undefined && found.includes(String(wanted))) return `resolutions/${wanted}/`;
  throw new Error(
    `${path}: has bins of ${found.join(', ')} bp; ${wanted === undefined ? 'choose one' : `none of ${wanted}`}`,
  );
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
  const dataset = found as {
    readonly value: unknown;
    slice(ranges: readonly (readonly [number, number])[]): unknown;
  };
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
  const balanced = counts.map(
    (count, i) => count * weights[first + Math.floor(i / bins)]! * weights[first + (i % bins)]!,
  );
  return { bins, balanced, counts };
}
