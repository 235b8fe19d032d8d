/** A learning rate, or one for each step; steps count from 0. */
export type LearningRate = number | ((step: number) => number);

/** The learning rate at a step. */
export function learningRateAt(rate: LearningRate, step: number): number {
  return typeof rate === 'number' ? rate : rate(step);
}

export interface WarmUpOptions {
  readonly peak: number;
  /** Steps until the peak is reached. */
  readonly warmup: number;
}

/** The same rate at every step. */
export function constantRate(rate: number): (step: number) => number {
  return () => rate;
}

/** Basenji's and baskerville's WarmUp: a straight line from 0, which the first step has, to the peak. */
export function warmUp({ peak, warmup }: WarmUpOptions): (step: number) => number {
  return (step) => (step < warmup ? (peak * step) / warmup : peak);
}

/** Enformer's: min(1, step / warmup) · peak; the same line, rounded otherwise. */
export function deepmindWarmUp({ peak, warmup }: WarmUpOptions): (step: number) => number {
  return (step) => Math.min(1, step / warmup) * peak;
}

export interface WarmUpCosineOptions extends WarmUpOptions {
  /** The step at which the rate has come down to 0. */
  readonly end: number;
}

/** A straight line up to the peak, then half a cosine down to 0 at step `end`. */
export function warmUpCosine({ peak, warmup, end }: WarmUpCosineOptions): (step: number) => number {
  return (step) => {
    if (step < warmup) return (peak * step) / warmup;
    const progress = Math.min(1, (step - warmup) / (end - warmup));
    return peak * 0.5 * (1 + Math.cos(Math.PI * progress));
  };
}

export interface CyclicalOptions {
  readonly initial: number;
  readonly maximal: number;
  readonly final: number;
  /** Steps from the initial to the maximal rate, and again as many back. */
  readonly stepSize: number;
}

/** Basenji's Cyclical1: one triangle from the initial rate to the maximal and back, then the final rate. */
export function cyclical1({ initial, maximal, final, stepSize }: CyclicalOptions): (step: number) => number {
  return (step) => {
    if (step > 2 * stepSize) return final;
    const cycle = Math.floor(1 + step / (2 * stepSize));
    const distance = Math.abs(step / stepSize - 2 * cycle + 1);
    return initial + (maximal - initial) * Math.max(0, 1 - distance);
  };
}
