/** Counts of short words in a sequence: what a model without any learned motif sees. */

export interface KmerOptions {
  /** Bases of a word that matter. */
  readonly k: number;
  /** Bases between them that may be any, at most this many: gapped k-mers (Ghandi et al. 2014). Default 0. */
  readonly gaps?: number;
}

/** Features that are not 0. */
export interface SparseCounts {
  readonly indices: Int32Array;
  readonly counts: Float64Array;
}

export interface KmerFeatures {
  /** How many features there are. */
  readonly size: number;
  /** Words that lie in positions `[from, to)` of codes (0…3 = A, C, G, T), a word and its reverse complement as one. */
  count(codes: Uint8Array, from: number, to: number): SparseCounts;
}

const MOST_FEATURES = 8_192; // a Gram matrix of 512 MiB

/**
 * Every shape of `k` bases in at most `k + gaps`, and each word of the shape. Words with an N are not counted.
 *
 * @throws when there would be more features than fit in a matrix.
 */
export function kmerFeatures({ k, gaps = 0 }: KmerOptions): KmerFeatures {
  const shapes = shapesOf(k, k + gaps);
  const words = 4 ** k;
  const least = (shapes.length * words) / 2;
  if (least > MOST_FEATURES) {
    throw new Error(
      `kmerFeatures: k ${k} with ${gaps} gaps makes ${least} features or more, but ${MOST_FEATURES} fit; lower them`,
    );
  }
  const { feature, size } = merged(shapes, words, k);
  const tally = new Float64Array(size);
  return {
    size,
    count: (codes, from, to) => {
      const found: number[] = [];
      for (const [s, shape] of shapes.entries()) {
        for (let start = Math.max(0, from); start + shape.at(-1)! < Math.min(to, codes.length); start++) {
          const word = wordAt(codes, start, shape);
          if (word < 0) continue;
          const index = feature[s * words + word]!;
          if (tally[index]! === 0) found.push(index);
          tally[index]! += 1;
        }
      }
      const indices = Int32Array.from(found).sort();
      const counts = Float64Array.from(indices, (index) => tally[index]!);
      for (const index of indices) tally[index] = 0;
      return { indices, counts };
    },
  };
}

/** Offsets of `k` bases from 0, all within `span`. */
function shapesOf(k: number, span: number): readonly (readonly number[])[] {
  if (k === 1) return [[0]];
  const longer = (shape: readonly number[]): number[][] => {
    const room = span - (k - shape.length) - shape.at(-1)!;
    return Array.from({ length: room }, (_, i) => [...shape, shape.at(-1)! + 1 + i]);
  };
  let shapes: readonly (readonly number[])[] = [[0]];
  for (let size = 1; size < k; size++) shapes = shapes.flatMap(longer);
  return shapes;
}

/** The word's bases as a number in base 4, or −1 where one is N. */
function wordAt(codes: Uint8Array, start: number, shape: readonly number[]): number {
  let word = 0;
  for (const offset of shape) {
    const code = codes[start + offset]!;
    if (code > 3) return -1;
    word = 4 * word + code;
  }
  return word;
}

/** One feature for each word and its reverse complement, which has the mirrored shape. */
function merged(
  shapes: readonly (readonly number[])[],
  words: number,
  k: number,
): { readonly feature: Int32Array; readonly size: number } {
  const places = new Map(shapes.map((shape, s) => [shape.join(), s]));
  const feature = new Int32Array(shapes.length * words).fill(-1);
  let size = 0;
  for (const [s, shape] of shapes.entries()) {
    const mirrored = places.get(shape.map((_, i) => shape.at(-1)! - shape[k - 1 - i]!).join())!;
    for (let word = 0; word < words; word++) {
      const other = feature[mirrored * words + reverseComplement(word, k)]!;
      feature[s * words + word] = other >= 0 ? other : size++;
    }
  }
  return { feature, size };
}

function reverseComplement(word: number, k: number): number {
  let turned = 0;
  for (let i = 0, rest = word; i < k; i++, rest = Math.floor(rest / 4)) turned = 4 * turned + 3 - (rest % 4);
  return turned;
}
