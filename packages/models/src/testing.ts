/** Published models in small, with every kind of layer of theirs: what tests and measurements of placements train. */
import { akita } from './akita/model.ts';
import type { BuiltModel } from './builder/model.ts';
import { type Enformer, type EnformerOptions, enformer } from './enformer/model.ts';

/** A parameter file of a Basenji2: every kind of block, dropout, augmentation and clipping on; 128 bins of 8 bp, of which 112 are kept. */
export const SMALL_BASENJI = {
  train: {
    batch_size: 8,
    optimizer: 'sgd',
    learning_rate: 0.05,
    momentum: 0.9,
    loss: 'poisson',
    clip_norm: 2,
  },
  model: {
    seq_length: 1024,
    augment_rc: true,
    augment_shift: 3,
    activation: 'gelu',
    norm_type: 'batch',
    bn_momentum: 0.9,
    trunk: [
      { name: 'conv_block', filters: 8, kernel_size: 15, pool_size: 2 },
      { name: 'conv_tower', filters_init: 8, filters_mult: 1.25, kernel_size: 5, pool_size: 2, repeat: 2 },
      { name: 'dilated_residual', filters: 6, rate_mult: 1.5, repeat: 2, dropout: 0.3, round: true },
      { name: 'Cropping1D', cropping: 8 },
      { name: 'conv_block', filters: 12, dropout: 0.05 },
    ],
    head_human: { name: 'final', units: 5, activation: 'softplus' },
  },
} as const;

/**
 * An Akita with dropout, clipping and training as published. A map of 32 bins of 4 bp, of which 24 are kept: the outer two
 * of 8 parts have none.
 */
export function smallAkita(): BuiltModel {
  return akita({
    lengthBp: 128,
    filters: 6,
    towerRepeats: 1,
    residualFilters: 3,
    residualRepeats: 1,
    binFilters: 5,
    mapFilters: 6,
    mapResidualFilters: 3,
    mapResidualRepeats: 2,
    cropBins: 4,
    targets: 3,
  });
}

/** An Enformer. 32 bins of 4 bp, of which 24 are kept: the outer two of 8 parts have none. */
export function smallEnformer(sizes: EnformerOptions = {}): Enformer {
  return enformer({
    lengthBp: 128,
    channels: 12,
    filters: [8, 12],
    transformerBlocks: 2,
    heads: 2,
    keySize: 4,
    positionFeatures: 6,
    targetBins: 24,
    tracks: { human: 3 },
    ...sizes,
  });
}
