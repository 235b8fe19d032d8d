/** From a window of a contact map to Akita's targets: the stages of akita_data_read.py, with local observed over expected. */
import { smoothMap } from '../gaussian.ts';
import { coarsegrain } from './coarsegrain.ts';

export interface ContactTransform {
  /** The first diagonal that is a target; those before it hold what cannot be measured. */
  readonly diagonalOffset: number;
  /** Logarithms end here, on both sides of 0. */
  readonly clip: number;
  /** Standard deviation of the Gaussian, in bins; 0 leaves it out. */
  readonly smoothing: number;
  /** Bins without targets at each end. */
  readonly cropBins: number;
}

/** A square window. Row-major `[bins, bins]`, NaN in rows and columns that are filtered. */
export interface ContactWindow {
  readonly bins: number;
  readonly balanced: Float64Array;
  /** As counted. `[bins, bins]` */
  readonly counts: ArrayLike<number>;
}

/** @throws for a place that begins or ends within a bin */
export function checkBins(path: string, binBp: number, chrom: string, startBp: number, endBp: number): void {
  if (startBp % binBp === 0 && endBp % binBp === 0) return;
  throw new Error(`${path}: ${chrom}:${startBp}-${endBp} does not begin and end with bins of ${binBp} bp`);
}

/**
 * The upper triangle from diagonal d of the cropped map, row by row: `(c - d)(c - d + 1) / 2` values for c bins. Logarithms of
 * observed over expected, both within the window.
 *
 * @throws when no contact of diagonal d is valid, or a value is missing outside of rows that are missing whole
 */
export function contactTargets(window: ContactWindow, transform: ContactTransform): Float64Array {
  return countedContactTargets(window, transform).values;
}

/** As `contactTargets`; and of these values, how many logarithms ended at the clip. */
export function countedContactTargets(
  window: ContactWindow,
  transform: ContactTransform,
): { values: Float64Array; clipped: number } {
  const { bins } = window;
  const { diagonalOffset, clip, smoothing, cropBins } = transform;
  const limited = clipContacts(window.balanced, bins, diagonalOffset);
  const smooth = coarsegrain(limited, window.counts, bins);
  const logs = observedOverExpected(smooth, bins).map((ratio) => clampLog(Math.log(ratio), clip));
  const ends = upperTriangle(logs, bins, cropBins, diagonalOffset).filter((log) => Math.abs(log) === clip);
  const whole = fillMissing(logs, bins);
  setDiagonals(whole, bins, diagonalOffset, 0);
  const map = smoothing > 0 ? smoothMap(whole, { height: bins, width: bins, deviation: smoothing }) : whole;
  return { values: upperTriangle(map, bins, cropBins, diagonalOffset), clipped: ends.length };
}

/** Not above the median of diagonal d, which also replaces the diagonals before it. */
export function clipContacts(balanced: Float64Array, bins: number, diagonalOffset: number): Float64Array {
  const diagonal = Array.from(
    { length: bins - diagonalOffset },
    (_, i) => balanced[i * bins + i + diagonalOffset]!,
  );
  const valid = diagonal.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  if (valid.length === 0)
    throw new Error(`no valid contact at ${diagonalOffset} bins' distance; the window is filtered whole`);
  const middle = (valid.length - 1) / 2;
  const limit = (valid[Math.floor(middle)]! + valid[Math.ceil(middle)]!) / 2;
  const clipped = balanced.map((value) => Math.min(Math.max(value, 0), limit));
  setDiagonals(clipped, bins, diagonalOffset, limit);
  for (let i = 0; i < clipped.length; i++) if (Number.isNaN(balanced[i])) clipped[i] = Number.NaN;
  return clipped;
}

function setDiagonals(map: Float64Array, bins: number, before: number, value: number): void {
  for (let row = 0; row < bins; row++) {
    for (let column = Math.max(0, row - before + 1); column < Math.min(bins, row + before); column++)
      map[row * bins + column] = value;
  }
}

