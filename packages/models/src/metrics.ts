/**
 * Metrics of predictions against targets, on the host in float64. Sums are made per sequence and folded in the order of
 * the sequences, so that which device predicted which sequence changes no bit.
 */

type Total =
  | 'predictions'
  | 'targets'
  | 'predictionSquares'
  | 'targetSquares'
  | 'products'
  | 'predictionLow'
  | 'predictionHigh'
  | 'targetLow'
  | 'targetHigh';

/** What Pearson's r and R² need of a set of rows: totals of each track. */
export interface TrackSums extends Readonly<Record<Total, Float64Array>> {
  /** Rows (positions of all sequences so far). */
  readonly rows: number;
}

/** A number for each track, and their mean. */
export interface TrackMetric {
  readonly perTrack: Float64Array;
  /**
   * The mean over the tracks on which the metric is defined; NaN if there is none. basenji takes the mean over all tracks,
   * so there one constant track makes it NaN; otherwise the two are the same.
   */
  readonly mean: number;
  /** Tracks on which it is not defined (NaN): constant ones, and for AUROC those with a single label. */
  readonly undefinedTracks: number;
}

/**
 * The sums of one sequence: prediction and target [positions, tracks], row-major.
 *
 * @throws when the two differ in length or do not divide into `tracks` columns.
 */
export function sequenceSums(
  prediction: ArrayLike<number>,
  target: ArrayLike<number>,
  { tracks }: { readonly tracks: number },
): TrackSums {
  checkRows('sequenceSums', prediction, target, tracks);
  const sums = emptySums(tracks, prediction.length / tracks);
  for (let start = 0; start < prediction.length; start += tracks) {
    for (let track = 0; track < tracks; track++) {
      const p = prediction[start + track]!;
      const t = target[start + track]!;
      sums.predictions[track]! += p;
      sums.targets[track]! += t;
      sums.predictionSquares[track]! += p * p;
      sums.targetSquares[track]! += t * t;
      sums.products[track]! += p * t;
      sums.predictionLow[track] = Math.min(sums.predictionLow[track]!, p);
      sums.predictionHigh[track] = Math.max(sums.predictionHigh[track]!, p);
      sums.targetLow[track] = Math.min(sums.targetLow[track]!, t);
      sums.targetHigh[track] = Math.max(sums.targetHigh[track]!, t);
    }
  }
  return sums;
}

/**
 * The sums over several sequences, added in the order given: that of the sequences in the data set.
 *
 * @throws when the list is empty or the numbers of tracks differ.
 */
export function foldSums(list: readonly TrackSums[]): TrackSums {
  const [first] = list;
  if (first === undefined) throw new Error('foldSums: there are no sums; evaluate at least one sequence');
  const tracks = first.targets.length;
  const rows = list.reduce((total, sums) => total + sums.rows, 0);
  const folded = emptySums(tracks, rows);
  for (const sums of list) {
    if (sums.targets.length !== tracks)
      throw new Error(`foldSums: sums of ${tracks} and of ${sums.targets.length} tracks; they must be equal`);
    for (const total of TOTALS) {
      const [into, from] = [folded[total], sums[total]];
      for (let track = 0; track < tracks; track++) into[track] = FOLDS[total](into[track]!, from[track]!);
    }
  }
  return folded;
}

const add = (a: number, b: number): number => a + b;
/** How totals of two sets of rows combine. The extremes tell a constant track exactly, which rounded sums do not. */
const FOLDS: Readonly<Record<Total, (a: number, b: number) => number>> = {
  predictions: add,
  targets: add,
  predictionSquares: add,
  targetSquares: add,
  products: add,
  predictionLow: Math.min,
  predictionHigh: Math.max,
  targetLow: Math.min,
  targetHigh: Math.max,
};
const TOTALS = Object.keys(FOLDS) as readonly Total[];

/** Pearson's correlation of each track over all rows, from the totals as in basenji. NaN where a side is constant. */
export function pearson(sums: TrackSums): TrackMetric {
  return perTrack(sums.targets.length, (track) => {
    if (sums.predictionLow[track] === sums.predictionHigh[track]) return Number.NaN;
    if (sums.targetLow[track] === sums.targetHigh[track]) return Number.NaN;
    const [p, t] = [sums.predictions[track]!, sums.targets[track]!];
    const covariance = sums.products[track]! - (p * t) / sums.rows;
    const predictionVariance = sums.predictionSquares[track]! - (p * p) / sums.rows;
    const targetVariance = sums.targetSquares[track]! - (t * t) / sums.rows;
    return covariance / (Math.sqrt(predictionVariance) * Math.sqrt(targetVariance));
  });
}

/** The share of variance explained, 1 − Σ(t − p)² / Σ(t − t̄)², of each track. NaN where the target is constant. */
export function rSquared(sums: TrackSums): TrackMetric {
  return perTrack(sums.targets.length, (track) => {
    if (sums.targetLow[track] === sums.targetHigh[track]) return Number.NaN;
    const squares = sums.targetSquares[track]!;
    const residual = sums.predictionSquares[track]! - 2 * sums.products[track]! + squares;
    return 1 - residual / (squares - sums.targets[track]! ** 2 / sums.rows);
  });
}

