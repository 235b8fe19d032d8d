/** Test support: a small network of every kind of layer, and its training step. Not part of the library. */
import type { Compiled, CompileOptions, Traceable } from '../compile/compile.ts';
import { compile } from '../compile/compile.ts';
import * as nn from '../nn/index.ts';
import { add } from '../ops/arithmetic.ts';
import { sgd } from '../optim/index.ts';
import type { Tensor } from '../tensor.ts';
import { trainStep } from '../train-step.ts';
import { randomTensor } from './values.ts';

const [LENGTH, CHANNELS, POOL, TRACKS] = [32, 8, 2, 3];

/** Shapes of its inputs. */
export const SMALL_INPUTS: Readonly<Record<'x' | 'y', readonly number[]>> = {
  x: [2, LENGTH, 4],
  y: [2, LENGTH / POOL, TRACKS],
};

/** Convolution, batch norm, pooling, layer norm, attention (a softmax and products) and a linear head. */
export function smallNetwork(): nn.Layer {
  const attention = nn.multiHeadAttention({
    ...{ inputs: CHANNELS, outputs: CHANNELS, length: LENGTH / POOL, heads: 2, keySize: 4, valueSize: 4 },
    features: 6,
  });
  const branch = nn.sequential({ norm: nn.layerNorm({ channels: CHANNELS }), attention });
  return nn.sequential({
    conv: nn.conv1d({ inputs: 4, outputs: CHANNELS, size: 5, padding: 'same', bias: false }),
    norm: nn.batchNorm({ channels: CHANNELS }),
    gelu: nn.geluSigmoid,
    pool: nn.maxPool({ size: POOL }),
    block: nn.layer({ branch }, (x: Tensor) => add(x, branch(x))),
    drop: nn.dropout({ rate: 0.2 }),
    head: nn.linear({ inputs: CHANNELS, outputs: TRACKS }),
    rate: nn.softplus,
  });
}

/** Plain gradient descent at a rate of 1: what the weights lose is their gradient. */
export function smallStep(): Traceable {
  return trainStep({ model: smallNetwork(), loss: nn.poissonLoss, optimizer: sgd({ learningRate: 1 }) });
}

/** Its step, compiled, with attention switched on: it starts as nothing, which would hide its gradients. */
export async function compileSmallStep(options: Omit<CompileOptions, 'inputs'>): Promise<Compiled> {
  const step = await compile(smallStep(), { inputs: SMALL_INPUTS, seed: 3, ...options });
  const weight = randomTensor([CHANNELS, CHANNELS], { seed: 4 });
  step.state.write(new Map([['block.branch.attention.embedding.weight', weight]]));
  return step;
}

/** A batch for it, another for every seed. */
export function smallBatch(seed: number): Record<'x' | 'y', Float32Array> {
  return {
    x: randomTensor(SMALL_INPUTS.x, { seed }).data as Float32Array,
    y: randomTensor(SMALL_INPUTS.y, { seed: seed + 1, range: [0, 2] }).data as Float32Array,
  };
}

/** Loss and state after one step on the first batch. */
export async function smallStepResult(step: Compiled): Promise<Record<string, Float32Array>> {
  const { loss } = await step(smallBatch(0));
  const results = new Map([['loss', loss!], ...(await step.state.read())]);
  return Object.fromEntries(
    [...results].map(([name, { data }]) => [name, Float32Array.from(data as Float32Array)]),
  );
}
