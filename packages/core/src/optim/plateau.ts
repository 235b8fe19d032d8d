/** A learning rate that follows validation, which no schedule of steps knows. */
import type { Counters } from '../counters.ts';

export interface Plateau {
  /** What the learning rate is multiplied by. */
  readonly factor: number;
  /** Validations without a better one that are borne; the next lowers the rate. */
  readonly patience: number;
  /** How much better counts, as a share of the best. Default 1e-4. */
  readonly threshold?: number;
  /** The lowest product of all factors. Default 0. */
  readonly least?: number;
}

/** What all schedules are multiplied by; 1 where nothing has lowered it. */
export const RATE_FACTOR = 'plateau.rateFactor';
const BEST = 'plateau.best';
const MISSES = 'plateau.misses';

/**
 * An optimizer's counters after a validation of `value`, as PyTorch's ReduceLROnPlateau with a relative threshold and no
 * cooldown. The learning rate goes down once more than `patience` validations in a row were not better. Counters are kept in
 * checkpoints, so a resumed run goes on with the same rate. NaN is not better.
 */
export function afterValidation(
  counters: Counters,
  value: number,
  better: 'higher' | 'lower',
  { factor, patience, threshold = 1e-4, least = 0 }: Plateau,
): Counters {
  const { [BEST]: best, [MISSES]: before = 0, [RATE_FACTOR]: rate = 1 } = counters;
  const isBetter =
    best === undefined
      ? !Number.isNaN(value)
      : better === 'lower'
        ? value < best * (1 - threshold)
        : value > best * (1 + threshold);
  const misses = isBetter ? 0 : before + 1;
  const lower = misses > patience;
  return {
    ...counters,
    ...(isBetter ? { [BEST]: value } : {}),
    [MISSES]: lower ? 0 : misses,
    [RATE_FACTOR]: lower ? Math.max(rate * factor, least) : rate,
  };
}
