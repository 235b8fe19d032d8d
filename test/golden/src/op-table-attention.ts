/** Cases of attention: positional features, the relative shift, rotation by position. */
import * as cohesin from '@cohesin/core';
import { buffer, type HostTensor, nn, type Tensor } from '@cohesin/core';
import { type Attrs, type HostCase, type Inputs, numberOf, type OpCase, type Traced } from './op-case.ts';

const LAYOUTS = { wq: 'reversed', wk: 'reversed', wv: 'reversed', wr: 'reversed', wo: 'reversed' } as const;

/** Parameters of the layer by the names of the file. */
const PARAMETERS: Readonly<Record<string, string>> = {
  wq: 'query.weight',
  wk: 'key.weight',
  wv: 'value.weight',
  wr: 'relative_key.weight',
  wo: 'embedding.weight',
  bo: 'embedding.bias',
  rw: 'r_w_bias',
  rr: 'r_r_bias',
};

export const ATTENTION_OPS: Readonly<Record<string, OpCase>> = {
  enformer_positional_features: features(nn.enformerPositionalFeatures),
  basenji_central_mask_features: features(nn.centralMaskFeatures),
  relative_attention: { kind: 'graph', layouts: LAYOUTS, trace: attention },
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

/** The layer for y and, since it keeps no maps, its own for those; features of distances are the layer's too. */
function attention(x: Inputs, attrs: Attrs): Traced {
  const [, length, inputs] = x.of('x').shape as [number, number, number];
  const layer = nn.multiHeadAttention({
    inputs,
    outputs: x.of('bo').shape[0]!,
    length,
    heads: numberOf(attrs, 'heads'),
    keySize: numberOf(attrs, 'key_size'),
    valueSize: numberOf(attrs, 'value_size'),
    features: numberOf(attrs, 'num_features'),
    positions: numberOf(attrs, 'num_features') % 6 === 0 ? 'enformer' : 'centralMask',
  });
  const named = nn.parameters(layer);
  const { logits, weights } = layer.maps(x.of('x'));
  return {
    outputs: { y: layer(x.of('x')), logits, attention: weights },
    targets: Object.fromEntries(Object.entries(PARAMETERS).map(([file, name]) => [file, named.get(name)!])),
    starts: Object.entries(PARAMETERS).map(([file, name]) => [named.get(name)!, file] as const),
  };
}

function rotated(x: Tensor, attrs: Attrs): Tensor {
  const [, length, , channels] = x.shape as [number, number, number, number];
  const tables = cohesin.rotaryTables({ length, channels, maxPosition: numberOf(attrs, 'max_position') });
  const held = ({ shape, data }: HostTensor, name: string): Tensor =>
    buffer(shape, { name, init: () => data as Float32Array });
  return cohesin.rotary(x, { cosine: held(tables.cosine, 'cosine'), sine: held(tables.sine, 'sine') });
}
