/** What a training step of Enformer needs at full size: plans only, no device is opened. */
import {
  adam,
  add,
  type BuildOptions,
  build,
  clipGlobalNorm,
  geluSigmoid,
  memoryReport,
  nn,
  programBytes,
  relu,
  slice,
  type Tensor,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import { environment, publish, table } from './report.ts';

const {
  attentionPool,
  batchNorm,
  conv1d,
  dropout,
  layer,
  layerNorm,
  linear,
  multiHeadAttention,
  sequential,
} = nn;

const LENGTH_BP = 196_608;
const BINS = 1536; // of 128 bp
const CROP = 320;
const TARGETS = 5313;
const CHANNELS = 1536;
const STEM = CHANNELS / 2;
const TOWER = [768, 896, 1024, 1152, 1280, 1536] as const;
const BLOCKS = 11;

const PLANS: Readonly<Record<string, Partial<BuildOptions>>> = {
  'nothing computed again': {},
  "recompute: ['stem', 'tower.*', 'transformer.*']": { recompute: ['stem', 'tower.*', 'transformer.*'] },
  'memoryBudget: 10 GB': { memoryBudget: 10e9 },
  'one of 8 leaves a sequence': { leavesPerSequence: 8, leavesOnDevice: 1 },
  'one of 8 leaves, recompute': {
    ...{ leavesPerSequence: 8, leavesOnDevice: 1, recompute: ['stem', 'tower.*', 'transformer.*'] },
  },
};

/** Builds each plan and prints its memory in full. */
export function memory(): void {
  const step = enformerStep();
  const inputs = { x: [1, LENGTH_BP, 4], y: [1, BINS - 2 * CROP, TARGETS] };
  const rows = Object.entries(PLANS).map(([name, placement]) => {
    const { program } = build(step, { inputs, ...placement });
    const leaves = placement.leavesOnDevice;
    console.log(`${name}\n${memoryReport(program, leaves)}\n`);
    const { device, leaf, again } = program.activations!;
    const peak = Object.values(programBytes(program, leaves)).reduce((a, b) => a + b, 0);
    return { name, peak, kept: device + leaf * (leaves ?? 1), again };
  });
  const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(2);
  const text = `Enformer, ${LENGTH_BP} bp, one sequence a step, Adam, Poisson loss on ${TARGETS} tracks, f32. "Kept" are activations that
the backward pass reads; the peak is everything on the device.

${table(
  ['plan', 'peak GB', 'kept GB', 'tensors computed again'],
  rows.map(({ name, peak, kept, again }) => [name, gigabytes(peak), gigabytes(kept), `${again}`]),
)}`;
  const where = environment({ device: 'none', description: 'plans are made without a device' });
  publish({ name: 'memory', title: 'Memory of Enformer at full size', environment: where, text, data: rows });
}

/** Avsec et al. 2021, as published, with the human head; statistics of each sequence alone. */
function enformerStep(): Traceable {
  const model = sequential({
    stem: sequential({
      conv: conv1d({ inputs: 4, outputs: STEM, size: 15 }),
      residual: residual(convBlock(STEM, STEM, 1)),
      pool: attentionPool({ channels: STEM, pool: 2 }),
    }),
    tower: sequential(TOWER.map((outputs, i) => towerBlock(TOWER[i - 1] ?? STEM, outputs))),
    transformer: sequential(Array.from({ length: BLOCKS }, transformerBlock)),
    crop: (x) => slice(x, { from: CROP, to: BINS - CROP }),
    final: sequential({
      conv: convBlock(CHANNELS, 2 * CHANNELS, 1),
      dropout: dropout({ rate: 0.05 }),
      gelu: geluSigmoid,
    }),
    head: linear({ inputs: 2 * CHANNELS, outputs: TARGETS }),
    rate: nn.softplus,
  });
  const optimizer = adam({ learningRate: 5e-4, clip: clipGlobalNorm(0.2) });
  return trainStep({ model, loss: nn.poissonLoss, optimizer });
}

const residual = (branch: nn.Layer): nn.Layer => layer({ branch }, (x: Tensor) => add(x, branch(x)));

function convBlock(inputs: number, outputs: number, size: number): nn.Layer {
  return sequential({
    norm: batchNorm({ channels: inputs, epsilon: 1e-5 }),
    gelu: geluSigmoid,
    conv: conv1d({ inputs, outputs, size }),
  });
}

/** x [batch, length, inputs] → [batch, length / 2, outputs]. */
function towerBlock(inputs: number, outputs: number): nn.Layer {
  return sequential({
    conv: convBlock(inputs, outputs, 5),
    residual: residual(convBlock(outputs, outputs, 1)),
    pool: attentionPool({ channels: outputs, pool: 2 }),
  });
}

/** x [batch, bins, channels] → the same shape. */
function transformerBlock(): nn.Layer {
  const attention = multiHeadAttention({
    ...{ inputs: CHANNELS, outputs: CHANNELS, length: BINS, heads: 8, keySize: 64, valueSize: 192 },
    ...{ features: 192, dropout: 0.05 },
  });
  const feedForward = sequential({
    norm: layerNorm({ channels: CHANNELS }),
    up: linear({ inputs: CHANNELS, outputs: 2 * CHANNELS }),
    dropout1: dropout({ rate: 0.4 }),
    relu,
    down: linear({ inputs: 2 * CHANNELS, outputs: CHANNELS }),
    dropout2: dropout({ rate: 0.4 }),
  });
  return sequential({
    attention: residual(
      sequential({ norm: layerNorm({ channels: CHANNELS }), attention, dropout: dropout({ rate: 0.4 }) }),
    ),
    feedForward: residual(feedForward),
  });
}
