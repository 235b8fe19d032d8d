/**
 * Losses: (prediction, target) → scalar `[]`. Each is a sum of one term per element times a constant, so that what the
 * leaves of a batch contribute adds up to the loss of the whole batch. No gradient reaches the target.
 */
import { add, divide, multiply, negate, subtract } from '../ops/arithmetic.ts';
import { log, softplus, square } from '../ops/elementwise.ts';
import { type PositionWeights, positionWeights, weightPositions } from '../ops/position-weight.ts';
import { repeat, sum } from '../ops/reduce.ts';
import { greater, maximum, where } from '../ops/select.ts';
import type { Tensor } from '../tensor.ts';
import { checkShapes, mean, meanOverTracks } from './loss-terms.ts';

const KERAS_EPSILON = 1e-7; // keras.backend.epsilon()

/** A function of (prediction, target) of equal shapes that gives a scalar `[]`. */
export type Loss = (prediction: Tensor, target: Tensor) => Tensor;

/** The mean over all elements of p − t · log(p + 1e-7), as in Keras, Basenji2 and Enformer. */
export function poissonLoss(prediction: Tensor, target: Tensor): Tensor {
  checkShapes('poissonLoss', prediction, target);
  return mean(poissonTerms(prediction, target));
}

/**
 * The mean over all elements of the full negative log-likelihood of TensorFlow 1's `log_poisson_loss`, as in Basenji1:
 * p − t · log p, and where t > 1 Stirling's t · log t − t + ½ log(2πt).
 */
export function fullPoissonLoss(prediction: Tensor, target: Tensor): Tensor {
  checkShapes('fullPoissonLoss', prediction, target);
  const above = maximum(target, 1);
  const entropy = subtract(multiply(above, log(above)), above);
  const stirling = add(entropy, multiply(log(multiply(above, 2 * Math.PI)), 0.5));
  const terms = subtract(prediction, multiply(target, log(prediction)));
  return mean(add(terms, where(greater(target, 1), stirling, 0)));
}

/** The mean over all elements of p − t · log(max(p, 1e-20)), as in enformer-pytorch; no gradient where p is below. */
export function clampedPoissonLoss(prediction: Tensor, target: Tensor): Tensor {
  checkShapes('clampedPoissonLoss', prediction, target);
  return mean(subtract(prediction, multiply(target, log(maximum(prediction, 1e-20)))));
}

/** The mean over all elements of (p − t)². */
export function mseLoss(prediction: Tensor, target: Tensor): Tensor {
  checkShapes('mseLoss', prediction, target);
  return mean(square(subtract(prediction, target)));
}

/**
 * As `mseLoss`, minus `udotWeight` times the mean product of p and t, each less its mean over the tracks: baskerville's
 * `mse_udot`, which rewards differences between tracks. `[…, tracks]`.
 */
export function mseUdotLoss(
  prediction: Tensor,
  target: Tensor,
  { udotWeight = 1 }: { readonly udotWeight?: number } = {},
): Tensor {
  const [p, t] = [prediction, target].map((x) => subtract(x, meanOverTracks(x))) as [Tensor, Tensor];
  return subtract(mseLoss(prediction, target), multiply(mean(multiply(p, t)), udotWeight));
}

/** Binary cross-entropy of logits, softplus(z) − z · t; `sum` over batch and targets is what Basset minimises. */
export function bceWithLogits(
  logits: Tensor,
  target: Tensor,
  { reduction = 'mean' }: { readonly reduction?: 'mean' | 'sum' } = {},
): Tensor {
  checkShapes('bceWithLogits', logits, target);
  const terms = subtract(softplus(logits), multiply(logits, target));
  return reduction === 'mean' ? mean(terms) : sum(terms);
}

/**
 * Mean binary cross-entropy of probabilities as Keras computes it, probabilities clipped to [1e-7, 1 − 1e-7] and 1e-7
 * added inside the logarithms. Here 1 − p is clipped, which f32 can represent.
 */
export function bceProbabilities(prediction: Tensor, target: Tensor): Tensor {
  checkShapes('bceProbabilities', prediction, target);
  const p = maximum(prediction, KERAS_EPSILON);
  const q = maximum(subtract(1, p), KERAS_EPSILON);
  const yes = multiply(target, log(add(p, KERAS_EPSILON)));
  const no = multiply(subtract(1, target), log(add(q, KERAS_EPSILON)));
  return negate(mean(add(yes, no)));
}

export interface PoissonMultinomialOptions {
  /** Weight of the Poisson term of the totals. */
  readonly totalWeight?: number;
  /**
   * `basenji` adds 1e-6 to predictions and targets before anything else and averages the Poisson term over tracks;
   * `baskerville` (Borzoi) adds 1e-7 inside the multinomial only and keeps the term of each track. Their values agree
   * but for the epsilons; their gradients do too.
   */
  readonly form?: 'basenji' | 'baskerville';
  /** Weights of positions, as of `weightPositions`: predictions and targets are multiplied by them. Of `baskerville`. */
  readonly weights?: PositionWeights;
}

/**
 * The shape of a track as a multinomial and its total as a Poisson: `[batch, length, tracks]`. The mean over sequences
 * and tracks of [−Σ t · log(p / Σp) + totalWeight · (S_p − S_t · log S_p)] / length, or over the sum of the positions' weights.
 */
export function poissonMultinomialLoss(
  prediction: Tensor,
  target: Tensor,
  { totalWeight = 1, form = 'baskerville', weights }: PoissonMultinomialOptions = {},
): Tensor {
  checkShapes('poissonMultinomialLoss', prediction, target);
  const [batch, length, tracks] = prediction.shape as [number, number, number];
  const epsilon = form === 'basenji' ? 1e-6 : 1e-7;
  const weighted = (x: Tensor): Tensor => (weights === undefined ? x : weightPositions(x, weights));
  const [predictions, targets] = [weighted(prediction), weighted(target)];
  const [p, t] = [add(predictions, epsilon), add(targets, epsilon)];
  const [totalsFrom, totalsTo] = form === 'basenji' ? [p, t] : [predictions, targets];
  const predicted = sum(totalsFrom, { from: 1, to: 2 }); // [batch, track]
  const observed = sum(totalsTo, { from: 1, to: 2 }); // [batch, track]
  const share = divide(p, repeat(predicted, p, { from: 1, to: 2 })); // [batch, position, track]
  const multinomial = negate(sum(multiply(t, log(share))));
  // Averaging over tracks and then adding to every track, as basenji does, leaves the sum over tracks unchanged.
  const poisson = sum(poissonTerms(predicted, observed));
  const positions =
    weights === undefined ? length : positionWeights(length, weights).reduce((sum, weight) => sum + weight);
  return multiply(add(multinomial, multiply(poisson, totalWeight)), 1 / (batch * tracks * positions));
}

/** p − t · log(p + 1e-7), element by element. */
function poissonTerms(p: Tensor, t: Tensor): Tensor {
  return subtract(p, multiply(t, log(add(p, KERAS_EPSILON))));
}
