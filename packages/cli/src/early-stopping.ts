/** When training ends because validation no longer improves, as basenji's trainer does. */
import type { Validations } from '@cohesin/distributed';

/** When to give up. */
export interface Stopping {
  /** Validations without a better one after which training ends; 0 as 1, as in Keras. */
  readonly patience: number;
  /** Epochs that are trained in any case. */
  readonly minEpochs: number;
}

/** The validations up to one of `value` after `step`. An equal value is not better, nor is NaN. */
export function validated(
  before: Validations,
  step: number,
  value: number,
  better: 'higher' | 'lower' = 'higher',
): Validations {
  const { best, unimproved, patience } = before;
  const sign = better === 'higher' ? 1 : -1;
  if (sign * value > (best === undefined ? Number.NEGATIVE_INFINITY : sign * best.value))
    return { best: { step, value }, unimproved: 0, patience };
  return { ...before, unimproved: unimproved + 1 };
}

/** Whether training ends after these validations and so many epochs. */
export function isOver(
  { unimproved }: Validations,
  { patience, minEpochs }: Stopping,
  epochs: number,
): boolean {
  return unimproved >= Math.max(1, patience) && epochs >= minEpochs;
}
