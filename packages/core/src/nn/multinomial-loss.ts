/** Losses that take a track as a multinomial over its positions: BPNet's and AlphaGenome's. No gradient reaches the target. */
import { add, divide, multiply, negate, subtract } from '../ops/arithmetic.ts';
import { log, log1pRelu, square } from '../ops/elementwise.ts';
import { logGamma } from '../ops/log-gamma.ts';
import { repeat, sum } from '../ops/reduce.ts';
import { reshape } from '../ops/shape.ts';
import { logSoftmax } from '../ops/softmax.ts';
import { shapeText, type Tensor } from '../tensor.ts';
import { checkShapes, mean } from './loss-terms.ts';

export interface MultinomialOptions {
  /** One multinomial for each strand over the positions, or one over strands and positions (bpnet-lite). */
  readonly strands?: 'separate' | 'joint';
}

/**
 * The negative log-likelihood of counts under a multinomial, −log N! + Σ log tᵢ! − Σ tᵢ · log softmax(logits)ᵢ: logits and
 * target `[batch, length, strands]` → the mean over sequences and, if they are separate, strands.
 */
export function multinomialLoss(
  logits: Tensor,
  target: Tensor,
  { strands = 'separate' }: MultinomialOptions = {},
): Tensor {
  checkShapes('multinomialLoss', logits, target);
  const [batch, length, count] = logits.shape as [number, number, number];
  const flat = strands === 'joint';
  const [z, t] = [logits, target].map((x) => (flat ? reshape(x, [-1, length * count]) : x)) as [
    Tensor,
    Tensor,
  ];
  const totals = sum(t, { from: 1, to: 2 }); // [batch] or [batch, strand]
  const ordered = sum(subtract(logGamma(add(t, 1)), multiply(t, logSoftmax(z, { axis: 1 }))));
  const arrangements = sum(logGamma(add(totals, 1)));
  return multiply(subtract(ordered, arrangements), 1 / (flat ? batch : batch * count));
}

/**
 * BPNet's loss as in bpnet-lite: `multinomialLoss` with joint strands plus `countWeight` times the mean of
 * (logCounts − log(1 + Σ t))²: logits and target `[batch, length, strands]`, logCounts `[batch, 1]`.
 */
export function bpnetLoss(
  { logits, logCounts }: { readonly logits: Tensor; readonly logCounts: Tensor },
  target: Tensor,
  { countWeight }: { readonly countWeight: number },
): Tensor {
  const profile = multinomialLoss(logits, target, { strands: 'joint' });
  const total = reshape(sum(target, { from: 1, to: 3 }), [-1, 1]); // [batch, 1]
  checkShapes('bpnetLoss', logCounts, total);
  return add(profile, multiply(mean(square(subtract(logCounts, log1pRelu(total)))), countWeight));
}

const EPSILON = 1e-7; // alphagenome_research losses

/**
 * AlphaGenome's loss of tracks `[batch, length, tracks]` in segments of `resolution` positions: `positionalWeight` times the
 * mean over all elements of −t · log(p / (Σp + 1e-7) + 1e-7), plus the mean over segments of the Poisson loss of their totals
 * less its minimum, over `resolution`.
 *
 * @throws when the segments do not fill the length.
 */
export function alphaGenomeLoss(
  prediction: Tensor,
  target: Tensor,
  { resolution, positionalWeight = 5 }: { readonly resolution: number; readonly positionalWeight?: number },
): Tensor {
  checkShapes('alphaGenomeLoss', prediction, target);
  const [, length, tracks] = prediction.shape as [number, number, number];
  if (length % resolution !== 0) {
    throw new Error(
      `alphaGenomeLoss: segments of ${resolution} do not fill the ${length} positions of ${shapeText(prediction.shape)}; choose a divisor`,
    );
  }
  const segment = { from: 2, to: 3 };
  const [p, t] = [prediction, target].map((x) =>
    reshape(x, [-1, length / resolution, resolution, tracks]),
  ) as [Tensor, Tensor]; // [batch, segment, position, track]
  const predicted = add(sum(p, segment), EPSILON); // [batch, segment, track]
  const observed = sum(t, segment);
  const share = divide(p, repeat(predicted, p, segment));
  const positional = negate(mean(multiply(t, log(add(share, EPSILON)))));
  const poisson = subtract(predicted, multiply(observed, log(predicted)));
  const least = subtract(observed, multiply(observed, log(add(observed, EPSILON))));
  const counts = multiply(mean(subtract(poisson, least)), 1 / resolution);
  return add(multiply(positional, positionalWeight), counts);
}
