/** The blocks that a Basenji or baskerville file is made of, by name. */
import { nn, slice, type Tensor } from '@cohesin/core';
import { convBlock, convDna, convTower, dilatedResidual } from './conv-blocks.ts';
import { denseBlock, denseNac, final } from './dense-blocks.ts';
import type { Fields } from './fields.ts';
import type { Block, Flow, Maker } from './flow.ts';
import { convNac, convTowerNac, dilatedResidualNac, resTower } from './nac-blocks.ts';
import type { Shared } from './shared.ts';
import { transformer, transformerTower } from './transformer-blocks.ts';
import { unetConcat, unetConv } from './unet-blocks.ts';

const BLOCKS: Readonly<Record<string, Maker>> = {
  conv_block: convBlock,
  conv_dna: convDna,
  conv_nac: convNac,
  conv_tower: convTower,
  conv_tower_nac: convTowerNac,
  res_tower: resTower,
  dilated_residual: dilatedResidual,
  dilated_residual_nac: dilatedResidualNac,
  transformer,
  transformer_tower: transformerTower,
  unet_conv: unetConv,
  unet_concat: unetConcat,
  Cropping1D: cropping,
  dense_block: denseBlock,
  dense_nac: denseNac,
  dense: final,
  final,
};

/** One block of a file. @throws when its name or one of its options is unknown, with the place in the file. */
export function block(options: Fields, shared: Shared, input: Flow): Block {
  const name = options.text('name');
  const make = Object.hasOwn(BLOCKS, name) ? BLOCKS[name] : undefined;
  if (make === undefined) {
    throw new Error(
      `${options.where}.name: '${name}' is no known block; known are ${Object.keys(BLOCKS).join(', ')}`,
    );
  }
  const made = make(options, shared, input);
  options.finish();
  return made;
}

/** `cropping` rows less at each end: [batch, length, channels] → [batch, length − 2 · cropping, channels]. */
function cropping(options: Fields, _: Shared, input: Flow): Block {
  const both = options.value('cropping');
  const sides: readonly unknown[] = Array.isArray(both) ? both : [both, both];
  const [rows] = sides;
  const isCount = typeof rows === 'number' && Number.isInteger(rows) && rows >= 0;
  if (!isCount || sides.length !== 2 || sides[1] !== rows) {
    throw new Error(
      `${options.where}.cropping: expected one number of rows for both ends, found ${JSON.stringify(both)}`,
    );
  }
  const length = input.length - 2 * rows;
  if (length < 1) {
    throw new Error(
      `${options.where}.cropping: ${rows} rows at each end are more than the ${input.length} there are; crop less than ${input.length / 2}`,
    );
  }
  const layer = nn.layer({}, (x: Tensor) => slice(x, { from: rows, to: x.shape[1]! - rows }));
  return { layer, output: { ...input, length, cropBp: input.cropBp + rows * input.binBp } };
}
