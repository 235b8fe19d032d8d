/** Akita (Fudenberg, Kelley & Pollard 2020, "Predicting 3D genome folding from DNA sequence with Akita"). */
import { type BuiltModel, modelFromParams } from '../builder/model.ts';

export interface AkitaOptions {
  readonly lengthBp?: number;
  /** Filters of the first convolution and of the tower. */
  readonly filters?: number;
  /** Convolutions in the tower, each halving the length; bins are 2^(towerRepeats + 1) bp. */
  readonly towerRepeats?: number;
  /** Filters inside the dilated blocks of the trunk. */
  readonly residualFilters?: number;
  readonly residualRepeats?: number;
  /** Channels of a bin before bins are paired. */
  readonly binFilters?: number;
  readonly mapFilters?: number;
  /** Filters inside the dilated blocks of the map. */
  readonly mapResidualFilters?: number;
  readonly mapResidualRepeats?: number;
  /** Bins left out at each end. */
  readonly cropBins?: number;
  /** Diagonals left out, the main one first. */
  readonly diagonalOffset?: number;
  /** Cell types. */
  readonly targets?: number;
}

/** HFF, H1hESC, GM12878, IMR90, HCT116. */
export const AKITA_TARGETS = 5;

/**
 * Akita, contact maps from sequence: x one-hot [batch, 1,048,576, 4] → log(observed / expected) contacts
 * [batch, 99,681, 5] of the pairs of 448 bins of 2,048 bp that are at least 2 bins apart, the upper triangle row by row.
 * 746,149 trainable parameters.
 *
 * A convolution and a tower of ten make 512 bins of 96 channels, eight dilated blocks spread over them; each pair of bins
 * has the mean of its two bins and its distance; six dilated blocks spread over the map, made symmetric after each.
 *
 * Published variants, and which this is:
 * - This is `params.json` of the paper's repository: gradients of each variable clipped to 10; an earlier file has 10.7.
 * - The run of 2019 reversed the bins of reverse-complemented sequences before they were paired; the code since then
 *   reorders the triangle at the end. On a symmetric map both are the same; here the targets are reordered instead
 *   (`augmentTriangle`), which is the same loss.
 * - The published code reads the mirror image of each pair's element, as `upperTriangular` here: the same on a symmetric
 *   map.
 * - Batch norm: 0.9265 of the running statistics stays each step, with the biased batch variance over sequences and the
 *   unbiased one over maps, as Keras' two kernels have it.
 * - There is no activation between the last block of the map and the linear layer.
 * - Akita v2 (2021: human and mouse, 8 folds) and models of other authors from these blocks: give their parameter file
 *   to `modelFromParams`.
 */
export function akita(options: AkitaOptions = {}): BuiltModel {
  return modelFromParams(akitaParams(options));
}

/** The same as a parameter file's content, to be written out or changed. */
export function akitaParams({
  lengthBp = 1_048_576,
  filters = 96,
  towerRepeats = 10,
  residualFilters = 48,
  residualRepeats = 8,
  binFilters = 64,
  mapFilters = 48,
  mapResidualFilters = 24,
  mapResidualRepeats = 6,
  cropBins = 32,
  diagonalOffset = 2,
  targets = AKITA_TARGETS,
}: AkitaOptions = {}): Readonly<Record<'train' | 'model', unknown>> {
  const tower = { name: 'conv_tower', filters_init: filters, filters_mult: 1, kernel_size: 5, pool_size: 2 };
  const dilated = { name: 'dilated_residual', filters: residualFilters, rate_mult: 1.75, dropout: 0.4 };
  const dilatedMap = {
    name: 'dilated_residual_2d',
    filters: mapResidualFilters,
    kernel_size: 3,
    rate_mult: 1.75,
    dropout: 0.1,
  };
  return {
    train: {
      loss: 'mse',
      optimizer: 'sgd',
      learning_rate: 0.0065,
      momentum: 0.99575,
      clip_norm: 10,
      batch_size: 2,
      patience: 12,
    },
    model: {
      seq_length: lengthBp,
      augment_rc: true,
      augment_shift: 11,
      activation: 'relu',
      norm_type: 'batch',
      bn_momentum: 0.9265,
      trunk: [
        { name: 'conv_block', filters, kernel_size: 11, pool_size: 2 },
        { ...tower, repeat: towerRepeats },
        { ...dilated, repeat: residualRepeats },
        { name: 'conv_block', filters: binFilters, kernel_size: 5 },
      ],
      head_hic: [
        { name: 'one_to_two', operation: 'mean' },
        { name: 'concat_dist_2d' },
        { name: 'conv_block_2d', filters: mapFilters, kernel_size: 3 },
        { name: 'symmetrize_2d' },
        { ...dilatedMap, repeat: mapResidualRepeats },
        { name: 'cropping_2d', cropping: cropBins },
        { name: 'upper_tri', diagonal_offset: diagonalOffset },
        { name: 'final', units: targets, activation: 'linear' },
      ],
    },
  };
}
