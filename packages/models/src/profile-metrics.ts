/** Metrics of predicted profiles: of their shape, whatever the total, and of the total. */
import { logGammaReference } from '@cohesin/core';
import { pearson, sequenceSums, spearman } from './metrics.ts';

/** How well profiles and counts of some sequences are predicted; a mean is over the sequences on which it is defined. */
export interface ProfileMetrics {
  readonly sequences: number;
  /** The loss of training: over groups, the multinomial's negative log-likelihood and the weighted `countMse`. */
  readonly loss: number;
  readonly perTrack: readonly TrackProfile[];
  readonly perGroup: readonly GroupCounts[];
}

/** Of one track: means over sequences with reads on it. */
export interface TrackProfile {
  /** Jensen–Shannon divergence in nats: bpnet-lite's `profile_jsd`. */
  readonly jsd: number;
  /** The median of its square root, the distance that ChromBPNet reports. */
  readonly medianJsDistance: number;
  readonly pearson: number;
  /** Sequences without reads. */
  readonly empty: number;
}

/** Of tracks that are counted together, log(1 + reads) against their prediction. */
export interface GroupCounts {
  /** Negative log-likelihood of the reads under the predicted multinomial, the mean over sequences. */
  readonly mnll: number;
  readonly countPearson: number;
  readonly countSpearman: number;
  readonly countMse: number;
}

/** What a model predicts of one sequence: logits [positions, tracks] and log counts [groups]. */
export interface ProfilePrediction {
  readonly logits: ArrayLike<number>;
  readonly logCounts: ArrayLike<number>;
}

export interface ProfileMeasureOptions {
  readonly tracks: number;
  /** Tracks under one multinomial. */
  readonly groups: readonly (readonly number[])[];
  readonly countWeight: number;
}

/** Collects predictions sequence by sequence; their order decides the last bits. */
export class ProfileMeasure {
  readonly #options: ProfileMeasureOptions;
  readonly #divergences: number[][];
  readonly #correlations: number[][];
  readonly #likelihoods: number[][];
  readonly #counts: { readonly predicted: number[]; readonly target: number[] }[];

  constructor(options: ProfileMeasureOptions) {
    const { tracks, groups } = options;
    this.#options = options;
    this.#divergences = Array.from({ length: tracks }, () => []);
    this.#correlations = Array.from({ length: tracks }, () => []);
    this.#likelihoods = groups.map(() => []);
    this.#counts = groups.map(() => ({ predicted: [], target: [] }));
  }

  /** One sequence: its prediction, and its reads [positions, tracks]. */
  add({ logits, logCounts }: ProfilePrediction, target: ArrayLike<number>): void {
    const { tracks, groups } = this.#options;
    const length = logits.length / tracks;
    const column = (values: ArrayLike<number>, track: number): Float64Array =>
      Float64Array.from({ length }, (_, row) => values[row * tracks + track]!);
    for (const [i, group] of groups.entries()) {
      const reads = group.map((track) => column(target, track));
      const shares = logShares(group.map((track) => column(logits, track)));
      for (const [k, track] of group.entries()) {
        const share = shares[k]!.map(Math.exp);
        this.#divergences[track]!.push(jensenShannon(share, reads[k]!, { length })[0]!);
        this.#correlations[track]!.push(pearson(sequenceSums(share, reads[k]!, { tracks: 1 })).perTrack[0]!);
      }
      this.#likelihoods[i]!.push(negativeLogLikelihood(shares, reads));
      this.#counts[i]!.predicted.push(logCounts[i]!);
      this.#counts[i]!.target.push(Math.log1p(total(reads)));
    }
  }

  result(): ProfileMetrics {
    const perTrack = this.#divergences.map((divergences, track): TrackProfile => {
      const defined = divergences.filter((value) => !Number.isNaN(value));
      return {
        jsd: mean(defined),
        medianJsDistance: Math.sqrt(median(defined)),
        pearson: mean(this.#correlations[track]!.filter((value) => !Number.isNaN(value))),
        empty: divergences.length - defined.length,
      };
    });
    const perGroup = this.#counts.map(
      ({ predicted, target }, i): GroupCounts => ({
        mnll: mean(this.#likelihoods[i]!),
        countPearson: pearson(sequenceSums(predicted, target, { tracks: 1 })).perTrack[0]!,
        countSpearman: spearman(predicted, target, { tracks: 1 }).perTrack[0]!,
        countMse: mean(predicted.map((value, k) => (value - target[k]!) ** 2)),
      }),
    );
    const { countWeight } = this.#options;
    const loss = perGroup.reduce((sum, { mnll, countMse }) => sum + mnll + countWeight * countMse, 0);
    return { sequences: this.#likelihoods[0]!.length, loss, perTrack, perGroup };
  }
}

/** The middle value, or the mean of the two; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  return (sorted[Math.ceil(half) - 1]! + sorted[Math.floor(half)]!) / 2;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const total = (columns: readonly Float64Array[]): number =>
  columns.reduce((sum, column) => column.reduce((a, b) => a + b, sum), 0);

/** Logarithms of the softmax over all columns together. */
function logShares(logits: readonly Float64Array[]): Float64Array[] {
  const high = logits.reduce((most, column) => column.reduce((a, b) => Math.max(a, b), most), -Infinity);
  const whole = high + Math.log(total(logits.map((column) => column.map((z) => Math.exp(z - high)))));
  return logits.map((column) => column.map((z) => z - whole));
}

/** −log N! + Σ log tᵢ! − Σ tᵢ · log pᵢ, as `nn.multinomialLoss`. */
function negativeLogLikelihood(logShare: readonly Float64Array[], reads: readonly Float64Array[]): number {
  const terms = reads.map((column, k) =>
    column.map((t, i) => (t === 0 ? 0 : logGammaReference(t + 1) - t * logShare[k]![i]!)),
  );
  return total(terms) - logGammaReference(total(reads) + 1);
}

/**
 * The Jensen–Shannon divergence in nats of each row of a and b `[rows, length]`, both normalised to sum to 1; its square
 * root is the distance SciPy calls `jensenshannon`. NaN where a row sums to 0.
 *
 * @throws when the two differ in size or rows of `length` do not fill them.
 */
export function jensenShannon(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  { length }: { readonly length: number },
): Float64Array {
  const rows = a.length / length;
  if (a.length !== b.length || !Number.isInteger(rows))
    throw new Error(`jensenShannon: ${a.length} and ${b.length} values; both must be [rows, ${length}]`);
  return Float64Array.from({ length: rows }, (_, row) => {
    const share = (values: ArrayLike<number>): Float64Array => {
      const own = Float64Array.from({ length }, (__, k) => values[row * length + k]!);
      const total = own.reduce((sum, value) => sum + value, 0);
      return own.map((value) => value / total);
    };
    const [p, q] = [share(a), share(b)];
    return p.reduce((sum, pk, k) => {
      const middle = (pk + q[k]!) / 2;
      return sum + (relativeEntropy(pk, middle) + relativeEntropy(q[k]!, middle)) / 2;
    }, 0);
  });
}

/** p · log(p / m), 0 where p is 0. */
function relativeEntropy(p: number, m: number): number {
  return p === 0 ? 0 : p * Math.log(p / m);
}
