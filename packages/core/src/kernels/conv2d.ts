/**
 * 2-D convolution and its two gradients with register tiles: see `tile.ts` for the idea.
 * Maps are [batch, height, width, channels], weights [sizeHeight, sizeWidth, inputs, outputs].
 */
import type { KernelBody } from '../kernel.ts';
import type { Range } from '../op.ts';
import { wgsl } from '../wgsl.ts';
import { partialChunks } from './matmul.ts';
import {
  columnSpan,
  declareSums,
  LANES,
  multiplyAdd,
  type RegisterTile,
  repeat,
  resumeSums,
  rowSpan,
  storeSums,
  tileIndices,
  tilesByCost,
  type WeightGradientTile,
  weightGradientTiles,
} from './tile.ts';
import type { TiledKernel } from './tiled-kernel.ts';
import { box, digits, rowsBehind, spans } from './touches.ts';

/**
 * y[b, r, c, o] = Σ_s Σ_t Σ_i x[b, r + s · dilation − padTop, c + t · dilation − padLeft, i] · weight[s, t, i, o];
 * x is zero outside its height and width.
 */
export interface Conv2dGeometry {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly outHeight: number;
  readonly outWidth: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly sizeHeight: number;
  readonly sizeWidth: number;
  readonly dilation: number;
  /** Zeros above and left of x; negative to skip rows or columns. */
  readonly padTop: number;
  readonly padLeft: number;
}

/**
 * y [batch, outHeight, outWidth, outputs] from inputs `x` and `weight`. Sums run over taps, row by row, then channels,
 * in f32.
 */
export const conv2dKernel: TiledKernel<Conv2dGeometry> = tapSums((geometry) => {
  const { height, width, outHeight, outWidth, inputs, outputs, padTop, padLeft, dilation } = geometry;
  return {
    ...geometry,
    source: 'x',
    sourceHeight: height,
    sourceWidth: width,
    height: outHeight,
    width: outWidth,
    channels: inputs,
    columns: outputs,
    columnStride: 1,
    firstRow: -padTop,
    firstColumn: -padLeft,
    step: dilation,
    weight: (column) => `(tap * ${inputs}u + channel) * ${outputs}u + ${column}`,
  };
});

/** dx [batch, height, width, inputs] from inputs `dy` and `weight`. Every dx gathers its own sum: no atomics. */
export const conv2dInputGradientKernel: TiledKernel<Conv2dGeometry> = tapSums((geometry) => {
  const { outHeight, outWidth, inputs, outputs, padTop, padLeft, dilation } = geometry;
  return {
    ...geometry,
    source: 'dy',
    sourceHeight: outHeight,
    sourceWidth: outWidth,
    channels: outputs,
    columns: inputs,
    columnStride: outputs,
    firstRow: padTop,
    firstColumn: padLeft,
    step: -dilation,
    weight: (column) => `(tap * ${inputs}u + ${column}) * ${outputs}u + channel`,
  };
});

/**
 * Partial weight gradients [chunks, sizeHeight, sizeWidth, inputs, outputs] from inputs `x` and `dy`; their sum over the
 * first axis is the gradient. Each chunk is a fixed range of rows of all maps, summed in order.
 */
export const conv2dWeightGradientKernel: TiledKernel<Conv2dGeometry> = {
  tiles: (geometry) => {
    const { outWidth, inputs, outputs, sizeHeight, sizeWidth } = geometry;
    return weightGradientTiles({
      ...{ size: sizeHeight * sizeWidth, inputs, outputs },
      depth: rowsPerChunk(geometry) * outWidth,
      groups: conv2dWeightGradientChunks(geometry),
    });
  },
  kernel: weightGradientKernel,
};

/** The first axis of the output of `conv2dWeightGradientKernel`. */
export function conv2dWeightGradientChunks(geometry: Conv2dGeometry): number {
  return Math.ceil((geometry.batch * geometry.outHeight) / rowsPerChunk(geometry));
}

/** A sum over taps and channels of a padded map times the weight, for every pair of a [height, width] result. */
interface TapSum {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  /** The map's name and extent. */
  readonly source: string;
  readonly sourceHeight: number;
  readonly sourceWidth: number;
  /** Channels that are summed over, and those of the result. */
  readonly channels: number;
  readonly columns: number;
  /** Elements of the weight between neighbouring channels of the result. */
  readonly columnStride: number;
  readonly sizeHeight: number;
  readonly sizeWidth: number;
  /** Where the first tap of the first pair reads, and places from one tap to the next. */
  readonly firstRow: number;
  readonly firstColumn: number;
  readonly step: number;
  /** The index into the weight for a channel of the result, in `tap` and `channel`. */
  readonly weight: (column: string) => string;
}

