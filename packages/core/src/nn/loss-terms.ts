/** What losses are made of. */
import { elementCount } from '../host-tensor.ts';
import { multiply } from '../ops/arithmetic.ts';
import { repeat, sum } from '../ops/reduce.ts';
import { sameShape, shapeText, type Tensor } from '../tensor.ts';

/** The mean over all elements: a sum times a constant. */
export function mean(terms: Tensor): Tensor {
  return multiply(sum(terms), 1 / elementCount(terms.shape));
}

/** The mean over the last axis, repeated along it: the shape of x. */
export function meanOverTracks(x: Tensor): Tensor {
  const tracks = { from: x.shape.length - 1, to: x.shape.length };
  return multiply(repeat(sum(x, tracks), x, tracks), 1 / x.shape.at(-1)!);
}

/** @throws when the shapes differ, with both. */
export function checkShapes(name: string, prediction: Tensor, target: Tensor): void {
  if (sameShape(prediction.shape, target.shape)) return;
  throw new Error(
    `${name}: the prediction is ${shapeText(prediction.shape)} but the target is ${shapeText(target.shape)}; they must be equal`,
  );
}
