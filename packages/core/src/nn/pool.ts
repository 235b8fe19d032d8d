import { type MaxPoolOptions, maxPool1d } from '../ops/pool.ts';
import * as ops from '../ops/random.ts';
import type { Tensor } from '../tensor.ts';
import { type Layer, layer } from './layer.ts';

/** Max-pooling as a stage: `[batch, length, channels]` → `[batch, windows, channels]`. */
export function maxPool(options: MaxPoolOptions): Layer {
  return layer({}, (x: Tensor) => maxPool1d(x, options));
}

/** Dropout as a stage with a place of its own among the layers, so that no two drop the same elements. */
export function dropout({ rate }: { readonly rate: number }): Layer {
  return layer({}, (x: Tensor) => ops.dropout(x, { rate }));
}
