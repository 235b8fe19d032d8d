import { adam, clipGlobalNorm, nn, trainStep } from '@cohesin/core';
import { inStages, type ModelPlan } from '../builder/plan.ts';
import { ENFORMER_TRACKS, enformer } from './model.ts';

/** Half of the work and 4 % of the parameters. A stage begins where the one before it ends. */
const HALF = ['trunk.stem', 'trunk.tower.0', 'trunk.tower.1.block'];
const MIDDLE = ['trunk.tower.1', 'trunk.tower.2'];
const REST = ['trunk', 'heads'];

/** Enformer with the human head: Poisson loss, Adam, gradients clipped to a norm of 0.2, as published. */
export function enformerPlan(): ModelPlan {
  const model = enformer().head('human');
  return {
    title: 'Enformer, 196,608 bp, human head',
    step: (batchNorm) => {
      const optimizer = adam({ learningRate: 5e-4, clip: clipGlobalNorm(0.2) });
      return trainStep({ model, loss: nn.poissonLoss, optimizer, batchNorm });
    },
    inputs: (sequences) => ({ x: [sequences, 196_608, 4], y: [sequences, 896, ENFORMER_TRACKS.human] }),
    leaves: [1, 8, 24], // 24: 8,192 bp, 64 bins; the largest tensor of a leaf is 25 MB
    placements: {
      1: inStages([REST, 1]),
      2: inStages([HALF, 1], [REST, 1]),
      3: inStages([['trunk.stem', 'trunk.tower.0.block'], 1], [[...MIDDLE, 'trunk.tower.0'], 1], [REST, 1]),
      4: inStages([HALF, 2], [[...MIDDLE, 'trunk.tower.3', 'trunk.tower.4'], 1], [REST, 1]),
      6: inStages(
        [HALF, 3],
        [['trunk.tower', ...[0, 1, 2].map((i) => `trunk.transformer.${i}`)], 2],
        [REST, 1],
      ),
      8: inStages([HALF, 4], [[...MIDDLE, 'trunk.tower.3', 'trunk.tower.4'], 2], [REST, 2]),
    },
  };
}