/** Distances in one group differ by about this factor. cooltools, observed_over_expected */
const DISTANCE_RATIO = 1.03;

/** Each contact over the mean of its group of distances; missing ones do not count. */
export function observedOverExpected(map: Float64Array, bins: number): Float64Array {
  const ratios = Float64Array.from(map);
  const edges = distanceEdges(bins);
  for (const [group, low] of edges.entries()) {
    const high = edges[group + 1] ?? low;
    let [sum, count] = [0, 0];
    forDiagonals(low, high, bins, (below) => {
      if (Number.isNaN(map[below])) return;
      sum += map[below]!;
      count++;
    });
    const mean = sum / count;
    if (count === 0 || mean === 0) continue;
    forDiagonals(low, high, bins, (below, above) => {
      if (Number.isNaN(map[below])) return;
      ratios[below] = map[below]! / mean;
      if (above !== below) ratios[above] = map[above]! / mean;
    });
  }
  return ratios;
}

/** Indexes of each pair of mirrored elements from diagonal `low` to before `high`. */
function forDiagonals(
  low: number,
  high: number,
  bins: number,
  body: (below: number, above: number) => void,
): void {
  for (let offset = low; offset < high; offset++) {
    for (let j = 0; j < bins - offset; j++) body((offset + j) * bins + j, j * bins + offset + j);
  }
}

/** 0, and whole numbers from 1 to the number of bins, evenly spaced in the logarithm. */
function distanceEdges(bins: number): number[] {
  const count = Math.floor(Math.log(bins) / Math.log(DISTANCE_RATIO));
  const powers = Array.from({ length: count }, (_, i) =>
    Math.round(10 ** ((i * Math.log10(bins)) / (count - 1))),
  );
  return [...new Set([0, 1, ...powers, bins])].sort((a, b) => a - b);
}

/** A contact that was never seen has the least logarithm; a missing one stays missing. */
function clampLog(value: number, clip: number): number {
  return Math.min(Math.max(value, -clip), clip);
}

/** Rows and columns that are missing whole, from their neighbours on both sides, bilinearly; the map ends in zeros. */
export function fillMissing(map: Float64Array, bins: number): Float64Array {
  const missing = Array.from({ length: bins }, (_, row) => {
    let count = 0;
    for (let column = 0; column < bins; column++) if (Number.isNaN(map[row * bins + column])) count++;
    return count;
  });
  const most = Math.max(...missing);
  if (most === 0) return map;
  const isGood = (line: number): boolean => line < 0 || line >= bins || missing[line]! < most;
  const at = (row: number, column: number): number => {
    const inside = row >= 0 && row < bins && column >= 0 && column < bins;
    return inside ? map[row * bins + column]! : 0;
  };
  const neighbours = Array.from({ length: bins }, (_, line) => {
    let [below, above] = [line, line];
    while (!isGood(below)) below--;
    while (!isGood(above)) above++;
    return { below, above, share: above === below ? 0 : (line - below) / (above - below) };
  });
  return map.map((value, i) => {
    if (!Number.isNaN(value)) return value;
    const [row, column] = [neighbours[Math.floor(i / bins)]!, neighbours[i % bins]!];
    const along = (line: number): number =>
      (1 - column.share) * at(line, column.below) + column.share * at(line, column.above);
    const filled = (1 - row.share) * along(row.below) + row.share * along(row.above);
    if (Number.isNaN(filled)) {
      throw new Error(
        `bins ${Math.floor(i / bins)} and ${i % bins}: a missing contact outside of the rows that are missing whole`,
      );
    }
    return filled;
  });
}

function upperTriangle(map: Float64Array, bins: number, crop: number, diagonalOffset: number): Float64Array {
  const values: number[] = [];
  for (let row = crop; row < bins - crop; row++) {
    for (let column = row + diagonalOffset; column < bins - crop; column++)
      values.push(map[row * bins + column]!);
  }
  return Float64Array.from(values);
}
