/**
 * How coverage becomes training targets: pooled to bins, then compressed. Pipelines take the steps in different orders,
 * so a transform is a list of steps, and its inverse the list backwards.
 */

/** One step from pooled coverage to targets, element by element. All but `clip` can be undone. */
export type TargetStep =
  /** √(1 + x) − 1: basenji's `sum_sqrt`, after a sum. */
  | { readonly kind: 'sqrt' }
  /** x^exponent: 3/4 in older Borzoi data and for RNA. */
  | { readonly kind: 'power'; readonly exponent: number }
  | { readonly kind: 'scale'; readonly factor: number }
  /**
   * Above `at` = c the square root takes over: `shifted` c − 1 + √(x − c + 1) (basenji), `plain` c + √(x − c) (older
   * baskerville), `smooth` 2√(c · x) − c (AlphaGenome), whose slope has no jump.
   */
  | { readonly kind: 'clipSoft'; readonly at: number; readonly form: 'shifted' | 'plain' | 'smooth' }
  /** min(x, at). */
  | { readonly kind: 'clip'; readonly at: number };

/**
 * Coverage of every position pooled to bins of `width` positions: `[positions]` → `[positions / width]`.
 *
 * @throws when the bins do not fill the positions.
 */
export function poolCoverage(
  coverage: ArrayLike<number>,
  { width, statistic }: { readonly width: number; readonly statistic: 'sum' | 'mean' | 'max' },
): Float64Array {
  const bins = coverage.length / width;
  if (!Number.isInteger(bins)) {
    throw new Error(
      `poolCoverage: bins of ${width} do not fill ${coverage.length} positions; take a multiple of ${width}`,
    );
  }
  const pooled = new Float64Array(bins).fill(statistic === 'max' ? Number.NEGATIVE_INFINITY : 0);
  for (let i = 0; i < coverage.length; i++) {
    const bin = Math.floor(i / width);
    pooled[bin] = statistic === 'max' ? Math.max(pooled[bin]!, coverage[i]!) : pooled[bin]! + coverage[i]!;
  }
  return statistic === 'mean' ? pooled.map((total) => total / width) : pooled;
}

/** Targets from pooled coverage. */
export function transformTargets(pooled: ArrayLike<number>, steps: readonly TargetStep[]): Float64Array {
  return Float64Array.from(pooled, (value) => steps.reduce((x, step) => forward(x, step), value));
}

/** Coverage from predicted targets: the steps undone from the last to the first. What was clipped hard stays so. */
export function untransformTargets(targets: ArrayLike<number>, steps: readonly TargetStep[]): Float64Array {
  return Float64Array.from(targets, (value) => steps.reduceRight((y, step) => backward(y, step), value));
}

function forward(x: number, step: TargetStep): number {
  switch (step.kind) {
    case 'sqrt':
      return Math.sqrt(1 + x) - 1;
    case 'power':
      return x ** step.exponent;
    case 'scale':
      return x * step.factor;
    case 'clip':
      return Math.min(x, step.at);
    case 'clipSoft': {
      const { at, form } = step;
      if (!(x > at)) return x;
      if (form === 'smooth') return 2 * Math.sqrt(at * x) - at;
      return form === 'plain' ? at + Math.sqrt(x - at) : at - 1 + Math.sqrt(x - at + 1);
    }
  }
}

function backward(y: number, step: TargetStep): number {
  switch (step.kind) {
    case 'sqrt':
      return (y + 1) ** 2 - 1;
    case 'power':
      return y ** (1 / step.exponent);
    case 'scale':
      return y / step.factor;
    case 'clip':
      return y;
    case 'clipSoft': {
      const { at, form } = step;
      if (!(y > at)) return y;
      if (form === 'smooth') return (y + at) ** 2 / (4 * at);
      return form === 'plain' ? at + (y - at) ** 2 : at - 1 + (y - at + 1) ** 2;
    }
  }
}
