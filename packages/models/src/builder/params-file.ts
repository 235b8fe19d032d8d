/** A parameter file for tests of the builder, and what they look at. */
import { build, nn, predictStep } from '@cohesin/core';
import type { BuiltModel } from './model.ts';

interface Changes {
  readonly train?: Readonly<Record<string, unknown>>;
  readonly model?: Readonly<Record<string, unknown>>;
}

/** The content of a small one with the usual kinds of block; both parts can be changed. */
export function paramsFile({ train = {}, model = {} }: Changes = {}): unknown {
  return {
    train: { optimizer: 'adam', learning_rate: 0.001, global_clipnorm: 1, batch_size: 3, ...train },
    model: {
      seq_length: 1_536,
      augment_rc: true,
      augment_shift: 2,
      activation: 'gelu',
      norm_type: 'batch',
      bn_momentum: 0.9,
      trunk: [
        { name: 'conv_block', filters: 10, kernel_size: 9, pool_size: 4 },
        {
          name: 'conv_tower',
          filters_init: 10,
          filters_end: 20,
          divisible_by: 4,
          kernel_size: 5,
          pool_size: 2,
          repeat: 3,
        },
        { name: 'dilated_residual', filters: 6, rate_mult: 2, repeat: 3, dropout: 0.1 },
        { name: 'Cropping1D', cropping: 5 },
      ],
      head_human: { name: 'final', units: 7, activation: 'softplus' },
      ...model,
    },
  };
}

/** Of the prediction. */
export function outputShape({ model, config }: BuiltModel, batch = 2): readonly number[] {
  nn.parameters(model); // names them
  const { program } = build(predictStep({ model }), { inputs: { x: [batch, config.sequenceLengthBp, 4] } });
  return program.outputs.find(({ name }) => name === 'prediction')!.shape;
}

/** Of all parameters, by path. */
export const shapesOf = (model: nn.AnyLayer): Record<string, readonly number[]> =>
  Object.fromEntries([...nn.parameters(model)].map(([path, { shape }]) => [path, shape]));
