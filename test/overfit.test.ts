/** What any training run is held against first: a small model of each family learns eight examples by heart. */
import {
  adam,
  compile,
  Device,
  elementCount,
  hostTensor,
  mix,
  nn,
  predictStep,
  type Tensor,
  trainStep,
} from '@cohesin/core';
import { hashState } from '@cohesin/distributed';
import {
  akitaParams,
  auroc,
  basenjiParams,
  basset,
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
  readonly model: nn.Layer;
  readonly loss: nn.Loss;
  /** Of one example: rows and tracks. */
  readonly output: readonly number[];
  readonly labels?: boolean;
}

/** A parameter file's model with no dropout: nothing is to be forgotten. */
function fromParams(params: unknown): Learner {
  const text = JSON.stringify(params, (key, value: unknown) => (key === 'dropout' ? 0 : value));
  const { model, train, config } = modelFromParams(JSON.parse(text));
  return { model, loss: lossOf(train), output: config.outputShape };
}

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
  Enformer: () => ({
    model: enformer({
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
      headDropout: 0,
    }).head('human'),
    loss: nn.poissonLoss,
    output: [6, 2],
  }),
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
  Basset: () => ({
    model: basset({
      lengthBp: LENGTH_BP,
      filters: [16, 16],
      sizes: [9, 5],
      pools: [2, 2],
      hidden: [16],
      targets: 3,
      dropout: 0,
    }),
    loss: (logits: Tensor, labels: Tensor) => nn.bceWithLogits(logits, labels, { reduction: 'sum' }),
    output: [3],
    labels: true,
  }),
};

/** Hashed sequences, one-hot [examples, length, 4], and targets that have nothing to do with them. */
function examples({ output, labels = false }: Learner): { x: Float32Array; y: Float32Array } {
  const x = new Float32Array(EXAMPLES * LENGTH_BP * 4);
  for (let base = 0; base < EXAMPLES * LENGTH_BP; base++) x[4 * base + (mix(1, base) & 3)] = 1;
  const y = Float32Array.from({ length: EXAMPLES * elementCount(output) }, (_, i) =>
    labels ? mix(2, i) & 1 : (mix(2, i) % 64) / 16,
  );
  return { x, y };
}

const STEPS = 80;

/** Trains from a fresh start; gives how well the model knows its examples in inference, and a hash of its state. */
async function learn(learner: Learner): Promise<{ score: number; hash: string }> {
  const { model, loss, output, labels } = learner;
  const shapes = { x: [EXAMPLES, LENGTH_BP, 4], y: [EXAMPLES, ...output] };
  const { x, y } = examples(learner);
  const batchNorm = { group: 'step', sequences: EXAMPLES } as const;
  const traced = trainStep({ model, loss, optimizer: adam({ learningRate: 0.01 }), batchNorm });
  const step = await compile(traced, { device, inputs: shapes, seed: 1 });
  const inputs = { x: hostTensor(shapes.x, x), y: hostTensor(shapes.y, y) };
  for (let i = 0; i < STEPS; i++) await step(inputs);
  const { state } = step;
  const predict = await compile(predictStep({ model }), { device, inputs: { x: shapes.x }, state });
  const predicted = (await predict({ x: inputs.x })).prediction!.data as Float32Array;
  const tracks = output.at(-1)!;
  const score = labels ? auroc(predicted, y, { tracks }) : pearson(sequenceSums(predicted, y, { tracks }));
  const hash = hashState(await state.read());
  predict.close();
  step.close();
  return { score: score.mean, hash };
}

test.each(Object.entries(LEARNERS))(
  'a small %s learns eight examples, the same way twice',
  async (_, make) => {
    const learner = make();
    const first = await learn(learner);
    expect(first.score).toBeGreaterThanOrEqual(learner.labels ? 0.99 : 0.95);
    expect(await learn(learner)).toEqual(first);
  },
  300_000,
); // nearly all of it compiles kernels, the first time on a machine
