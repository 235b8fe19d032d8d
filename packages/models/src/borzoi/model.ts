/** Borzoi (Linder et al. 2025, "Predicting RNA-seq coverage from DNA sequence as a unifying model of gene regulation"). */
import { type BuiltModel, modelFromParams } from '../builder/model.ts';

/** RNA-seq, CAGE, DNase, ATAC and ChIP tracks of human. */
export const BORZOI_HUMAN_TRACKS = 7_611;
export const BORZOI_MOUSE_TRACKS = 2_608;

/**
 * Borzoi as published, with the human head: x one-hot [batch, 524,288, 4] → [batch, 16,352, 7,611] bins of 32 bp,
 * 185,892,699 parameters.
 */
export function borzoi(): BuiltModel {
  return modelFromParams(borzoiParams());
}

type Options = Readonly<Record<string, unknown>>;

/** A parameter file's content. */
export interface BorzoiParams {
  readonly train: Options;
  readonly model: Options & { readonly trunk: readonly Options[] };
}

/** The same as a parameter file's content: calico/borzoi, `examples/params_pred.json`. */
export function borzoiParams(): BorzoiParams {
  return {
    train: {
      batch_size: 2,
      shuffle_buffer: 256,
      optimizer: 'adam',
      learning_rate: 6e-5,
      warmup_steps: 20_000,
      global_clipnorm: 0.15,
      adam_beta1: 0.9,
      adam_beta2: 0.999,
      patience: 30,
      train_epochs_min: 150,
      train_epochs_max: 200,
      loss: 'poisson_mn',
      total_weight: 0.2,
    },
    model: {
      augment_rc: true,
      augment_shift: 3,
      activation: 'gelu',
      norm_type: 'batch-sync',
      bn_momentum: 0.9,
      kernel_initializer: 'lecun_normal',
      l2_scale: 2e-8,
      seq_length: 524_288,
      trunk: [
        {
          name: 'conv_dna',
          filters: 512,
          kernel_size: 15,
          norm_type: null,
          activation: 'linear',
          pool_size: 2,
        },
        {
          name: 'res_tower',
          filters_init: 608,
          filters_end: 1_536,
          divisible_by: 32,
          kernel_size: 5,
          num_convs: 1,
          pool_size: 2,
          repeat: 6,
        },
        {
          name: 'transformer_tower',
          key_size: 64,
          heads: 8,
          num_position_features: 32,
          dropout: 0.2,
          mha_l2_scale: 1e-8,
          l2_scale: 1e-8,
          kernel_initializer: 'he_normal',
          repeat: 8,
        },
        { name: 'unet_conv', kernel_size: 3, upsample_conv: true },
        { name: 'unet_conv', kernel_size: 3, upsample_conv: true },
        { name: 'Cropping1D', cropping: 16 },
        { name: 'conv_nac', filters: 1_920, dropout: 0.1 },
      ],
      head_human: { name: 'final', units: BORZOI_HUMAN_TRACKS, activation: 'softplus' },
      head_mouse: { name: 'final', units: BORZOI_MOUSE_TRACKS, activation: 'softplus' },
    },
  };
}
