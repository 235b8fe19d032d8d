/** From predicted targets back to coverage: baskerville's `untransform_preds`, and `untransform_preds1` if `published`. */
import type { SumStatistic, TrackTransform, WindowTransform } from './targets.ts';

/**
 * Pooled coverage, in the units of the track's file, behind targets or predictions of one track: the inverse of
 * `binTargets` after pooling. What a hard clip took off stays off.
 */
export function untransformTargets(
  targets: ArrayLike<number>,
  { statistic, scale, clipSoft = Number.POSITIVE_INFINITY }: TrackTransform,
  { published }: Pick<WindowTransform, 'published'>,
): Float64Array {
  const shift = published ? 0 : 1;
  const [first, last] = published ? [scale, 1] : [1, scale];
  return Float64Array.from(targets, (target) => {
    const scaled = target / first;
    const hard = scaled > clipSoft ? clipSoft - shift + (scaled - clipSoft + shift) ** 2 : scaled;
    return unrooted(hard, statistic, published) / last;
  });
}

/** The inverse of the root that a statistic ends with. */
function unrooted(value: number, statistic: SumStatistic, published: boolean): number {
  switch (statistic) {
    case 'sum_sqrt':
    case 'mean_sqrt':
      return published ? value ** (4 / 3) : (1 + value) ** 2 - 1;
    case 'sum_exp75':
      return (1 + value) ** (4 / 3) - 1;
    case 'peak':
      return value ** 2 / 4;
    default:
      return value;
  }
}
