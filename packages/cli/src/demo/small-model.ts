import type { Dataset } from '@cohesin/io';

/** Filters of the first convolution; each pooled stage has a fifth more. */
const FILTERS = 24;

/**
 * Parameters, as in a Basenji file, of a small network that fits a data set: convolutions with pools down to its bins,
 * dilated residual blocks, a crop, and a softplus head.
 *
 * @throws when the bins cannot be reached by pools of whole numbers up to 8.
 */
export function paramsFor(dataset: Dataset): Readonly<Record<'train' | 'model', unknown>> {
  const { sequenceLengthBp, poolWidthBp, cropBp, numTargets } = dataset;
  const [stem = 1, ...tower] = pools(poolWidthBp);
  const widths = tower.map((_, i) => Math.round(FILTERS * 1.2 ** i));
  return {
    train: { optimizer: 'adam', learning_rate: 0.002, loss: 'poisson', clip_norm: 2, batch_size: 4 },
    model: {
      seq_length: sequenceLengthBp,
      augment_rc: true,
      augment_shift: 3,
      activation: 'gelu',
      norm_type: 'batch',
      bn_momentum: 0.9,
      trunk: [
        { name: 'conv_block', filters: FILTERS, kernel_size: 15, pool_size: stem },
        ...tower.map((pool, i) => ({
          name: 'conv_block',
          filters: widths[i],
          kernel_size: 5,
          pool_size: pool,
        })),
        { name: 'dilated_residual', filters: 16, kernel_size: 3, rate_mult: 2, repeat: 5, dropout: 0.1 },
        ...(cropBp === 0 ? [] : [{ name: 'Cropping1D', cropping: cropBp / poolWidthBp }]),
      ],
      head_human: { name: 'final', units: numTargets, activation: 'softplus' },
    },
  };
}

/** Pool sizes whose product is the bin, larger ones first. */
function pools(binBp: number): number[] {
  const sizes: number[] = [];
  let rest = binBp;
  while (rest > 1) {
    const size = [4, 5, 3, 2, 7].find((pool) => rest % pool === 0);
    if (size === undefined)
      throw new Error(
        `bins of ${binBp} bp: ${rest} is no product of pools of 2, 3, 4, 5 and 7; train with a params file of your own`,
      );
    sizes.push(size);
    rest /= size;
  }
  return sizes.sort((a, b) => b - a);
}
