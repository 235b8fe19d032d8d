/** The library's function behind each op of the fixtures that works on contact maps, or is made of index arithmetic. */
import * as cohesin from '@cohesin/core';
import { nn } from '@cohesin/core';
import { smoothMap } from '@cohesin/io';
import type { Layout } from './fixture.ts';
import {
  biased,
  type GraphCase,
  graph,
  type HostCase,
  type Inputs,
  numberOf,
  type OpCase,
} from './op-case.ts';

const MAPS: Readonly<Record<string, Layout>> = { x: 'channels-last', y: 'channels-last' };

const gaussianSmooth: HostCase = {
  kind: 'host',
  compute: (inputs, attrs) => {
    const { shape, data } = inputs.get('x')!;
    const [height, width] = shape as [number, number];
    const deviation = numberOf(attrs, 'stddev');
    return { astropy_fill0: smoothMap(data as Float32Array, { height, width, deviation }) };
  },
};

const switchReverseTriangle: HostCase = {
  kind: 'host',
  compute: (_, attrs) => ({
    perm: cohesin.reverseTriangle(numberOf(attrs, 'length'), { offset: numberOf(attrs, 'diagonal_offset') }),
  }),
};

/** A layer, whose parameters of these names are inputs of the case. */
function layerCase(
  build: (x: Inputs) => nn.Layer,
  names: Readonly<Record<string, string>>,
  layouts: GraphCase['layouts'],
): GraphCase {
  return {
    kind: 'graph',
    layouts: { ...MAPS, ...layouts },
    trace: (x) => {
      const built = build(x);
      const named = nn.parameters(built);
      const parts = Object.entries(names).map(([part, input]) => [named.get(part)!, input] as const);
      return {
        outputs: { y: built(x.of('x')) },
        targets: Object.fromEntries(parts.map(([parameter, input]) => [input, parameter])),
        starts: parts,
      };
    },
  };
}

/** Options of a convolution from its weight, whose axis `inputs` holds the inputs, and its bias. */
function sizes(x: Inputs, weight: string, inputs: 1 | 2): nn.Conv1dLayerOptions {
  const { shape } = x.of(weight);
  return { size: shape[0]!, inputs: shape[inputs]!, outputs: x.of('b').shape[0]! };
}

export const CONTACT_MAP_OPS: Readonly<Record<string, OpCase>> = {
  conv2d: graph(
    (x, { dilation, padding }) => {
      const options = { dilation, padding } as cohesin.Conv2dOptions;
      return biased(cohesin.conv2d(x.of('x'), x.of('w'), options), x);
    },
    { layouts: { ...MAPS, w: 'weight-2d' } },
  ),
  separable_conv1d: layerCase(
    (x) => nn.separableConv1d(sizes(x, 'dw', 2)),
    { 'depthwise.weight': 'dw', 'pointwise.weight': 'pw', 'pointwise.bias': 'b' },
    { dw: 'reversed', pw: 'reversed' },
  ),
  standardized_conv1d: layerCase(
    (x) => nn.standardizedConv1d(sizes(x, 'w', 1)),
    { weight: 'w', scale: 'scale', bias: 'b' },
    { w: 'reversed' },
  ),
  maxpool2d: graph((x, attrs) => cohesin.maxPool2d(x.of('x'), { size: numberOf(attrs, 'pool') }), {
    layouts: MAPS,
  }),
  crop2d: graph((x, attrs) => cohesin.crop2d(x.of('x'), { crop: numberOf(attrs, 'crop') }), {
    layouts: MAPS,
  }),
  concat: graph((x) => cohesin.concat([x.of('a'), x.of('b')]), {
    layouts: { a: 'channels-last', b: 'channels-last', y: 'channels-last' },
  }),
  concat_dist_2d: graph((x) => cohesin.concatDistance2d(x.of('x')), { layouts: MAPS }),
  one_to_two: graph(
    (x, { operation }) => cohesin.oneToTwo(x.of('x'), { operation: operation as cohesin.PairOperation }),
    { layouts: MAPS },
  ),
  symmetrize_2d: graph((x) => cohesin.symmetrize2d(x.of('x')), { layouts: MAPS }),
  upper_tri: graph(
    (x, attrs) => cohesin.upperTriangular(x.of('x'), { offset: numberOf(attrs, 'diagonal_offset') }),
    { layouts: MAPS },
  ),
  switch_reverse_triu: switchReverseTriangle,
  gaussian2d_smooth: gaussianSmooth,
  upsample1d: graph((x, attrs) => cohesin.upsampleNearest1d(x.of('x'), { scale: numberOf(attrs, 'scale') }), {
    layouts: MAPS,
  }),
};
