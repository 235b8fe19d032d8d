/** Metrics of genes: the bins of each taken together, then genes beside each other, as baskerville's `hound_eval_genes`. */
import {
  foldSums,
  pearson,
  perTrack,
  rSquared,
  sequenceSums,
  type TrackMetric,
  type TrackSums,
} from './metrics.ts';

export interface Gene {
  readonly name: string;
  readonly chrom: string;
  readonly strand: '+' | '-' | '.';
  /** Half-open places in bp: its whole span, its exons, or its start. */
  readonly spans: readonly (readonly [startBp: number, endBp: number])[];
}

/** Where the bins of a sequence are. */
export interface BinPlace {
  readonly chrom: string;
  /** Of the first bin, in bp. */
  readonly startBp: number;
}

export interface GeneOptions {
  readonly tracks: number;
  readonly binBp: number;
  /**
   * Of each track, the one to take on genes of the + strand and on those of the − strand: partners for stranded tracks. By
   * default a track is taken on both.
   */
  readonly byStrand?: readonly { readonly plus: number; readonly minus: number }[];
}

export interface GeneMetrics {
  /** Genes with a bin. */
  readonly genes: number;
  /** Over genes, of log2(1 + coverage), the coverage of a gene being the mean of its bins times its length in bins. */
  readonly pearson: TrackMetric;
  readonly r2: TrackMetric;
  /** r over the bins of a gene, of log2(1 + value): the mean over the genes on which it is defined. */
  readonly within: TrackMetric;
}

/** Takes sequences in the order of the data set. */
export interface GeneCollector {
  /** Prediction and target of one sequence, [bins, tracks], as coverage. */
  add(place: BinPlace, predicted: ArrayLike<number>, target: ArrayLike<number>): void;
  /** @throws when no gene had a bin */
  metrics(): GeneMetrics;
}

/** Bins of one gene so far. */
interface Found {
  readonly gene: Gene;
  bins: number;
  readonly predicted: Float64Array;
  readonly target: Float64Array;
  readonly logs: TrackSums[];
}

/** Collects the bins of genes from the sequences that cover them; a gene may lie in several sequences. */
export function geneCollector(genes: readonly Gene[], options: GeneOptions): GeneCollector {
  const { tracks, binBp } = options;
  const byChromosome = new Map<string, Gene[]>();
  for (const gene of genes) byChromosome.set(gene.chrom, [...(byChromosome.get(gene.chrom) ?? []), gene]);
  const found = new Map<Gene, Found>();
  return {
    add: ({ chrom, startBp }, predicted, target) => {
      const bins = target.length / tracks;
      for (const gene of byChromosome.get(chrom) ?? [])
        for (const [from, to] of binsOf(gene, startBp, binBp, bins)) {
          const own = found.get(gene) ?? nothing(gene, tracks);
          found.set(gene, own);
          take(own, rowsOf(predicted, tracks, from, to), rowsOf(target, tracks, from, to));
        }
    },
    metrics: () => metricsOf([...found.values()], options),
  };
}

/** Ranges of bins that the spans of a gene touch. */
function binsOf({ spans }: Gene, startBp: number, binBp: number, bins: number): [from: number, to: number][] {
  return spans.flatMap(([start, end]): [number, number][] => {
    const from = Math.max(0, Math.floor((start - startBp) / binBp));
    const to = Math.min(bins, Math.ceil((end - startBp) / binBp));
    return from < to ? [[from, to]] : [];
  });
}

function rowsOf(values: ArrayLike<number>, tracks: number, from: number, to: number): Float64Array {
  return Float64Array.from({ length: (to - from) * tracks }, (_, i) => values[from * tracks + i]!);
}

function nothing(gene: Gene, tracks: number): Found {
  return { gene, bins: 0, predicted: new Float64Array(tracks), target: new Float64Array(tracks), logs: [] };
}

function take(found: Found, predicted: Float64Array, target: Float64Array): void {
  const tracks = found.target.length;
  found.bins += target.length / tracks;
  for (let i = 0; i < target.length; i++) {
    found.predicted[i % tracks]! += predicted[i]!;
    found.target[i % tracks]! += target[i]!;
  }
  const sums = sequenceSums(predicted.map(logCoverage), target.map(logCoverage), { tracks });
  found.logs.splice(0, 1, foldSums([...found.logs, sums]));
}

/** Predictions below 0 count as 0. */
const logCoverage = (value: number): number => Math.log2(1 + Math.max(0, value));

function metricsOf(found: readonly Found[], { tracks, binBp, byStrand }: GeneOptions): GeneMetrics {
  if (found.length === 0)
    throw new Error('no gene lies in the bins of these sequences; are chromosomes named alike?');
  const source = (track: number, { strand }: Gene): number =>
    byStrand?.[track]?.[strand === '-' ? 'minus' : 'plus'] ?? track;
  const table = (side: 'predicted' | 'target'): Float64Array =>
    Float64Array.from({ length: found.length * tracks }, (_, i) => {
      const own = found[Math.floor(i / tracks)]!;
      const mean = own[side][source(i % tracks, own.gene)]! / own.bins;
      return logCoverage((mean * lengthBp(own.gene)) / binBp);
    });
  const sums = sequenceSums(table('predicted'), table('target'), { tracks });
  const inside = found.map(({ gene, logs }) => ({ gene, r: pearson(logs[0]!).perTrack }));
  const within = perTrack(tracks, (track) => {
    const values = inside.map(({ gene, r }) => r[source(track, gene)]!).filter((r) => !Number.isNaN(r));
    return values.reduce((a, b) => a + b, 0) / values.length;
  });
  return { genes: found.length, pearson: pearson(sums), r2: rSquared(sums), within };
}

const lengthBp = ({ spans }: Gene): number => spans.reduce((sum, [start, end]) => sum + end - start, 0);
