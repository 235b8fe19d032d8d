/** Basenji2 (Kelley 2020, "Cross-species regulatory sequence activity prediction"). */
import { type BuiltModel, modelFromParams } from '../builder/model.ts';

export interface BasenjiOptions {
  readonly lengthBp?: number;
  readonly stemFilters?: number;
  /** Filters of the first convolution of the tower; each next one has 1.1776 times as many. */
  readonly towerFilters?: number;
  /** Convolutions in the tower, each halving the length. */
  readonly towerRepeats?: number;
  readonly residualFilters?: number;
  readonly residualRepeats?: number;
  /** Bins left out at each end. */
  readonly cropBins?: number;
  readonly finalFilters?: number;
  /** Tracks: 5,313 of human or 1,643 of mouse. */
  readonly targets?: number;
}

/** Human tracks: 3,991 ChIP, 638 CAGE, 674 DNase, 10 ATAC. */
export const HUMAN_TRACKS = 5_313;
/** Mouse tracks: 1,058 ChIP, 357 CAGE, 101 DNase, 127 ATAC. */
export const MOUSE_TRACKS = 1_643;

/**
 * Basenji2 as published unless an option says otherwise: x one-hot [batch, 131,072, 4] → [batch, 896, 5,313] bins of
 * 128 bp, 30,088,228 parameters (24,447,438 with the mouse head). GELU in its sigmoid form.
 * Augmentation is that of the paper; the published parameter file does not state it.
 */
export function basenji2(options: BasenjiOptions = {}): BuiltModel {
  return modelFromParams(basenjiParams(options));
}

/** The same as a parameter file's content, to be written out or changed. */
export function basenjiParams({
  lengthBp = 131_072,
  stemFilters = 288,
  towerFilters = 339,
  towerRepeats = 6,
  residualFilters = 384,
  residualRepeats = 11,
  cropBins = 64,
  finalFilters = 1_536,
  targets = HUMAN_TRACKS,
}: BasenjiOptions = {}): Readonly<Record<'train' | 'model', unknown>> {
  const stem = { name: 'conv_block', filters: stemFilters, kernel_size: 15, pool_size: 2 };
  const tower = { name: 'conv_tower', filters_init: towerFilters, filters_mult: 1.1776, kernel_size: 5 };
  const residual = { name: 'dilated_residual', filters: residualFilters, rate_mult: 1.5, round: true };
  return {
    train: {
      loss: 'poisson',
      optimizer: 'sgd',
      learning_rate: 0.15,
      momentum: 0.99,
      clip_norm: 2,
      batch_size: 4,
      patience: 16,
    },
    model: {
      seq_length: lengthBp,
      augment_rc: true,
      augment_shift: 3,
      activation: 'gelu',
      gelu: 'gelu_sigmoid',
      norm_type: 'batch',
      bn_momentum: 0.9,
      trunk: [
        stem,
        { ...tower, pool_size: 2, repeat: towerRepeats },
        { ...residual, dropout: 0.3, repeat: residualRepeats },
        { name: 'Cropping1D', cropping: cropBins },
        { name: 'conv_block', filters: finalFilters, dropout: 0.05 },
      ],
      head: { name: 'final', units: targets, activation: 'softplus' },
    },
  };
}
