/** Shapes, sizes and variants of BPNet and ChromBPNet; golden.test.ts holds their numbers against references. */
import {
  adam,
  add,
  build,
  compile,
  conv1d,
  Device,
  initialState,
  multiply,
  nn,
  type Parameter,
  predictStep,
  relu,
  slice,
  sum,
  type Tensor,
  trainStep,
} from '@cohesin/core';
import { randomTensor, relativeError } from '@cohesin/core/testing';
import { expect, test } from 'vitest';
import { chrombpnet } from '../chrombpnet/model.ts';
import { chrombpnetKerasWeights } from '../chrombpnet/weights.ts';
import { type Bpnet, bpnet, unpaddedTrimming } from './model.ts';
import { originalBpnet, originalBpnetLoss } from './original.ts';
import { bpnetKerasWeights } from './weights.ts';

const trainable = (model: nn.AnyLayer): number =>
  [...nn.parameters(model).values()]
    .filter((parameter) => parameter.trainable)
    .reduce((total, { shape }) => total + shape.reduce((a, b) => a * b, 1), 0);

type Shapes = Readonly<Record<string, readonly number[]>>;

/** Output shapes by name, of a model that takes the inputs as they are named. */
function outputShapes(
  model: (inputs: Readonly<Record<string, Tensor>>) => Record<string, Tensor>,
  inputs: Shapes,
): Shapes {
  const { outputs } = build((given) => model(given), { inputs }).program;
  return Object.fromEntries(outputs.map(({ name, shape }) => [name, shape]));
}

test('BPNet has its published number of parameters, and profiles of 1,000 bp of 2,114', () => {
  const model = bpnet();
  expect(trainable(model)).toBe(114_224);
  expect(trainable(bpnet({ form: 'basepair' }))).toBe(114_224);
  expect(unpaddedTrimming(8)).toBe(557);
  const shapes = outputShapes(({ x, control }) => model({ x: x!, control }), {
    x: [3, 2_114, 4],
    control: [3, 2_114, 2],
  });
  expect(shapes).toEqual({ logits: [3, 1_000, 2], logCounts: [3, 1] });
});

test('ChromBPNet has the published number of parameters of both models', () => {
  const model = chrombpnet();
  expect(trainable(model)).toBe(6_377_986 + 217_730);
  expect(trainable(chrombpnet().bias)).toBe(217_730);
  const { program } = build(predictStep({ model }), { inputs: { x: [2, 2_114, 4] } });
  expect(program.outputs.map(({ name, shape }) => [name, shape])).toEqual([
    ['logits', [2, 1_000, 1]],
    ['logCounts', [2, 1]],
  ]);
  const alone = predictStep({ model: (x: Tensor) => model.accessibility({ x }), trained: model });
  const { state } = build(alone, { inputs: { x: [2, 2_114, 4] } }).program;
  expect(state).toHaveLength(2 * (1 + 8 + 2));
  expect(state.every(({ name }) => name.startsWith('accessibility.'))).toBe(true);
});

test('the BPNet of the paper has its published number of parameters, with and without bias tracks', () => {
  const model = originalBpnet({ biasWindows: [] });
  expect(trainable(originalBpnet())).toBe(130_980);
  expect(trainable(model)).toBe(130_960);
  nn.parameters(model);
  const shapes = outputShapes(({ x }) => ({ ...model({ x: x! }).Nanog! }), { x: [2, 1_000, 4] });
  expect(shapes).toEqual({ logits: [2, 1_000, 2], logCounts: [2, 2] });
});

test('what does not fit is refused with both numbers', () => {
  expect(() => bpnet({ trimming: 36 })).toThrow(/trimming is 36 positions, but the heads look 37 further/);
  expect(() => bpnet({ form: 'chrombpnet', trimming: 556 })).toThrow(
    /is 556 positions, but the heads look 557/,
  );
  const inputs = { x: [1, 200, 4] };
  const small = bpnet({ dilatedLayers: 2, filters: 3 });
  expect(() => build(({ x }) => small({ x: x! }), { inputs })).toThrow(
    /control has 0 tracks but controlTracks is 2/,
  );
  const paper = originalBpnet({ tasks: ['A'], filters: 3, dilatedLayers: 1 });
  expect(() => build(({ x }) => ({ ...paper({ x: x! }).A }), { inputs })).toThrow(
    /^in heads\.A: bias tracks are missing/,
  );
  expect(() =>
    build(
      ({ x }) => ({
        y: originalBpnetLoss({ A: { logits: x!, logCounts: x! } }, { B: { profile: x!, logCounts: x! } }),
      }),
      { inputs },
    ),
  ).toThrow(/no target for A; there are B/);
});

