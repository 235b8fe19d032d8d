/** What any training run is held against first: a small model of each family learns eight examples by heart. */
import {
  adam,
  add,
  compile,
  Device,
  elementCount,
  exp,
  type HostTensor,
  hostTensor,
  mix,
  multiply,
  nn,
  predictStep,
  reshape,
  softmax,
  type Tensor,
  trainStep,
} from '@cohesin/core';
import { hashState } from '@cohesin/distributed';
import {
  akitaParams,
  auroc,
  type BpnetOutputs,
  basenji1,
  basenjiParams,
  basset,
  bpnet,
  chrombpnet,
  enformer,
  lossOf,
  modelFromParams,
  pearson,
  sequenceSums,
} from '@cohesin/models';
import { afterAll, beforeAll, expect, test } from 'vitest';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

const EXAMPLES = 8;
const LENGTH_BP = 32;

interface Learner {
  readonly model: nn.AnyLayer;
  /** x [batch, length, 4] → predictions as the targets are, or logits of labels. */
  readonly predict: (x: Tensor) => Tensor;
  readonly loss: (x: Tensor, y: Tensor) => Tensor;
  /** Of one example: rows and tracks. */
  readonly output: readonly number[];
  readonly lengthBp?: number;
  readonly targets?: 'labels' | 'counts';
  readonly frozen?: readonly string[];
  readonly learningRate?: number;
  readonly steps?: number;
}

type Learning = Omit<Learner, 'model' | 'predict' | 'loss'>;

const learner = (model: nn.Layer, loss: nn.Loss, rest: Learning): Learner => ({
  model,
  predict: model,
  loss: (x, y) => loss(model(x), y),
  ...rest,
});

/** A parameter file's model with no dropout: nothing is to be forgotten. */
function fromParams(params: unknown): Learner {
  const text = JSON.stringify(params, (key, value: unknown) => (key.endsWith('dropout') ? 0 : value));
  const { model, train, config } = modelFromParams(JSON.parse(text));
  return learner(model, lossOf(train), { output: config.outputShape });
}

/** A BPNet's loss, and its predictions as reads at each position of each strand. */
function profiles(forward: (x: Tensor) => BpnetOutputs, rest: Learning): Omit<Learner, 'model'> {
  const [positions, strands] = rest.output as [number, number];
  const predict = (x: Tensor): Tensor => {
    const { logits, logCounts } = forward(x);
    const shares = softmax(reshape(logits, [-1, positions * strands]));
    return reshape(multiply(shares, add(exp(logCounts), -1)), [-1, positions, strands]);
  };
  const loss = (x: Tensor, y: Tensor): Tensor => nn.bpnetLoss(forward(x), y, { countWeight: 1 });
  return { predict, loss, targets: 'counts', ...rest };
}

const KEEP_ALL = { dropout: 0, attention_dropout: 0, position_dropout: 0 };

