/** Cases of attention: positional features, the relative shift, rotation by position. */
import * as cohesin from '@cohesin/core';
import { buffer, type HostTensor, nn, type Tensor } from '@cohesin/core';
import { type Attrs, type HostCase, numberOf, type OpCase } from './op-case.ts';

export const ATTENTION_OPS: Readonly<Record<string, OpCase>> = {
  enformer_positional_features: features(nn.enformerPositionalFeatures),
  basenji_central_mask_features: features(nn.centralMaskFeatures),
  rel_shift: {
    kind: 'graph',
    exact: true,
    trace: (x) => ({ outputs: { y: cohesin.relativeShift(x.of('x')) } }),
  },
  rope: { kind: 'graph', trace: (x, attrs) => ({ outputs: { y: rotated(x.of('x'), attrs) } }) },
};

function features(make: (options: nn.PositionalOptions) => HostTensor): HostCase {
  return {
    kind: 'host',
    compute: (_, attrs) => {
      const { data } = make({
        length: numberOf(attrs, 'seq_len'),
        features: numberOf(attrs, 'num_features'),
      });
      return { y: data as Float32Array };
    },
  };
}

function rotated(x: Tensor, attrs: Attrs): Tensor {
  const [, length, , channels] = x.shape as [number, number, number, number];
  const tables = cohesin.rotaryTables({ length, channels, maxPosition: numberOf(attrs, 'max_position') });
  const held = ({ shape, data }: HostTensor, name: string): Tensor =>
    buffer(shape, { name, init: () => data as Float32Array });
  return cohesin.rotary(x, { cosine: held(tables.cosine, 'cosine'), sine: held(tables.sine, 'sine') });
}