test("ChromBPNet's models are those without padding, counts of all positions that are left", async () => {
  await using device = await Device.open();
  const model = bpnet({ form: 'chrombpnet', filters: 5, dilatedLayers: 1, strands: 1, trimming: 55 });
  const x = randomTensor([2, 150, 4], { seed: 5 });
  const step = (inputs: Readonly<Record<string, Tensor>>): Record<string, Tensor> => {
    const [padded, plain] = [model({ x: inputs.x! }), withoutPadding(model, inputs.x!, 40)];
    return { logits: padded.logits, logCounts: padded.logCounts, ...plain };
  };
  nn.parameters(model);
  const compiled = await compile(step, { device, inputs: { x: x.shape } });
  const { logits, logCounts, plainLogits, plainLogCounts } = await compiled({ x });
  expect(logits!.shape).toEqual([2, 40, 1]);
  const values = (tensor: typeof logits): number[] => Array.from(tensor!.data, Number);
  expect(relativeError(values(logits), values(plainLogits))).toBeLessThan(1e-6); // the same sums of f32, in another order
  expect(relativeError(values(logCounts), values(plainLogCounts))).toBeLessThan(1e-6);
  compiled.close();
});

/** The package's own way: convolutions without padding, x cropped to their output, the profile cropped last. */
function withoutPadding(
  model: Bpnet,
  x: Tensor,
  length: number,
): Record<'plainLogits' | 'plainLogCounts', Tensor> {
  const conv = (y: Tensor, part: string, dilation = 1): Tensor => {
    const { weight, bias } = layerAt(model, part).parts as Record<string, Parameter>;
    return add(conv1d(y, weight!, { padding: 'valid', dilation }), bias!);
  };
  const cropped = (y: Tensor, rows: number): Tensor => {
    const from = (y.shape[1]! - rows) / 2;
    return slice(y, { from, to: from + rows });
  };
  const first = relu(conv(x, 'first'));
  const more = relu(conv(first, 'dilated.0', 2));
  const rows = more.shape[1]!; // 150 − 20 − 4
  expect(rows).toBe(126);
  const features = add(cropped(first, rows), more);
  const average = multiply(sum(features, { from: 1, to: 2 }), 1 / rows);
  const counts = layerAt(model, 'counts') as nn.Layer;
  return { plainLogits: cropped(conv(features, 'profile'), length), plainLogCounts: counts(average) };
}

function layerAt(model: nn.AnyLayer, path: string): nn.AnyLayer {
  const [part, index] = path.split('.') as [string, string?];
  const found = model.parts[part] as nn.AnyLayer | readonly nn.AnyLayer[];
  return index === undefined ? (found as nn.AnyLayer) : (found as readonly nn.AnyLayer[])[Number(index)]!;
}

test('the bias model of ChromBPNet is no part of training once frozen', () => {
  const size = { filters: 4, dilatedLayers: 1 };
  const model = chrombpnet({ accessibility: size, bias: size });
  const step = trainStep({
    model,
    frozen: model.frozen,
    loss: (prediction, target: Tensor) => nn.bpnetLoss(prediction, target, { countWeight: 5 }),
    optimizer: adam({ learningRate: 1e-3 }),
  });
  const { program } = build(step, { inputs: { x: [2, 120, 4], y: [2, 22, 1] } });
  const moved = program.state.map(({ name }) => name).filter((name) => name.startsWith('optimizer/adam.m/'));
  expect(moved).toHaveLength(8);
  expect(moved.every((name) => name.includes('/accessibility.'))).toBe(true);
});

test('weights in files of the ChromBPNet package are found, in both models together and in each alone', () => {
  const size = { filters: 4, dilatedLayers: 1 };
  const both = chrombpnet({ accessibility: size, bias: size });
  const weights = initialState(nn.parameters(both), 1);
  const file = chrombpnetKerasWeights(both).fromCohesin(weights);
  expect([...file.keys()]).toContain('model_weights/model_wo_bias/wo_bias_bpnet_1conv/kernel:0');
  expect([...file.keys()]).toContain('model_weights/model/prof_out_precrop/bias:0');
  const renamed = [...file].map(([name, tensor]) => [name.replace('/model/', '/model_7/'), tensor] as const);
  expect(chrombpnetKerasWeights(both).toCohesin(new Map(renamed))).toEqual(weights);

  const alone = bpnet({ form: 'chrombpnet', strands: 1, ...size });
  const own = initialState(nn.parameters(alone), 2);
  const map = bpnetKerasWeights(alone);
  const published = map.fromCohesin(own);
  expect([...published.keys()]).toContain('model_weights/bpnet_1st_conv/bpnet_1st_conv/kernel:0');
  expect(map.toCohesin(published)).toEqual(own);
  const noBias = [...published].map(([name, tensor]) => {
    const [layer, leaf] = name.split('/').slice(-2) as [string, string];
    const long = layer.startsWith('bpnet_') ? `wo_bias_${layer}` : `wo_bias_bpnet_${layer}`;
    return [`model_weights/${long}/${long}/${leaf}`, tensor] as const;
  });
  expect(map.toCohesin(new Map(noBias))).toEqual(own);
});