/** Pearson's correlation of the ranks of each track, ties sharing their mean rank. Needs all rows [rows, tracks]. */
export function spearman(
  prediction: ArrayLike<number>,
  target: ArrayLike<number>,
  { tracks }: { readonly tracks: number },
): TrackMetric {
  checkRows('spearman', prediction, target, tracks);
  return perTrack(tracks, (track) => {
    const p = meanRanks(column(prediction, track, tracks));
    const t = meanRanks(column(target, track, tracks));
    return pearson(sequenceSums(p, t, { tracks: 1 })).perTrack[0]!;
  });
}

/**
 * The area under the ROC curve of each track, exact: the probability that a positive scores above a negative, ties
 * counting half. score and label [rows, tracks], labels 0 or 1. NaN where all labels are equal.
 */
export function auroc(
  score: ArrayLike<number>,
  label: ArrayLike<number>,
  { tracks }: { readonly tracks: number },
): TrackMetric {
  checkRows('auroc', score, label, tracks);
  return perTrack(tracks, (track) => {
    const ranks = meanRanks(column(score, track, tracks));
    const labels = column(label, track, tracks);
    const positives = labels.reduce((a, b) => a + b, 0);
    const negatives = labels.length - positives;
    if (positives === 0 || negatives === 0) return Number.NaN;
    const rankSum = labels.reduce((total, isPositive, row) => total + isPositive * ranks[row]!, 0);
    return (rankSum - (positives * (positives + 1)) / 2) / (positives * negatives); // Mann & Whitney 1947
  });
}

/**
 * Average precision of each track: Σ (recallₙ − recallₙ₋₁) · precisionₙ over distinct scores, from the highest down.
 * score and label [rows, tracks], labels 0 or 1. NaN where no label is 1.
 */
export function averagePrecision(
  score: ArrayLike<number>,
  label: ArrayLike<number>,
  { tracks }: { readonly tracks: number },
): TrackMetric {
  checkRows('averagePrecision', score, label, tracks);
  return perTrack(tracks, (track) => {
    const scores = column(score, track, tracks);
    const labels = column(label, track, tracks);
    const order = sorted(scores).reverse();
    const positives = labels.reduce((a, b) => a + b, 0);
    let found = 0;
    let counted = 0; // positives above the threshold before this one
    let area = 0;
    for (const [above, row] of order.entries()) {
      found += labels[row]!;
      if (scores[row] === scores[order[above + 1] ?? -1]) continue; // the threshold takes all its ties
      area += ((found - counted) / positives) * (found / (above + 1));
      counted = found;
    }
    return positives === 0 ? Number.NaN : area;
  });
}

function checkRows(
  name: string,
  prediction: ArrayLike<number>,
  target: ArrayLike<number>,
  tracks: number,
): void {
  if (prediction.length === target.length && prediction.length % tracks === 0) return;
  throw new Error(
    `${name}: ${prediction.length} predictions and ${target.length} targets for ${tracks} tracks; both must be [rows, ${tracks}]`,
  );
}

/** The totals of no rows, announced as those of `rows`. */
function emptySums(tracks: number, rows: number): TrackSums {
  const filled = (value: number): Float64Array => new Float64Array(tracks).fill(value);
  const [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  return {
    rows,
    predictions: filled(0),
    targets: filled(0),
    predictionSquares: filled(0),
    targetSquares: filled(0),
    products: filled(0),
    predictionLow: filled(low),
    predictionHigh: filled(high),
    targetLow: filled(low),
    targetHigh: filled(high),
  };
}

/** A metric from its value for each track. */
export function perTrack(tracks: number, value: (track: number) => number): TrackMetric {
  const values = Float64Array.from({ length: tracks }, (_, track) => value(track));
  const defined = values.filter((metric) => !Number.isNaN(metric));
  const mean = defined.reduce((a, b) => a + b, 0) / defined.length;
  return { perTrack: values, mean, undefinedTracks: tracks - defined.length };
}

function column(values: ArrayLike<number>, track: number, tracks: number): Float64Array {
  return Float64Array.from({ length: values.length / tracks }, (_, row) => values[row * tracks + track]!);
}

/** Rows by rising value. */
function sorted(values: Float64Array): number[] {
  return Array.from(values, (_, row) => row).sort((a, b) => values[a]! - values[b]!);
}

/** Ranks from 1; equal values share the mean of theirs. */
function meanRanks(values: Float64Array): Float64Array {
  const order = sorted(values);
  const ranks = new Float64Array(values.length);
  for (let first = 0, next = 0; first < order.length; first = next) {
    while (next < order.length && values[order[next]!] === values[order[first]!]) next++;
    for (const row of order.slice(first, next)) ranks[row] = (first + 1 + next) / 2;
  }
  return ranks;
}
