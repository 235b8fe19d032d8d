/** Models at the size and with the losses and optimizers of their papers. */
import {
  adam,
  add,
  type BuildOptions,
  clipGlobalNorm,
  nn,
  type Tensor,
  type Traceable,
  trainStep,
} from '@cohesin/core';
import {
  akita,
  type BuiltModel,
  ENFORMER_TRACKS,
  type EnformerOptions,
  enformer,
  lossOf,
  optimizerOf,
} from '@cohesin/models';

/** A training step at full size, and ways to run it. */
export interface Subject {
  readonly name: string;
  readonly about: string;
  readonly step: Traceable;
  readonly inputs: BuildOptions['inputs'];
  readonly plans: Readonly<Record<string, Partial<BuildOptions>>>;
}

/** Avsec et al. 2021, as published, with the human head; statistics of each sequence alone. */
function enformerAsPublished(): Subject {
  const model = enformer().head('human');
  const optimizer = adam({ learningRate: 5e-4, clip: clipGlobalNorm(0.2) });
  const recompute = ['trunk.stem', 'trunk.tower.*', 'trunk.transformer.*'];
  return {
    name: 'Enformer',
    about: '196,608 bp, Poisson loss on 5,313 tracks, Adam.',
    step: trainStep({ model, loss: nn.poissonLoss, optimizer }),
    inputs: { x: [1, 196_608, 4], y: [1, 896, 5_313] },
    plans: {
      'no options': {},
      'recompute: false': { recompute: false },
      [`recompute: ${recompute.join(', ')}`]: { recompute },
      'memoryBudget: 10 GB': { memoryBudget: 10e9 },
      '8 leaves a sequence': { leavesPerSequence: 8 },
      '8 leaves, recompute': { leavesPerSequence: 8, recompute },
      '24 leaves a sequence': { leavesPerSequence: 24 },
      '24 leaves, recompute': { leavesPerSequence: 24, recompute },
    },
  };
}

/** One step of both heads, as if every window had tracks of both genomes: all 251,221,292 parameters move. */
export function enformerBothHeads(options: EnformerOptions = {}): Omit<Subject, 'about' | 'plans'> {
  const { lengthBp = 196_608, targetBins = 896, tracks = ENFORMER_TRACKS } = options;
  const { human = 0, mouse = 0 } = tracks;
  const model = enformer(options);
  return {
    name: 'Enformer',
    step: trainStep({
      model,
      loss: (rates, counts: Readonly<Record<string, Tensor>>) =>
        add(nn.poissonLoss(rates.human!, counts.human!), nn.poissonLoss(rates.mouse!, counts.mouse!)),
      optimizer: adam({ learningRate: 5e-4, clip: clipGlobalNorm(0.2) }),
      prepare: (inputs) => ({ x: inputs.x!, y: inputs }),
    }),
    inputs: { x: [1, lengthBp, 4], human: [1, targetBins, human], mouse: [1, targetBins, mouse] },
  };
}

/** Fudenberg et al. 2020, as published but for its batch of 2: sequences cut into leaves follow one another. */
function akitaAsPublished(): Subject {
  const { model, train }: BuiltModel = akita();
  const recompute = ['trunk.0', 'trunk.1.*', 'trunk.2.*', 'head.2', 'head.4.*'];
  return {
    name: 'Akita',
    about: '1,048,576 bp, mean squared error of 99,681 pairs of bins for 5 cell types, SGD with momentum.',
    step: trainStep({ model, loss: lossOf(train), optimizer: optimizerOf(train) }),
    inputs: { x: [1, 1_048_576, 4], y: [1, 99_681, 5] },
    plans: {
      'no options': {},
      'recompute: false': { recompute: false },
      [`recompute: ${recompute.join(', ')}`]: { recompute },
      '16 leaves a sequence': { leavesPerSequence: 16 },
      '16 leaves, recompute': { leavesPerSequence: 16, recompute },
    },
  };
}

export const SUBJECTS: readonly Subject[] = [enformerAsPublished(), akitaAsPublished()];
