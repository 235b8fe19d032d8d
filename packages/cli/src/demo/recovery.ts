/**
 * Which motifs a first layer has learned. Filters become matrices as in Basset (Kelley et al. 2016): a filter's sites
 * are the positions where its output exceeds half of its range above the mean, and the matrix counts their k-mers.
 */
import { type Column, consensusOf, type Motif, type Pwm, reverseComplement } from './motifs.ts';

/** A convolution over one-hot DNA and the affine map of the norm after it: out = max(0, scale · conv + shift). */
export interface FirstLayer {
  /** Row-major [size, 4, filters]. */
  readonly weight: ArrayLike<number>;
  readonly size: number;
  readonly filters: number;
  /** [filters]; 1 by default. */
  readonly scale?: ArrayLike<number>;
  /** [filters]; 0 by default. */
  readonly shift?: ArrayLike<number>;
}

/** What makes a filter fire. */
export interface FilterMotif {
  readonly filter: number;
  /** k-mers that were counted. */
  readonly sites: number;
  /** [size, 4] */
  readonly pwm: Pwm;
}

/** How well a matrix matches a planted one. */
export interface Match {
  /** Pearson's r over all columns of both matrices, see `bestMatch`. */
  readonly correlation: number;
  /** Where the planted motif starts in the matrix, or in its reverse complement. */
  readonly offset: number;
  readonly strand: '+' | '-';
  /** The matrix in the frame of the planted one; columns beyond its ends are 0.25. */
  readonly aligned: Pwm;
}

/** The filter that matches a planted motif best. */
export interface Recovery extends Match {
  readonly motif: Motif;
  readonly filter: number;
  readonly sites: number;
  /** Of the aligned matrix. */
  readonly consensus: string;
}

/** The correlation from which a motif counts as recovered. */
export const RECOVERED = 0.85;

/**
 * The best filter of each planted motif. Every filter with at least 10 sites is compared, at every offset, on both
 * strands, over all columns of both matrices.
 *
 * @throws when no filter has 10 sites, as in a layer that was never trained on such sequences
 */
export function recoverMotifs({
  layer,
  sequences,
  motifs,
}: {
  readonly layer: FirstLayer;
  /** Codes 0..3 for A, C, G, T and 4 for N, one array a sequence. */
  readonly sequences: readonly Uint8Array[];
  readonly motifs: readonly Motif[];
}): readonly Recovery[] {
  const found = filterMotifs(layer, sequences);
  if (found.length === 0) {
    throw new Error(
      `recoverMotifs: none of ${layer.filters} filters has ${FEWEST_SITES} sites in ${sequences.length} sequences; give more sequences`,
    );
  }
  return motifs.map((motif) => {
    const all = found.map(({ filter, sites, pwm }) => ({ filter, sites, ...bestMatch(pwm, motif.pwm) }));
    const best = all.reduce((a, b) => (b.correlation > a.correlation ? b : a));
    return { motif, ...best, consensus: consensusOf(best.aligned) };
  });
}

const FEWEST_SITES = 10; // basset_motifs.py

/** The matrices of all filters with at least 10 sites, over the windows that lie within a sequence. */
export function filterMotifs(layer: FirstLayer, sequences: readonly Uint8Array[]): readonly FilterMotif[] {
  return Array.from({ length: layer.filters }, (_, filter) => {
    const outputs = sequences.map((sequence) => filterOutputs(layer, filter, sequence));
    const threshold = halfwayToMaximum(outputs);
    return { filter, ...countKmers(outputs, threshold, sequences, layer.size) };
  }).filter(({ sites }) => sites >= FEWEST_SITES);
}