function tapSums(sumOf: (geometry: Conv2dGeometry) => TapSum): TiledKernel<Conv2dGeometry> {
  return {
    tiles: (geometry) => {
      const { batch, height, width, channels, columns, sizeHeight, sizeWidth, columnStride } =
        sumOf(geometry);
      return tilesByCost({
        rows: width,
        columns,
        depth: sizeHeight * sizeWidth * channels,
        groups: batch * height,
        rowStride: channels,
        columnStride,
      });
    },
    kernel: (geometry, tile: RegisterTile) => tapSumKernel(sumOf(geometry), tile),
  };
}

/** Rows of the register tile are neighbouring pairs in one row of the map. */
function tapSumKernel(sum: TapSum, tile: RegisterTile): KernelBody {
  const { batch, height, width, source, sourceHeight, sourceWidth, channels, columns } = sum;
  const { sizeHeight, sizeWidth, firstRow, firstColumn, step, weight } = sum;
  const rowTiles = Math.ceil(width / rowSpan(tile));
  const columnTiles = Math.ceil(columns / columnSpan(tile));
  // One comparison checks both ends: places before the start are large numbers.
  const place = (i: number): string =>
    `let place${i} = safeRow${i} + tapColumn; let inside${i} = place${i} < ${sourceWidth}u;
     let from${i} = rowStart + select(0u, place${i} * ${channels}u, inside${i});`;
  const body = wgsl`
    let rowTile = wg % ${rowTiles}u;
    let columnTile = (wg / ${rowTiles}u) % ${columnTiles}u;
    let mapRow = wg / ${rowTiles * columnTiles}u;
    let batch = mapRow / ${height}u;
    ${tileIndices(tile, width, columns)}
    ${declareSums(tile)}
    for (var tap = 0u; tap < ${sizeHeight * sizeWidth}u; tap++) {
      let sourceRow = mapRow % ${height}u + u32(${firstRow} + i32(tap / ${sizeWidth}u) * ${step});
      let tapColumn = u32(${firstColumn} + i32(tap % ${sizeWidth}u) * ${step});
      let rowInside = sourceRow < ${sourceHeight}u;
      let rowStart = select(0u, (batch * ${sourceHeight}u + sourceRow) * ${sourceWidth * channels}u, rowInside);
      ${repeat(tile.rows, place)}
      // A tap above or below the map is an empty loop; and of unknown length, which the driver does not unroll.
      let channels = select(0u, ${channels}u, rowInside);
      for (var channel = 0u; channel < channels; channel++) {
        ${multiplyAdd(
          tile,
          (i) => `select(0.0, load_${source}(from${i} + channel), inside${i})`,
          (j) => `load_weight(${weight(`safeColumn${j}`)})`,
        )}
      }
    }
    ${storeSums(tile, width, columns, (i, j) => `(mapRow * ${width}u + row${i}) * ${columns}u + column${j}`)}
  `;
  const touches: KernelBody['touches'] = (from, to) => {
    const [rowTile, columnTile, mapRow] = digits([from, to], [rowTiles, columnTiles]) as [
      Range,
      Range,
      Range,
    ];
    const lastRow = firstRow + (sizeHeight - 1) * step;
    const reach = (row: number): Range => [
      row + Math.min(firstRow, lastRow),
      row + Math.max(firstRow, lastRow) + 1,
    ];
    return {
      [source]: rowsBehind(mapRow, height, reach, [sourceHeight, sourceWidth * channels]),
      y: box(
        {
          outer: mapRow,
          row: spans(rowTile, rowSpan(tile), width),
          column: spans(columnTile, columnSpan(tile), columns),
        },
        width,
        columns,
      ),
    };
  };
  return { body, workgroupSize: LANES, workgroups: rowTiles * columnTiles * batch * height, touches };
}

/** Rows of all maps that one chunk of the weight gradient sums over. */
function rowsPerChunk({
  batch,
  outHeight,
  outWidth,
  inputs,
  outputs,
  sizeHeight,
  sizeWidth,
}: Conv2dGeometry): number {
  const rows = batch * outHeight;
  const wanted = partialChunks(rows * outWidth, sizeHeight * sizeWidth * inputs * outputs);
  return Math.ceil(rows / Math.min(rows, wanted));
}

