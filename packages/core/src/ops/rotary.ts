/** Rotary position embedding (Su et al. 2021) in AlphaGenome's form: neighbouring channels are turned as a pair. */
import { type HostTensor, hostTensor } from '../host-tensor.ts';
import { defineOp } from '../op.ts';
import { shapeText, type Tensor } from '../tensor.ts';
import { add, multiply } from './arithmetic.ts';

const swapOp = defineOp()({
  name: 'swapPairs',
  inputs: ['x'],
  axes: 'batch _ -> batch _',
  infer: ({ x }) => {
    if (x.shape.at(-1)! % 2 !== 0)
      throw new Error(`swapPairs: ${shapeText(x.shape)} has an odd last axis; pairs need an even one`);
    return { shape: x.shape, dtype: 'f32' };
  },
  kernel: { kind: 'view', index: (i) => `(${i} ^ 1u)` },
  linear: true,
  gradient: (dy) => ({ x: () => swapPairs(dy) }),
  reference: ({ x }) => x.data.map((_, i) => x.data[i ^ 1]!),
  samples: [{ inputs: { x: [3, 10] }, attrs: undefined }],
});

function swapPairs(x: Tensor): Tensor {
  return swapOp({ x }, undefined);
}

export interface RotaryTables<T = Tensor> {
  /** cos θ for both channels of a pair, `[length, 1, channels]`. */
  readonly cosine: T;
  /** −sin θ for the first channel of a pair, sin θ for the second, `[length, 1, channels]`. */
  readonly sine: T;
}

/**
 * Tables for `rotary`, computed in float64: position p turns pair i by p / (i + g_i), g a geometric series from 1 to
 * maxPosition − channels / 2 + 1 (AlphaGenome, attention.py).
 *
 * @throws when the number of channels is odd.
 */
export function rotaryTables({
  length,
  channels,
  maxPosition = 8192,
}: {
  readonly length: number;
  readonly channels: number;
  readonly maxPosition?: number;
}): RotaryTables<HostTensor> {
  if (channels % 2 !== 0)
    throw new Error(`rotaryTables: ${channels} channels are not pairs; use an even number`);
  const pairs = channels / 2;
  const angle = (i: number): number => {
    const [position, pair] = [Math.floor(i / channels), (i % channels) >> 1];
    const share = pairs === 1 ? 0 : pair / (pairs - 1);
    return position / (pair + (maxPosition - pairs + 1) ** share);
  };
  const table = (value: (i: number) => number): HostTensor =>
    hostTensor(
      [length, 1, channels],
      Float32Array.from({ length: length * channels }, (_, i) => value(i)),
    );
  return {
    cosine: table((i) => Math.cos(angle(i))),
    sine: table((i) => (i % 2 === 0 ? -1 : 1) * Math.sin(angle(i))),
  };
}

/** Turns pairs of channels by angles that grow with the position: x `[batch, length, heads, channels]` → the same. */
export function rotary(x: Tensor, { cosine, sine }: RotaryTables): Tensor {
  return add(multiply(x, cosine), multiply(swapPairs(x), sine));
}