const LEARNERS: Readonly<Record<string, () => Learner>> = {
  Basenji2: () =>
    fromParams(
      basenjiParams({
        lengthBp: LENGTH_BP,
        stemFilters: 16,
        towerFilters: 16,
        towerRepeats: 1,
        residualFilters: 16,
        residualRepeats: 1,
        cropBins: 1,
        finalFilters: 32,
        targets: 2,
      }),
    ),
  Enformer: () =>
    learner(
      enformer({
        lengthBp: LENGTH_BP,
        channels: 16,
        filters: [16, 16],
        transformerBlocks: 1,
        heads: 2,
        keySize: 8,
        positionFeatures: 12,
        targetBins: 6,
        tracks: { human: 2 },
        dropout: 0,
        attentionDropout: 0,
        positionDropout: 0,
        headDropout: 0,
      }).head('human'),
      nn.poissonLoss,
      { output: [6, 2] },
    ),
  Akita: () =>
    fromParams(
      akitaParams({
        lengthBp: LENGTH_BP,
        filters: 16,
        towerRepeats: 1,
        residualFilters: 16,
        residualRepeats: 1,
        binFilters: 16,
        mapFilters: 16,
        mapResidualFilters: 16,
        mapResidualRepeats: 1,
        cropBins: 1,
        targets: 2,
      }),
    ),
  Basset: () =>
    learner(
      basset({
        lengthBp: LENGTH_BP,
        filters: [16, 16],
        sizes: [9, 5],
        pools: [2, 2],
        hidden: [16],
        targets: 3,
        dropout: 0,
      }),
      (logits: Tensor, labels: Tensor) => nn.bceWithLogits(logits, labels, { reduction: 'sum' }),
      { output: [3], targets: 'labels' },
    ),
  Basenji1: () =>
    learner(
      basenji1({
        lengthBp: LENGTH_BP,
        layers: [
          { filters: 16, size: 9, pool: 2 },
          { filters: 16, size: 5, pool: 2 },
          { filters: 16, size: 3, dilation: 2, dense: true },
          { filters: 32, size: 1 },
        ],
        bufferBp: 4,
        targets: 2,
      }),
      nn.fullPoissonLoss,
      { output: [6, 2] },
    ),
  Borzoi: () => ({
    ...fromParams({
      train: { loss: 'poisson_mn', total_weight: 0.2 },
      model: {
        seq_length: LENGTH_BP,
        activation: 'gelu',
        norm_type: 'batch',
        trunk: [
          {
            name: 'conv_dna',
            filters: 32,
            kernel_size: 9,
            norm_type: null,
            activation: 'linear',
            pool_size: 2,
          },
          {
            name: 'res_tower',
            filters_init: 32,
            filters_mult: 1,
            kernel_size: 5,
            num_convs: 1,
            pool_size: 2,
          },
          {
            name: 'transformer_tower',
            heads: 2,
            key_size: 8,
            num_position_features: 4,
            repeat: 1,
            ...KEEP_ALL,
          },
          { name: 'unet_conv', kernel_size: 3, upsample_conv: true },
          { name: 'Cropping1D', cropping: 1 },
          { name: 'conv_nac', filters: 32 },
        ],
        head_human: { name: 'final', units: 2, activation: 'softplus' },
      },
    }),
    learningRate: 0.003,
    steps: 300,
  }),
  BPNet: () => {
    const model = bpnet({ filters: 16, dilatedLayers: 2, controlTracks: 0, trimming: 37 });
    return {
      model,
      ...profiles((x) => model({ x }), { lengthBp: 90, output: [16, 2], learningRate: 0.003 }),
    };
  },
  ChromBPNet: () => {
    const [accessibility, bias] = [
      { filters: 32, dilatedLayers: 1 },
      { filters: 4, dilatedLayers: 1 },
    ];
    const model = chrombpnet({ accessibility, bias });
    const slower = { learningRate: 0.003, steps: 200 };
    return { model, ...profiles(model, { lengthBp: 114, output: [16, 1], frozen: model.frozen, ...slower }) };
  },
};

/** Hashed sequences, one-hot [examples, length, 4], and targets that have nothing to do with them. */
function examples({ output, targets, lengthBp = LENGTH_BP }: Learner): { x: HostTensor; y: HostTensor } {
  const x = new Float32Array(EXAMPLES * lengthBp * 4);
  for (let base = 0; base < EXAMPLES * lengthBp; base++) x[4 * base + (mix(1, base) & 3)] = 1;
  const target = (word: number): number =>
    targets === 'labels' ? word & 1 : (word % 64) / (targets === 'counts' ? 1 : 16);
  const y = Float32Array.from({ length: EXAMPLES * elementCount(output) }, (_, i) => target(mix(2, i)));
  return { x: hostTensor([EXAMPLES, lengthBp, 4], x), y: hostTensor([EXAMPLES, ...output], y) };
}

/** Trains from a fresh start; gives how well the model knows its examples in inference, and a hash of its state. */
async function learn(own: Learner): Promise<{ score: number; hash: string }> {
  const { model: trained, predict, loss, output, targets, frozen, learningRate = 0.01, steps = 80 } = own;
  const inputs = examples(own);
  const traced = trainStep({
    model: (x: Tensor) => x,
    trained,
    loss,
    optimizer: adam({ learningRate }),
    batchNorm: { group: 'step', sequences: EXAMPLES },
    ...(frozen && { frozen }),
  });
  const step = await compile(traced, {
    device,
    inputs: { x: inputs.x.shape, y: inputs.y.shape },
    seed: 1,
  });
  for (let i = 0; i < steps; i++) await step(inputs);
  const { state } = step;
  const inference = predictStep({ model: predict, trained });
  const compiled = await compile(inference, { device, inputs: { x: inputs.x.shape }, state });
  const predicted = (await compiled({ x: inputs.x })).prediction!.data as Float32Array;
  const y = inputs.y.data as Float32Array;
  const tracks = output.at(-1)!;
  const score =
    targets === 'labels' ? auroc(predicted, y, { tracks }) : pearson(sequenceSums(predicted, y, { tracks }));
  const hash = hashState(await state.read());
  compiled.close();
  step.close();
  return { score: score.mean, hash };
}

test.each(Object.entries(LEARNERS))(
  'a small %s learns eight examples, the same way twice',
  async (_, make) => {
    const own = make();
    const first = await learn(own);
    expect(first.score).toBeGreaterThanOrEqual(own.targets === 'labels' ? 0.99 : 0.95);
    expect(await learn(own)).toEqual(first);
  },
  300_000,
); // nearly all of it compiles kernels, the first time on a machine
