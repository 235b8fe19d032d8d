/** What predictions are held against measurements by, and how it is told. */
import {
  auroc,
  averagePrecision,
  foldSums,
  type GeneMetrics,
  pearson,
  rSquared,
  sequenceSums,
  spearman,
  type TrackMetric,
  type TrackSums,
} from '@cohesin/models';

export type MeasureName = 'pearson' | 'r2' | 'spearman' | 'auroc' | 'average_precision';

/** One metric of each track, over all rows of all sequences together. */
export interface Measure {
  readonly name: MeasureName;
  readonly tracks: TrackMetric;
}

/** What the rows of a sequence are: bins along it, pairs of bins of a contact map, or the sequence as a whole. */
export type Rows = 'positions' | 'pairs of bins' | 'sequences';

export const LABELS: Readonly<Record<MeasureName, string>> = {
  pearson: 'Pearson r',
  r2: 'R²',
  spearman: 'Spearman ρ',
  auroc: 'AUROC',
  average_precision: 'average precision',
};

/** Takes sequences in the order of the data set and gives the metrics of all of them. */
export interface Collector {
  /** Prediction and target of one sequence, [rows, tracks]. */
  add(predicted: ArrayLike<number>, target: ArrayLike<number>): void;
  /** The one to judge by comes first. @throws when there was no sequence. */
  measures(): readonly [Measure, ...Measure[]];
}

/** Pearson's r and R², from totals of each sequence; with `ranks`, which keeps all predictions, Spearman's ρ as well. */
export function valueCollector(
  tracks: number,
  { ranks = false }: { readonly ranks?: boolean } = {},
): Collector {
  const sums: TrackSums[] = [];
  const rows = rowStore(tracks);
  return {
    add: (predicted, target) => {
      sums.push(sequenceSums(predicted, target, { tracks }));
      if (ranks) rows.add(predicted, target);
    },
    measures: () => {
      const total = foldSums(sums);
      return [
        { name: 'pearson', tracks: pearson(total) },
        { name: 'r2', tracks: rSquared(total) },
        ...(ranks ? [{ name: 'spearman', tracks: rows.metric(spearman) } as const] : []),
      ];
    },
  };
}

/** The area under the ROC curve and the average precision (the area under precision by recall), for labels 0 and 1. */
export function labelCollector(tracks: number): Collector {
  const rows = rowStore(tracks);
  return {
    add: rows.add,
    measures: () => [
      { name: 'auroc', tracks: rows.metric(auroc) },
      { name: 'average_precision', tracks: rows.metric(averagePrecision) },
    ],
  };
}

type RowMetric = (
  predicted: ArrayLike<number>,
  target: ArrayLike<number>,
  shape: { readonly tracks: number },
) => TrackMetric;

/** Keeps every row, for metrics of ranks. */
function rowStore(tracks: number): {
  readonly add: Collector['add'];
  readonly metric: (of: RowMetric) => TrackMetric;
} {
  const kept: { readonly predicted: Float64Array; readonly target: Float64Array }[] = [];
  const joined = (side: 'predicted' | 'target'): Float64Array => {
    const all = new Float64Array(kept.reduce((length, rows) => length + rows.target.length, 0));
    let at = 0;
    for (const rows of kept) {
      all.set(rows[side], at);
      at += rows[side].length;
    }
    return all;
  };
  return {
    add: (predicted, target) =>
      void kept.push({ predicted: Float64Array.from(predicted), target: Float64Array.from(target) }),
    metric: (of) => of(joined('predicted'), joined('target'), { tracks }),
  };
}

/** The metrics as a program reads them: means, and each track's values, null where it has none. */
export function measuresEvent(
  measures: readonly [Measure, ...Measure[]],
  rows: Rows,
  describe: (track: number) => Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const [{ name, tracks }] = measures;
  const byName = <T>(value: (measure: Measure) => T): Record<string, T> =>
    Object.fromEntries(measures.map((measure) => [measure.name, value(measure)]));
  return {
    metric: name,
    over: rows,
    mean: tracks.mean,
    undefinedTracks: tracks.undefinedTracks,
    means: byName((measure) => measure.tracks.mean),
    tracks: [...tracks.perTrack].map((value, track) => ({
      track,
      ...describe(track),
      value: orNull(value),
      ...byName((measure) => orNull(measure.tracks.perTrack[track]!)),
    })),
  };
}

/** Metrics of genes as a program reads them. */
export function genesEvent(
  { genes, pearson, r2, within }: GeneMetrics,
  describe: (track: number) => Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  return {
    genes,
    means: { pearson: orNull(pearson.mean), r2: orNull(r2.mean), within: orNull(within.mean) },
    tracks: [...pearson.perTrack].map((value, track) => ({
      track,
      ...describe(track),
      pearson: orNull(value),
      r2: orNull(r2.perTrack[track]!),
      within: orNull(within.perTrack[track]!),
    })),
  };
}

/** The same in a line. */
export function genesLine({ genes, pearson, r2, within }: GeneMetrics): string {
  const tracks = pearson.perTrack.length - pearson.undefinedTracks;
  return `${genes} genes, log2(1 + coverage): mean Pearson r ${pearson.mean.toFixed(4)}, R² ${r2.mean.toFixed(4)} over ${tracks} tracks; within genes r ${within.mean.toFixed(4)}`;
}

const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);

/** The metrics' means in a line: `mean Pearson r 0.4085, R² 0.1513 over 74 tracks, 12 sequences and all their positions`. */
export function meansLine(measures: readonly [Measure, ...Measure[]], rows: Rows, sequences: number): string {
  const [{ tracks }] = measures;
  const means = measures.map((measure) => `${LABELS[measure.name]} ${measure.tracks.mean.toFixed(4)}`);
  const where = rows === 'sequences' ? '' : ` and all their ${rows}`;
  return `mean ${means.join(', ')} over ${tracks.perTrack.length - tracks.undefinedTracks} tracks, ${sequences} sequences${where}`;
}
