/** A linear model of many tracks on sparse counts, however it was fitted. */
import type { SparseCounts } from './features.ts';

export interface LinearModel {
  /** One value a track. */
  predict(features: SparseCounts): Float64Array;
}

/** intercept + w·x of each track; weights [features, tracks] row-major, intercept [tracks]. */
export function linearModel(weights: Float64Array, intercept: Float64Array): LinearModel {
  const tracks = intercept.length;
  return {
    predict: ({ indices, counts }) => {
      const values = intercept.slice();
      for (let a = 0; a < indices.length; a++) {
        for (let t = 0; t < tracks; t++) values[t]! += counts[a]! * weights[indices[a]! * tracks + t]!;
      }
      return values;
    },
  };
}
