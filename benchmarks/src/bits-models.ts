/** Small models with every kind of layer of the published ones, trained with all that could make bits depend on a placement. */
import {
  adam,
  augmentSequence,
  augmentTargets,
  augmentTriangle,
  buffer,
  clipGlobalNorm,
  elementCount,
  type InputSpec,
  mix,
  nn,
  reshape,
  slice,
  type Tensor,
  type Traceable,
  type TypedArray,
  trainStep,
} from '@cohesin/core';
import { modelFromParams } from '@cohesin/models';
import { SMALL_BASENJI, smallAkita, smallEnformer } from '@cohesin/models/testing';

export interface SmallModel {
  readonly name: string;
  readonly lengthBp: number;
  /** Targets of a sequence, before the crop. */
  readonly targets: readonly number[];
  readonly step: () => Traceable;
  /** Where two stages, and where three, begin. */
  readonly two: readonly [string, string];
  readonly three: readonly [string, string, string];
}

const TRACKS = 3;

/** 64 bins of 4 bp, of which 48 are kept. */
const ENFORMER: SmallModel = {
  name: 'Enformer',
  lengthBp: 256,
  targets: [64, TRACKS],
  step: () => {
    const model = smallEnformer({ lengthBp: 256, targetBins: 48, tracks: { human: TRACKS } }).head('human');
    return stepOf({ model, crop: 8, loss: nn.poissonLoss });
  },
  two: ['trunk.stem', 'trunk.transformer'],
  three: ['trunk.stem', 'trunk.tower', 'trunk.transformer.1'],
};

const AKITA: SmallModel = {
  name: 'Akita',
  lengthBp: 128,
  targets: [(24 * 23) / 2 - 23, TRACKS], // the upper triangle without the main and the first diagonal
  step: () => stepOf({ model: smallAkita().model, crop: 0, loss: nn.mseLoss, isMap: true }),
  two: ['trunk.0', 'head'],
  three: ['trunk.0', 'trunk.2', 'head'],
};

/** 64 bins of 8 bp, of which 48 are kept. */
const BASENJI2: SmallModel = {
  name: 'Basenji2',
  lengthBp: 512,
  targets: [64, TRACKS],
  step: () => {
    const head_human = { ...SMALL_BASENJI.model.head_human, units: TRACKS };
    const { model } = modelFromParams({
      train: SMALL_BASENJI.train,
      model: { ...SMALL_BASENJI.model, seq_length: 512, head_human },
    });
    return stepOf({ model, crop: 8, loss: nn.poissonLoss });
  },
  two: ['trunk.0', 'trunk.2'],
  three: ['trunk.0', 'trunk.1.1', 'trunk.2.1'],
};

export const SMALL_MODELS: readonly SmallModel[] = [ENFORMER, AKITA, BASENJI2];

interface StepParts {
  readonly model: nn.Layer;
  /** Bins of the targets at each end that the model leaves out. */
  readonly crop: number;
  readonly loss: nn.Loss;
  readonly isMap?: boolean;
}

/** Reverse complement and shift on the device, clipping by the norm of all gradients, Adam. */
function stepOf({ model, crop, loss, isMap = false }: StepParts): Traceable {
  const pairs = buffer([TRACKS], { name: 'data/strand_pair', init: () => Float32Array.of(1, 0, 2) });
  const prepare = ({
    codes,
    targets,
    augment,
  }: Readonly<Record<string, Tensor>>): { x: Tensor; y: Tensor } => {
    const turned = isMap ? augmentTriangle(targets!, augment!) : augmentTargets(targets!, augment!, pairs); // [batch, bins, tracks]
    const bins = turned.shape[1]!;
    const y = crop === 0 ? turned : slice(turned, { from: crop, to: bins - crop });
    return { x: augmentSequence(codes!, augment!), y: reshape(y, [-1, bins - 2 * crop, TRACKS]) };
  };
  const optimizer = adam({ learningRate: 5e-3, clip: clipGlobalNorm(0.5) });
  return trainStep({ model, trained: model, loss, optimizer, prepare });
}

export function inputsOf({ lengthBp, targets }: SmallModel, batch: number): Record<string, InputSpec> {
  return {
    codes: { shape: [batch, lengthBp], dtype: 'u8' },
    targets: [batch, ...targets],
    augment: [batch, 2],
  };
}

/** The batch of a step: values that are no short binary fractions, so that every rounding shows. */
export function batchOf(model: SmallModel, batch: number, step: number): Record<string, TypedArray> {
  const draw = (i: number, k: number): number => mix(mix(k, step), i);
  return {
    codes: Uint8Array.from({ length: batch * model.lengthBp }, (_, i) => draw(i, 1) % 4),
    targets: Float32Array.from({ length: batch * elementCount(model.targets) }, (_, i) =>
      Math.abs(Math.sin((draw(i, 2) % 10_007) * 12.9898) * 1.7),
    ),
    augment: Float32Array.from({ length: 2 * batch }, (_, i) =>
      i % 2 === 0 ? draw(i, 3) & 1 : (draw(i, 3) % 7) - 3,
    ),
  };
}
