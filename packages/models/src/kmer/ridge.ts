/** Ridge regression of many tracks on sparse counts, in float64 on the host: a linear model to hold a network against. */
import type { SparseCounts } from './features.ts';
import { type LinearModel, linearModel } from './linear-model.ts';

/** What the regression needs of rows of features and targets. */
export interface RidgeSums {
  add(features: SparseCounts, targets: ArrayLike<number>): void;
  /**
   * The minimum of Σ (y − b − w·x)² + penalty · m · |w|² for each track, m the mean over features of Σ (x − x̄)²; the
   * intercept b is not penalised.
   *
   * @throws when there are no rows.
   */
  solve(penalty: number): LinearModel;
}

/** Sums over no rows yet, of `size` features and so many tracks. */
export function ridgeSums(size: number, tracks: number): RidgeSums {
  const products = new Float64Array(size * size); // lower triangle of Σ x xᵀ
  const withTargets = new Float64Array(size * tracks);
  const [totals, targetTotals] = [new Float64Array(size), new Float64Array(tracks)];
  let rows = 0;
  return {
    add: ({ indices, counts }, targets) => {
      rows++;
      for (let t = 0; t < tracks; t++) targetTotals[t]! += targets[t]!;
      for (let a = 0; a < indices.length; a++) {
        const [i, x] = [indices[a]!, counts[a]!];
        totals[i]! += x;
        for (let b = 0; b <= a; b++) products[i * size + indices[b]!]! += x * counts[b]!; // indices rise
        for (let t = 0; t < tracks; t++) withTargets[i * tracks + t]! += x * targets[t]!;
      }
    },
    solve: (penalty) => {
      if (rows === 0) throw new Error('ridgeSums: there are no rows to fit; add some');
      const centred = products.slice();
      const right = withTargets.slice();
      let spread = 0;
      for (let i = 0; i < size; i++) {
        for (let j = 0; j <= i; j++) centred[i * size + j]! -= (totals[i]! * totals[j]!) / rows;
        for (let t = 0; t < tracks; t++) right[i * tracks + t]! -= (totals[i]! * targetTotals[t]!) / rows;
        spread += centred[i * size + i]! / size;
      }
      for (let i = 0; i < size; i++) centred[i * size + i]! += penalty * spread;
      factorize(centred, size);
      const weights = substitute(centred, right, size, tracks);
      const intercept = Float64Array.from(targetTotals, (total, t) => {
        let sum = total;
        for (let i = 0; i < size; i++) sum -= totals[i]! * weights[i * tracks + t]!;
        return sum / rows;
      });
      return linearModel(weights, intercept);
    },
  };
}

/** Cholesky's factor in place of the lower triangle of a positive definite matrix. @throws when it is not. */
function factorize(a: Float64Array, size: number): void {
  for (let i = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * size + j]!;
      for (let k = 0; k < j; k++) sum -= a[i * size + k]! * a[j * size + k]!;
      if (i !== j) a[i * size + j] = sum / a[j * size + j]!;
      else if (sum > 0) a[i * size + i] = Math.sqrt(sum);
      else throw new Error('ridgeSums: the features are not independent; raise the penalty');
    }
  }
}

/** x with L Lᵀ x = b, in place of b [size, tracks]. */
function substitute(l: Float64Array, b: Float64Array, size: number, tracks: number): Float64Array {
  const subtractRow = (into: number, from: number, factor: number): void => {
    for (let t = 0; t < tracks; t++) b[into * tracks + t]! -= factor * b[from * tracks + t]!;
  };
  const divideRow = (row: number): void => {
    for (let t = 0; t < tracks; t++) b[row * tracks + t]! /= l[row * size + row]!;
  };
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < i; j++) subtractRow(i, j, l[i * size + j]!);
    divideRow(i);
  }
  for (let i = size - 1; i >= 0; i--) {
    divideRow(i);
    for (let j = 0; j < i; j++) subtractRow(j, i, l[i * size + j]!);
  }
  return b;
}
