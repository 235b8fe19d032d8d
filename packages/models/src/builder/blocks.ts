/** The blocks that a Basenji or baskerville file is made of, by name. */
import { averagePool1d, nn, slice, type Tensor } from '@cohesin/core';
import { convBlock, convDna, convTower, dilatedDense, dilatedResidual } from './conv-blocks.ts';
import { denseBlock, denseNac, final } from './dense-blocks.ts';
import type { Fields } from './fields.ts';
import type { Block, Flow, Maker } from './flow.ts';
import {
  concatDistance,
  convBlock2d,
  croppingMap,
  dilatedResidual2d,
  oneToTwoBlock,
  symmetrize,
  upperTriangle,
} from './map-blocks.ts';
import { convNac, convTowerNac, dilatedResidualNac, resTower } from './nac-blocks.ts';
import type { Shared } from './shared.ts';
import { transformer, transformerTower } from './transformer-blocks.ts';
import { unetConcat, unetConv } from './unet-blocks.ts';

const ON_SEQUENCES: Readonly<Record<string, Maker>> = {
  conv_block: convBlock,
  conv_dna: convDna,
  conv_nac: convNac,
  conv_tower: convTower,
  conv_tower_nac: convTowerNac,
  res_tower: resTower,
  dilated_residual: dilatedResidual,
  dilated_residual_nac: dilatedResidualNac,
  dilated_dense: dilatedDense,
  transformer,
  transformer_tower: transformerTower,
  unet_conv: unetConv,
  unet_concat: unetConcat,
  Cropping1D: cropping,
  center_slice: centerSlice,
  center_average: centerAverage,
  dense_block: denseBlock,
  dense_nac: denseNac,
  dense: final,
  final,
  one_to_two: oneToTwoBlock,
};

const ON_MAPS: Readonly<Record<string, Maker>> = {
  concat_dist_2d: concatDistance,
  conv_block_2d: convBlock2d,
  dilated_residual_2d: dilatedResidual2d,
  symmetrize_2d: symmetrize,
  cropping_2d: croppingMap,
  Cropping2D: croppingMap,
  upper_tri: upperTriangle,
};

/** One block of a file. @throws when its name or one of its options is unknown, with the place in the file. */
export function block(options: Fields, shared: Shared, input: Flow): Block {
  const name = options.text('name');
  const [here, there] = input.map ? [ON_MAPS, ON_SEQUENCES] : [ON_SEQUENCES, ON_MAPS];
  const make = Object.hasOwn(here, name) ? here[name] : undefined;
  if (make === undefined) throw new Error(`${options.where}.name: ${unknown(name, input, there)}`);
  const made = make(options, shared, input);
  options.finish();
  return made;
}

function unknown(name: string, { map }: Flow, there: Readonly<Record<string, Maker>>): string {
  if (Object.hasOwn(there, name))
    return map
      ? `'${name}' takes a sequence of bins, but a map of pairs comes in; put upper_tri in front`
      : `'${name}' takes a map of pairs, but a sequence of bins comes in; put one_to_two in front`;
  const known = [...Object.keys(ON_SEQUENCES), ...Object.keys(ON_MAPS)].join(', ');
  return `'${name}' is no known block; known are ${known}`;
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

/** `center_slice`: the `center` rows in the middle. */
function centerSlice(options: Fields, _: Shared, input: Flow): Block {
  const { layer, output } = centre(options, input);
  return { layer, output };
}

/** `center_average`: their mean: [batch, length, channels] → [batch, 1, channels]. */
function centerAverage(options: Fields, _: Shared, input: Flow): Block {
  const { layer, output } = centre(options, input);
  const mean = (x: Tensor): Tensor => averagePool1d(layer(x), { size: output.length });
  return { layer: nn.layer({}, mean), output: { ...output, length: 1, binBp: output.binBp * output.length } };
}

function centre(options: Fields, input: Flow): Block {
  const rows = options.integer('center');
  const from = (input.length - rows) / 2;
  if (from < 0 || !Number.isInteger(from))
    throw new Error(
      `${options.where}.center: ${rows} rows do not lie in the middle of ${input.length}; use an ${input.length % 2 === 0 ? 'even' : 'odd'} number of at most ${input.length}`,
    );
  const layer = nn.layer({}, (x: Tensor) => slice(x, { from, to: from + rows }));
  return { layer, output: { ...input, length: rows, cropBp: input.cropBp + from * input.binBp } };
}
