/** The demonstration's data and network, of a size that a CPU with a software driver trains in about a minute. */
import { DIAGONAL_OFFSET } from './contacts.ts';
import { type GenomeOptions, TRACKS } from './genome.ts';

export interface Recipe {
  readonly genome: GenomeOptions;
  /** A Basenji parameter file. */
  readonly params: Readonly<Record<'train' | 'model', unknown>>;
  readonly steps: number;
}

const LENGTH_BP = 8192;

/** From 8,192 bp to 256 bins of 32 bp, 48 channels each. */
const TRUNK = {
  seq_length: LENGTH_BP,
  augment_rc: true,
  augment_shift: 3,
  activation: 'gelu',
  norm_type: 'batch',
  bn_momentum: 0.9,
  trunk: [
    { name: 'conv_block', filters: 32, kernel_size: 19, pool_size: 8 },
    { name: 'conv_block', filters: 48, kernel_size: 5, pool_size: 4 },
    { name: 'dilated_residual', filters: 24, kernel_size: 3, rate_mult: 2, repeat: 3, dropout: 0.1 },
  ],
};

/**
 * Work for each sequence, in MFLOP, forward and backward (2 a multiply-add):
 *
 * | layer | forward | with gradients |
 * |---|---|---|
 * | conv 19, 4 → 32, at 8,192 positions | 40 | 80 (no gradient of the input) |
 * | conv 5, 32 → 48, at 1,024 | 16 | 47 |
 * | 3 dilated blocks, 48 → 24 → 48, at 256 | 7 | 21 |
 *
 * So 0.59 GFLOP a step of 4 sequences, and 240 GFLOP in 400 steps: 40 s at 6 GFLOP/s.
 *
 * What makes first-layer filters whole motifs: a kernel wider than the widest of them, and a large pool after it, so that
 * later layers cannot put a motif together from parts (Koo & Eddy 2019, PLOS Comput. Biol. 15:e1007560). Weight decay takes
 * the random start out of columns beside a motif: one of three runs without it ended at r = 0.845 for REB1, four of four
 * with it at 0.92 or more for every motif.
 */
export const RECIPE: Recipe = {
  genome: { seed: 1, sequences: { train: 160, valid: 16, test: 32 }, lengthBp: LENGTH_BP, binBp: 32 },
  params: {
    train: {
      optimizer: 'adamw',
      weight_decay: 0.15,
      learning_rate: 0.01,
      warmup_steps: 20,
      clip_norm: 2,
      batch_size: 4,
      loss: 'poisson',
    },
    model: {
      ...TRUNK,
      head_simulated: { name: 'final', units: TRACKS.length, activation: 'softplus' },
    },
  },
  steps: 400,
};

/**
 * Contact maps of another genome, fewer than there are sequences with tracks, under the same trunk: bins of 256 bp, then
 * Akita's map in small.
 */
export const CONTACTS: Recipe = {
  genome: { seed: 2, sequences: { train: 48, valid: 16, test: 32 }, lengthBp: LENGTH_BP, binBp: 256 },
  params: {
    train: { optimizer: 'adam', learning_rate: 0.003, clip_norm: 2, batch_size: 4, loss: 'mse' },
    model: {
      ...TRUNK,
      head_contacts: [
        { name: 'conv_block', filters: 48, kernel_size: 5, pool_size: 8 },
        { name: 'one_to_two', operation: 'mean' },
        { name: 'concat_dist_2d' },
        { name: 'conv_block_2d', filters: 24, kernel_size: 3 },
        { name: 'symmetrize_2d' },
        { name: 'dilated_residual_2d', filters: 12, kernel_size: 3, rate_mult: 2, repeat: 3 },
        { name: 'upper_tri', diagonal_offset: DIAGONAL_OFFSET },
        { name: 'final', units: 1, activation: 'linear' },
      ],
    },
  },
  steps: 180,
};
