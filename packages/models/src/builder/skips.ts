/** Tensors that a U-net block comes back to: made by one block, read by a later one in the same trace. */
import { nn, type Tensor } from '@cohesin/core';
import type { Block, Flow } from './flow.ts';

/** A tensor [batch, length, channels] of the trunk. */
export interface Skip {
  readonly length: number;
  readonly channels: number;
  /** @throws before the block that makes it has run. */
  read(): Tensor;
  write(x: Tensor): void;
}

function skipOf({ length, channels }: Flow): Skip {
  let value: Tensor | undefined;
  return {
    length,
    channels,
    read: () => {
      if (value === undefined) throw new Error('a U-net block runs before the block that it comes back to');
      return value;
    },
    write: (x) => {
      value = x;
    },
  };
}

/** The same block, its output kept for U-net blocks. */
export function kept({ layer, output }: Block, skips: Skip[]): Block {
  const skip = skipOf(output);
  skips.push(skip);
  const keep = nn.layer(layer.parts, (x: Tensor) => {
    const y = layer(x);
    skip.write(y);
    return y;
  });
  return { layer: keep, output };
}
