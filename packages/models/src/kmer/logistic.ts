/** Logistic regression of labels on sparse counts, in float64 on the host: gapped k-mers or peaks to hold a network against. */
import type { SparseCounts } from './features.ts';
import { lbfgs, type Objective } from './lbfgs.ts';
import { type LinearModel, linearModel } from './linear-model.ts';

/** Rows of features with labels, kept for the fits. */
export interface LogisticRows {
  /** @param labels 0 or 1 of each track. @throws for any other number */
  add(features: SparseCounts, labels: ArrayLike<number>): void;
  /**
   * For each track the minimum of Σ log(1 + e^(−s·z)) + penalty · m · |w|² / 2 with z = b + w·x, s = ±1 for labels 1 and 0, and
   * m the mean over features of Σ (x − x̄)², as in `ridgeSums`; the intercept b is not penalised. The model gives z, the
   * log-odds of a 1. A track with a single label is not fitted: its log-odds are 0.
   *
   * @param from a model of another penalty to begin at, which is faster
   * @throws when there are no rows.
   */
  solve(penalty: number, from?: LogisticModel): LogisticModel;
}

export interface LogisticModel extends LinearModel {
  /** Of each track, [features + 1]: weights of counts less their means, and the intercept. */
  readonly parameters: readonly Float64Array[];
  /** Tracks that 200 iterations left short of the minimum: a gradient above 1e-6 a row. */
  readonly unconverged: number;
}

const TOLERANCE = 1e-6; // of the gradient, for each row
const ITERATIONS = 200;

/** No rows yet, of `size` features and so many tracks. */
export function logisticRows(size: number, tracks: number): LogisticRows {
  const rows: SparseCounts[] = [];
  const labels: Uint8Array[] = [];
  return {
    add: (features, given) => {
      for (let t = 0; t < tracks; t++) {
        if (given[t] !== 0 && given[t] !== 1)
          throw new Error(`logisticRows: a label of track ${t} is ${given[t]}; labels must be 0 or 1`);
      }
      rows.push(features);
      labels.push(Uint8Array.from(given));
    },
    solve: (penalty, from) => {
      if (rows.length === 0) throw new Error('logisticRows: there are no rows to fit; add some');
      const { means, spread } = momentsOf(rows, size);
      const fits = Array.from({ length: tracks }, (_, track) => {
        const own = Uint8Array.from(labels, (row) => row[track]!);
        if (own.every((label) => label === own[0])) return { x: new Float64Array(size + 1), converged: true };
        const objective = logLoss(rows, own, means, penalty * spread);
        const start = from?.parameters[track] ?? new Float64Array(size + 1);
        return lbfgs(objective, start, { tolerance: TOLERANCE * rows.length, iterations: ITERATIONS });
      });
      const parameters = fits.map(({ x }) => x);
      return {
        parameters,
        unconverged: fits.filter(({ converged }) => !converged).length,
        ...uncentred(parameters, means),
      };
    },
  };
}

/** The mean of each feature, and the mean over features of Σ (x − x̄)². */
function momentsOf(
  rows: readonly SparseCounts[],
  size: number,
): { readonly means: Float64Array; readonly spread: number } {
  const totals = new Float64Array(size);
  let squares = 0;
  for (const { indices, counts } of rows) {
    for (let a = 0; a < indices.length; a++) {
      totals[indices[a]!]! += counts[a]!;
      squares += counts[a]! ** 2;
    }
  }
  const means = totals.map((total) => total / rows.length);
  const aroundZero = means.reduce((sum, mean) => sum + rows.length * mean * mean, 0);
  return { means, spread: (squares - aroundZero) / size };
}

/** Of weights for counts less their means, which leaves the intercept free of them, and last the intercept. */
function logLoss(
  rows: readonly SparseCounts[],
  labels: Uint8Array,
  means: Float64Array,
  ridge: number,
): Objective {
  const size = means.length;
  return (x, gradient) => {
    let shift = x[size]!;
    let loss = 0;
    for (let i = 0; i < size; i++) {
      shift -= x[i]! * means[i]!;
      loss += (ridge * x[i]! ** 2) / 2;
    }
    gradient.fill(0);
    let residuals = 0;
    for (const [row, { indices, counts }] of rows.entries()) {
      let z = shift;
      for (let a = 0; a < indices.length; a++) z += counts[a]! * x[indices[a]!]!;
      const residual = 1 / (1 + Math.exp(-z)) - labels[row]!;
      loss += Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))) - labels[row]! * z;
      residuals += residual;
      for (let a = 0; a < indices.length; a++) gradient[indices[a]!]! += residual * counts[a]!;
    }
    for (let i = 0; i < size; i++) gradient[i]! += ridge * x[i]! - residuals * means[i]!;
    gradient[size] = residuals;
    return loss;
  };
}

function uncentred(parameters: readonly Float64Array[], means: Float64Array): LinearModel {
  const [size, tracks] = [means.length, parameters.length];
  const weights = new Float64Array(size * tracks);
  const intercept = new Float64Array(tracks);
  for (const [track, own] of parameters.entries()) {
    intercept[track] = own[size]!;
    for (let i = 0; i < size; i++) {
      weights[i * tracks + track] = own[i]!;
      intercept[track]! -= own[i]! * means[i]!;
    }
  }
  return linearModel(weights, intercept);
}