function weightGradientKernel(geometry: Conv2dGeometry, tile: WeightGradientTile): KernelBody {
  const { batch, height, width, outHeight, outWidth, inputs, outputs } = geometry;
  const { sizeHeight, sizeWidth, dilation, padTop, padLeft } = geometry;
  const { taps } = tile;
  const channels = tile.rows / taps;
  const size = sizeHeight * sizeWidth;
  const [rows, chunks] = [rowsPerChunk(geometry), conv2dWeightGradientChunks(geometry)];
  const span = { ...tile, rows: channels };
  const channelTiles = Math.ceil(inputs / rowSpan(span));
  const tapTiles = Math.ceil(size / taps);
  const columnTiles = Math.ceil(outputs / columnSpan(tile));
  const tiles = channelTiles * tapTiles * columnTiles;
  const tapOf = (row: number): number => Math.floor(row / channels);
  const tap = (t: number): string => `let tap${t} = tapTile * ${taps}u + ${t}u;
    let tapRow${t} = u32(i32(tap${t} / ${sizeWidth}u) * ${dilation} - ${padTop});
    let tapColumn${t} = u32(i32(tap${t} % ${sizeWidth}u) * ${dilation} - ${padLeft});`;
  const sourceRow = (t: number): string => `let xRow${t} = row + tapRow${t};
    let rowInside${t} = xRow${t} < ${height}u;
    let rowStart${t} = select(0u, (map * ${height}u + xRow${t}) * ${width * inputs}u, rowInside${t});`;
  const source = (t: number): string => `let place${t} = position + tapColumn${t};
    let inside${t} = rowInside${t} && place${t} < ${width}u;
    let source${t} = rowStart${t} + select(0u, place${t} * ${inputs}u, inside${t});`;
  const index =
    (t: number) =>
    (i: number, j: number): string =>
      `((chunk * ${size}u + tap${t}) * ${inputs}u + row${i}) * ${outputs}u + column${j}`;
  const sumOf =
    (t: number) =>
    (i: number, j: number): string =>
      `sum${t * channels + i}_${j}`;
  const first = `chunk * ${rows}u`;
  const end = `min((chunk + 1u) * ${rows}u, ${batch * outHeight}u)`;
  const body = (fold: boolean): string => wgsl`
    let rowTile = wg % ${channelTiles}u;
    let columnTile = (wg / ${channelTiles}u) % ${columnTiles}u;
    let tapTile = (wg / ${channelTiles * columnTiles}u) % ${tapTiles}u;
    let chunk = wg / ${tiles}u;
    let positions = select(0u, ${outWidth}u, chunk < ${chunks}u); // of unknown length: not unrolled by the driver
    ${tileIndices(span, inputs, outputs)}
    ${repeat(taps, tap)}
    ${fold ? repeat(taps, (t) => resumeSums(span, inputs, outputs, index(t), sumOf(t)).join(' ')) : declareSums(tile)}
    for (var mapRow = ${fold ? `max(${first}, termFrom)` : first}; mapRow < ${fold ? `min(${end}, termTo)` : end}; mapRow++) {
      let map = mapRow / ${outHeight}u;
      let row = mapRow % ${outHeight}u;
      ${repeat(taps, sourceRow)}
      for (var position = 0u; position < positions; position++) {
        let dyStart = (mapRow * ${outWidth}u + position) * ${outputs}u;
        ${repeat(taps, source)}
        ${multiplyAdd(
          tile,
          (i) => `select(0.0, load_x(source${tapOf(i)} + safeRow${i % channels}), inside${tapOf(i)})`,
          (j) => `load_dy(dyStart + safeColumn${j})`,
        )}
      }
    }
    ${repeat(taps, (t) => {
      const part = storeSums(span, inputs, outputs, index(t), sumOf(t)).join('\n');
      return size % taps === 0 ? part : `if (tap${t} < ${size}u) {\n${part}\n}`;
    })}
  `;
  const touches = (workgroups: Range, terms?: Range): Record<string, Range> => {
    const radices = [channelTiles * columnTiles, tapTiles];
    const [, tapTile, ofChunk] = digits(workgroups, radices) as [Range, Range, Range];
    const mapRow = terms ?? spans(ofChunk, rows, batch * outHeight);
    const reach = (row: number): Range => [row - padTop, row - padTop + (sizeHeight - 1) * dilation + 1];
    const weights = inputs * outputs;
    return {
      x: rowsBehind(mapRow, outHeight, reach, [height, width * inputs]),
      dy: spans(mapRow, outWidth * outputs),
      y: box({ outer: ofChunk, row: spans(tapTile, taps, size), column: [0, weights] }, size, weights),
    };
  };
  return {
    body: body(false),
    workgroupSize: LANES,
    workgroups: tiles * chunks,
    touches: (from, to) => touches([from, to]),
    fold: {
      body: body(true),
      row: tiles,
      count: batch * outHeight,
      terms: (chunk) => spans([chunk, chunk + 1], rows, batch * outHeight),
      touches,
    },
  };
}