/** out = max(0, scale · conv + shift) of one filter. `[length − size + 1]` */
function filterOutputs(
  { weight, size, filters, scale, shift }: FirstLayer,
  filter: number,
  sequence: Uint8Array,
): Float32Array {
  const rows = new Float64Array(5 * size); // the fifth row is that of N
  for (let k = 0; k < size; k++)
    for (let base = 0; base < 4; base++) rows[5 * k + base] = weight[(4 * k + base) * filters + filter]!;
  const outputs = new Float32Array(Math.max(0, sequence.length - size + 1));
  const [factor, addend] = [scale?.[filter] ?? 1, shift?.[filter] ?? 0];
  for (let start = 0; start < outputs.length; start++) {
    let total = 0;
    for (let k = 0; k < size; k++) total += rows[5 * k + sequence[start + k]!]!;
    outputs[start] = Math.max(0, factor * total + addend);
  }
  return outputs;
}

/** 0.5 · max(out − mean) + mean, as in basset_motifs.py. */
function halfwayToMaximum(outputs: readonly Float32Array[]): number {
  let [total, count, maximum] = [0, 0, 0];
  for (const sequence of outputs) {
    for (const output of sequence) {
      total += output;
      maximum = Math.max(maximum, output);
    }
    count += sequence.length;
  }
  const mean = total / count;
  return 0.5 * (maximum - mean) + mean;
}

/** (counts + 1) / (n + 4) of the k-mers above the threshold. */
function countKmers(
  outputs: readonly Float32Array[],
  threshold: number,
  sequences: readonly Uint8Array[],
  size: number,
): { readonly sites: number; readonly pwm: Pwm } {
  const counts = Array.from({ length: size }, () => [1, 1, 1, 1, 0]); // the fifth is N
  let sites = 0;
  for (const [i, sequence] of sequences.entries()) {
    for (const [start, output] of outputs[i]!.entries()) {
      if (output <= threshold) continue;
      sites++;
      for (let k = 0; k < size; k++) counts[k]![sequence[start + k]!]!++;
    }
  }
  const pwm = counts.map(([a, c, g, t]): Column => {
    const n = a! + c! + g! + t!;
    return [a! / n, c! / n, g! / n, t! / n];
  });
  return { sites, pwm };
}

/**
 * The offset and strand at which a matrix correlates best with a planted one. All columns of both count: outside the
 * planted motif a filter should say 0.25 to each base, and where the motif reaches beyond the filter, the filter does.
 * Over the columns of the planted motif alone, the best of 32 random filters reaches 0.88 with the 6 bp of GATA.
 */
export function bestMatch(pwm: Pwm, planted: Pwm): Match {
  const matches = (['+', '-'] as const).flatMap((strand) => {
    const oriented = strand === '+' ? pwm : reverseComplement(pwm);
    return Array.from({ length: pwm.length + planted.length - 1 }, (_, i): Match => {
      const offset = i - planted.length + 1;
      const aligned = planted.map((_, k) => oriented[offset + k] ?? BACKGROUND);
      return { correlation: correlateAt(oriented, planted, offset), offset, strand, aligned };
    });
  });
  return matches.reduce((a, b) => (b.correlation > a.correlation ? b : a));
}

/** Pearson's r over every column that either matrix has, the planted one starting at `offset`. */
function correlateAt(pwm: Pwm, planted: Pwm, offset: number): number {
  const first = Math.min(0, offset);
  const length = Math.max(pwm.length, offset + planted.length) - first;
  const columns = Array.from({ length }, (_, i) => first + i);
  const found = columns.flatMap((at) => pwm[at] ?? BACKGROUND);
  return correlate(
    found,
    columns.flatMap((at) => planted[at - offset] ?? BACKGROUND),
  );
}

const BACKGROUND: Column = [0.25, 0.25, 0.25, 0.25];

/** Pearson's r; 0 where either side is constant. */
function correlate(x: readonly number[], y: readonly number[]): number {
  const [meanX, meanY] = [mean(x), mean(y)];
  let [xx, yy, xy] = [0, 0, 0];
  for (const [i, value] of x.entries()) {
    const [dx, dy] = [value - meanX, y[i]! - meanY];
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  return xx === 0 || yy === 0 ? 0 : xy / Math.sqrt(xx * yy);
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
