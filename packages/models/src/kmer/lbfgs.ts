/** Minimum of a smooth convex function: L-BFGS (Liu & Nocedal 1989, Math. Program. 45:503) with a backtracking line search. */

/** The value at x; writes the gradient. */
export type Objective = (x: Float64Array, gradient: Float64Array) => number;

export interface LbfgsOptions {
  /** The largest element of the gradient at the end. */
  readonly tolerance: number;
  readonly iterations: number;
}

export interface Minimum {
  readonly x: Float64Array;
  /** Whether the tolerance was met; otherwise the iterations were used up, or rounding left no lower value. */
  readonly converged: boolean;
}

const HISTORY = 10;
const ARMIJO = 1e-4; // the share of the promised decrease that a step must give
const HALVINGS = 40;

/** Where the function is lowest, beginning at `start`. */
export function lbfgs(f: Objective, start: Float64Array, { tolerance, iterations }: LbfgsOptions): Minimum {
  let x: Float64Array = start.slice();
  let gradient: Float64Array = new Float64Array(x.length);
  let value = f(x, gradient);
  const history: Pair[] = [];
  for (let i = 0; i < iterations; i++) {
    if (largest(gradient) <= tolerance) return { x, converged: true };
    const direction = descent(gradient, history);
    const slope = dot(direction, gradient);
    const nextGradient = new Float64Array(x.length);
    let step = history.length === 0 ? 1 / Math.max(1, Math.sqrt(dot(gradient, gradient))) : 1;
    let next = moved(x, direction, step);
    let nextValue = f(next, nextGradient);
    for (let h = 0; h < HALVINGS && !(nextValue <= value + ARMIJO * step * slope); h++) {
      step /= 2;
      next = moved(x, direction, step);
      nextValue = f(next, nextGradient);
    }
    if (!(nextValue < value)) break;
    remember(history, difference(next, x), difference(nextGradient, gradient));
    [x, gradient, value] = [next, nextGradient, nextValue];
  }
  return { x, converged: largest(gradient) <= tolerance };
}

/** A step and what it changed in the gradient. */
interface Pair {
  readonly step: Float64Array;
  readonly change: Float64Array;
  /** 1 / (change · step). */
  readonly rho: number;
}

/** Without curvature, by rounding, a pair says nothing. */
function remember(history: Pair[], step: Float64Array, change: Float64Array): void {
  const curvature = dot(step, change);
  if (!(curvature > 1e-14 * dot(change, change))) return;
  history.push({ step, change, rho: 1 / curvature });
  if (history.length > HISTORY) history.shift();
}

/** −H·gradient, H the inverse Hessian that the pairs speak of: the two loops of the paper. */
function descent(gradient: Float64Array, history: readonly Pair[]): Float64Array {
  const q = gradient.slice();
  const shares = history.toReversed().map(({ step, change, rho }) => {
    const share = rho * dot(step, q);
    addScaled(q, -share, change);
    return share;
  });
  const last = history.at(-1);
  const scale = last === undefined ? 1 : 1 / (last.rho * dot(last.change, last.change));
  for (let i = 0; i < q.length; i++) q[i]! *= scale;
  for (const [h, { step, change, rho }] of history.entries())
    addScaled(q, shares[history.length - 1 - h]! - rho * dot(change, q), step);
  return q.map((element) => -element);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function addScaled(into: Float64Array, factor: number, x: Float64Array): void {
  for (let i = 0; i < into.length; i++) into[i]! += factor * x[i]!;
}

const moved = (x: Float64Array, direction: Float64Array, step: number): Float64Array =>
  x.map((element, i) => element + step * direction[i]!);

const difference = (a: Float64Array, b: Float64Array): Float64Array => a.map((element, i) => element - b[i]!);

const largest = (values: Float64Array): number =>
  values.reduce((most, element) => Math.max(most, Math.abs(element)), 0);
