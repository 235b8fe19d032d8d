/** A small balanced cooler file for tests, written by the HDF5 library. */
import { numbers, writeTables } from '@cohesin/io/testing';

export interface ToyCooler {
  readonly binBp: number;
  readonly chromosomes: Readonly<Record<string, number>>;
  /** Counts by bin, over all chromosomes; the upper triangle. */
  readonly counts: ReadonlyMap<string, number>;
  readonly weights: readonly number[];
}

/** Contacts within chromosomes that decay with distance; every ninth bin is filtered. */
export function toyContacts(
  binBp: number,
  chromosomes: Readonly<Record<string, number>>,
  seed: number,
): ToyCooler {
  const draw = numbers(seed);
  const counts = new Map<string, number>();
  let first = 0;
  for (const length of Object.values(chromosomes)) {
    const bins = Math.ceil(length / binBp);
    for (let row = first; row < first + bins; row++) {
      for (let column = row; column < first + bins; column++) {
        const count = Math.floor((60 * (0.5 + draw())) / (1 + column - row));
        if (count > 0) counts.set(`${row} ${column}`, count);
      }
    }
    first += bins;
  }
  const weights = Array.from({ length: first }, (_, bin) =>
    bin % 9 === 8 ? Number.NaN : 0.05 + 0.1 * draw(),
  );
  return { binBp, chromosomes, counts, weights };
}

export async function writeCooler(
  path: string,
  { binBp, chromosomes, counts, weights }: ToyCooler,
  at = '',
): Promise<void> {
  const { File, ready } = await import('h5wasm/node');
  await ready;
  const file = new File(path, 'w', { libver: ['earliest', 'latest'] });
  const root =
    at === ''
      ? file
      : at.split('/').reduce<typeof file>((group, name) => group.create_group(name) as typeof file, file);
  const lengths = Object.values(chromosomes);
  const bins = lengths.flatMap((length, chrom) =>
    Array.from({ length: Math.ceil(length / binBp) }, (_, i) => ({
      chrom,
      start: i * binBp,
      end: Math.min(length, (i + 1) * binBp),
    })),
  );
  const pixels = [...counts].map(([key, count]) => [...key.split(' ').map(Number), count]);
  writeTables(root, {
    chroms: { name: Object.keys(chromosomes), length: Int32Array.from(lengths) },
    bins: {
      chrom: Int32Array.from(bins, ({ chrom }) => chrom),
      start: Int32Array.from(bins, ({ start }) => start),
      end: Int32Array.from(bins, ({ end }) => end),
      ...(weights.length > 0 && { weight: Float64Array.from(weights) }),
    },
    pixels: {
      bin1_id: BigInt64Array.from(pixels, ([row]) => BigInt(row!)),
      bin2_id: BigInt64Array.from(pixels, ([, column]) => BigInt(column!)),
      count: Int32Array.from(pixels, ([, , count]) => count!),
    },
    indexes: {
      chrom_offset: BigInt64Array.from([0, ...lengths.keys()], (_, i) =>
        BigInt(bins.filter(({ chrom }) => chrom < i).length),
      ),
      bin1_offset: BigInt64Array.from([0, ...bins.keys()], (_, i) =>
        BigInt(pixels.filter(([row]) => row! < i).length),
      ),
    },
  });
  file.flush();
  file.close();
}
