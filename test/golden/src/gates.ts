/** How far a value may be from its reference, and how that distance is measured. */

/** Limits of the errors below; the reasons and PyTorch's own errors are in test/fixtures/README.md. */
export interface Gates {
  readonly outputs: number;
  readonly losses: number;
  /** Of each gradient by itself. */
  readonly gradients: number;
  /** Of each gradient beside the largest of the model. */
  readonly gradientsOfModel: number;
  readonly batchNorm: number;
  /** Weights after SGD steps, beside the largest update of the tensor. */
  readonly sgdUpdate: number;
  /** Share of weights that Adam or RMSProp steps left further off than `adaptiveDistance`. */
  readonly adaptiveShare: number;
  /** In learning rates: a gradient whose sign rounding decides moves by 2. */
  readonly adaptiveDistance: number;
  readonly lossCurve: number;
  /** Running statistics after optimizer steps: they follow the weights as the loss does, so its gate is theirs. */
  readonly runningAfterSteps: number;
  readonly opOutputs: number;
  readonly opGradients: number;
  /** Ops on values far from 0, where a variance computed as E[x²] − E[x]² loses all digits. */
  readonly largeMeanOutputs: number;
  readonly largeMeanGradients: number;
}

export const GATES: Gates = {
  outputs: 2e-5,
  losses: 1e-5,
  gradients: 5e-4,
  gradientsOfModel: 1e-4,
  batchNorm: 1e-5,
  sgdUpdate: 0.1,
  adaptiveShare: 0.02,
  adaptiveDistance: 0.05,
  lossCurve: 5e-4,
  runningAfterSteps: 5e-4,
  opOutputs: 1e-5,
  opGradients: 1e-4,
  largeMeanOutputs: 1e-4,
  largeMeanGradients: 1e-3,
};

/** max |value − reference| / max |reference|; absolute where the reference is all zero; infinite if not finite. */
export function relativeError(values: ArrayLike<number>, reference: ArrayLike<number>): number {
  const scale = largest(reference);
  const error = absoluteError(values, reference);
  return scale === 0 ? error : error / scale;
}

/** max |value − reference|; infinite if the counts differ or a value is not finite. */
export function absoluteError(values: ArrayLike<number>, reference: ArrayLike<number>): number {
  if (values.length !== reference.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < reference.length; i++) {
    const difference = Math.abs(values[i]! - reference[i]!);
    if (!Number.isFinite(difference)) return Number.POSITIVE_INFINITY;
    if (difference > worst) worst = difference;
  }
  return worst;
}

/** max |value|. */
export function largest(values: ArrayLike<number>): number {
  let found = 0;
  for (let i = 0; i < values.length; i++) found = Math.max(found, Math.abs(values[i]!));
  return found;
}

/** The share of values further than `distance` from the reference; infinite as in `absoluteError`. */
export function shareBeyond(
  values: ArrayLike<number>,
  reference: ArrayLike<number>,
  distance: number,
): number {
  if (absoluteError(values, reference) === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
  let beyond = 0;
  for (let i = 0; i < reference.length; i++) if (Math.abs(values[i]! - reference[i]!) > distance) beyond++;
  return beyond / reference.length;
}
