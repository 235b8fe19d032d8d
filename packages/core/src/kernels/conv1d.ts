/**
 * 1-D convolution and its two gradients with register tiles: see `tile.ts` for the idea.
 * Activations are [batch, length, channels], weights [size, inputs, outputs].
 */
import type { KernelBody } from '../kernel.ts';
import { wgsl } from '../wgsl.ts';
import { partialChunks } from './matmul.ts';
import {
  chooseTile,
  columnSpan,
  declareSums,
  LANES,
  multiplyAdd,
  type RegisterTile,
  repeat,
  rowSpan,
  storeSums,
  tileIndices,
} from './tile.ts';

/** y[b, p, o] = Σ_t Σ_c x[b, p · stride + t · dilation − padLeft, c] · weight[t, c, o]; x is zero outside its length. */
export interface Conv1dGeometry {
  readonly batch: number;
  readonly length: number;
  readonly outLength: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly size: number;
  readonly stride: number;
  readonly dilation: number;
  /** Zeros in front of x; negative to skip positions. */
  readonly padLeft: number;
  /** Only 1 so far. */
  readonly groups?: number;
}

/**
 * y [batch, outLength, outputs] from inputs `x` [batch, length, inputs] and `weight` [size, inputs, outputs].
 * Sums run over taps, then channels, in f32.
 */
export function conv1dKernel(geometry: Conv1dGeometry): KernelBody {
  checkGroups(geometry);
  const { batch, outLength, inputs, outputs, size } = geometry;
  return forwardKernel(
    geometry,
    chooseTile({ rows: outLength, columns: outputs, depth: size * inputs, groups: batch }),
  );
}

/**
 * dx [batch, length, inputs] from inputs `dy` [batch, outLength, outputs] and `weight` [size, inputs, outputs], for the
 * geometry of the forward convolution. Every dx gathers its own sum: no atomics, any stride and dilation.
 */
export function conv1dInputGradientKernel(geometry: Conv1dGeometry): KernelBody {
  checkGroups(geometry);
  const { batch, length, inputs, outputs, size, stride } = geometry;
  const rows = Math.ceil(length / stride);
  const depth = Math.ceil(size / stride) * outputs;
  return inputGradientKernel(geometry, chooseTile({ rows, columns: inputs, depth, groups: batch * stride }));
}

/**
 * Partial weight gradients [chunks, size, inputs, outputs] from inputs `x` [batch, length, inputs] and
 * `dy` [batch, outLength, outputs], for the geometry of the forward convolution; their sum over the first axis is the
 * gradient. Each chunk is a fixed range of batches and positions, summed in order.
 */
export function conv1dWeightGradientKernel(geometry: Conv1dGeometry): KernelBody {
  checkGroups(geometry);
  return weightGradientKernel(geometry, weightGradientTile(geometry));
}

/** The first axis of the output of `conv1dWeightGradientKernel`. */
export function conv1dWeightGradientChunks(geometry: Conv1dGeometry): number {
  const { batchChunks, positionChunks } = chunkRanges(geometry);
  return batchChunks * positionChunks;
}

function checkGroups({ groups = 1 }: Conv1dGeometry): void {
  if (groups === 1) return;
  throw new Error(`conv1d: groups is ${groups}, but only dense convolutions are supported; use groups: 1`);
}

function forwardKernel(geometry: Conv1dGeometry, tile: RegisterTile): KernelBody {
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  const rowTiles = Math.ceil(outLength / rowSpan(tile));
  const columnTiles = Math.ceil(outputs / columnSpan(tile));
  const rows = sourceRows(tile, {
    sourceLength: length,
    channels: inputs,
    neverOutside: padLeft <= 0 && (outLength - 1) * stride + (size - 1) * dilation - padLeft < length,
    source: (i) => `safeRow${i} * ${stride}u + tapOffset`,
  });
  const body = wgsl`
    ${tileOfWorkgroup(rowTiles, columnTiles)}
    let batch = wg / ${rowTiles * columnTiles}u;
    let xStart = batch * ${length}u;
    let yStart = batch * ${outLength * outputs}u;
    ${tileIndices(tile, outLength, outputs)}
    ${declareSums(tile)}
    for (var tap = 0u; tap < ${size}u; tap++) {
      let tapOffset = tap * ${dilation}u ${minus(padLeft)};
      let weightStart = tap * ${inputs * outputs}u;
      ${rows.setup('xStart')}
      for (var channel = 0u; channel < ${inputs}u; channel++) {
        ${multiplyAdd(
          tile,
          (i) => rows.value('load_x', i),
          (j) => `load_weight(weightStart + channel * ${outputs}u + safeColumn${j})`,
        )}
      }
    }
    ${storeSums(tile, outLength, outputs, (i, j) => `yStart + row${i} * ${outputs}u + column${j}`)}
  `;
  return { body, workgroupSize: LANES, workgroups: rowTiles * columnTiles * batch };
}

/**
 * Positions q of dx with the same `phase` = q mod stride see the same taps: rows are q = row · stride + phase, and tap t
 * reaches dy[row + offset] where offset = (phase + padLeft − t · dilation) / stride, if that is whole.
 */
function inputGradientKernel(geometry: Conv1dGeometry, tile: RegisterTile): KernelBody {
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  const phaseRows = Math.ceil(length / stride);
  const rowTiles = Math.ceil(phaseRows / rowSpan(tile));
  const columnTiles = Math.ceil(inputs / columnSpan(tile));
  const reach = (size - 1) * dilation;
  const rows = sourceRows(tile, {
    sourceLength: outLength,
    channels: outputs,
    neverOutside: stride === 1 && padLeft >= reach && length - 1 + padLeft < outLength,
    source: (i) => `safeRow${i} + tapOffset`,
  });
  const column = (j: number): string => `load_weight(weightStart + safeColumn${j} * ${outputs}u + channel)`;
  const position = (i: number): string => (stride === 1 ? `row${i}` : `position${i}`);
  const body = wgsl`
    ${tileOfWorkgroup(rowTiles, columnTiles)}
    let phase = (wg / ${rowTiles * columnTiles}u) % ${stride}u;
    let batch = wg / ${rowTiles * columnTiles * stride}u;
    let dyStart = batch * ${outLength}u;
    let dxStart = batch * ${length * inputs}u;
    ${tileIndices(tile, phaseRows, inputs)}
    ${declareSums(tile)}
    for (var tap = 0u; tap < ${size}u; tap++) {
      let distance = i32(phase) - i32(tap * ${dilation}u) ${minus(-padLeft, 'i')};
      let tapOffset = u32(distance / ${stride}i);
      let channels = select(0u, ${outputs}u, distance % ${stride}i == 0i);
      let weightStart = tap * ${inputs * outputs}u;
      ${rows.setup('dyStart')}
      for (var channel = 0u; channel < channels; channel++) {
        ${multiplyAdd(tile, (i) => rows.value('load_dy', i), column)}
      }
    }
    ${stride === 1 ? [] : repeat(tile.rows, (i) => `let position${i} = row${i} * ${stride}u + phase;`)}
    ${storeSums(
      tile,
      { name: (i) => position(i), count: length, exact: length % (stride * rowSpan(tile)) === 0 },
      inputs,
      (i, j) => `dxStart + ${position(i)} * ${inputs}u + column${j}`,
    )}
  `;
  return { body, workgroupSize: LANES, workgroups: rowTiles * columnTiles * stride * batch };
}

/** How the rows of a tile read a padded activation: an address and a mask per row and tap, outside the channel loop. */
interface SourceRows {
  setup(start: string): string[];
  value(load: string, row: number): string;
}

function sourceRows(
  tile: RegisterTile,
  options: {
    readonly sourceLength: number;
    readonly channels: number;
    readonly neverOutside: boolean;
    readonly source: (row: number) => string;
  },
): SourceRows {
  const { sourceLength, channels, neverOutside, source } = options;
  if (neverOutside) {
    return {
      setup: (start) =>
        repeat(tile.rows, (i) => `let source${i} = (${start} + ${source(i)}) * ${channels}u;`),
      value: (load, i) => `${load}(source${i} + channel)`,
    };
  }
  return {
    // Positions before the start wrap around to large numbers: one comparison checks both ends.
    setup: (start) =>
      repeat(
        tile.rows,
        (i) => `let place${i} = ${source(i)}; let inside${i} = place${i} < ${sourceLength}u;
          let source${i} = select(0u, (${start} + place${i}) * ${channels}u, inside${i});`,
      ),
    value: (load, i) => `select(0.0, ${load}(source${i} + channel), inside${i})`,
  };
}

/** The tile of taps × channels of x (rows) by channels of dy (columns) that one workgroup sums. */
interface WeightGradientTile {
  readonly taps: number;
  readonly channels: number;
  readonly tile: RegisterTile;
}

function weightGradientTile(geometry: Conv1dGeometry): WeightGradientTile {
  const { inputs, outputs, size } = geometry;
  const { terms, chunks } = chunkRanges(geometry);
  const depth = terms;
  const tile = chooseTile({ rows: inputs, columns: outputs, depth, groups: size * chunks });
  if (tile.lanes === 'rows' || inputs > MAX_TILE_CHANNELS) return { taps: 1, channels: tile.rows, tile };
  // Few channels: several taps share the loads of dy.
  const taps = Math.min(size, Math.floor(MAX_TILE_CHANNELS / inputs));
  const shape = { rows: size * inputs, columns: outputs, depth, groups: chunks };
  const sizes = repeatNumbers(taps).map((n) => n * inputs);
  const several = chooseTile(shape, sizes);
  if (several.lanes === 'rows') return { taps: 1, channels: tile.rows, tile };
  return { taps: several.rows / inputs, channels: inputs, tile: several };
}

/** The most rows of a tile: uniform loads per step. */
const MAX_TILE_CHANNELS = 32;

function repeatNumbers(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

/** Chunks are ranges of whole batches, or pieces of one batch's positions: never parts of several batches. */
interface ChunkRanges {
  readonly batchChunks: number;
  readonly batchesPerChunk: number;
  readonly positionChunks: number;
  readonly positionsPerChunk: number;
  /** Terms of each sum. */
  readonly terms: number;
  readonly chunks: number;
}

function chunkRanges(geometry: Conv1dGeometry): ChunkRanges {
  const { batch, outLength, inputs, outputs, size } = geometry;
  const wanted = partialChunks(batch * outLength, size * inputs * outputs);
  const batchesPerChunk = Math.max(1, Math.floor(batch / wanted));
  const batchChunks = Math.ceil(batch / batchesPerChunk);
  const pieces = Math.max(1, Math.floor(wanted / batchChunks));
  const positionsPerChunk = Math.ceil(outLength / pieces);
  const positionChunks = Math.ceil(outLength / positionsPerChunk);
  return {
    batchChunks,
    batchesPerChunk,
    positionChunks,
    positionsPerChunk,
    terms: batchesPerChunk * positionsPerChunk,
    chunks: batchChunks * positionChunks,
  };
}

function weightGradientKernel(geometry: Conv1dGeometry, shape: WeightGradientTile): KernelBody {
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  const { taps, channels, tile } = shape;
  const chunk = chunkRanges(geometry);
  const channelSpan = tile.lanes === 'rows' ? channels * LANES : channels;
  const channelTiles = Math.ceil(inputs / channelSpan);
  const tapTiles = Math.ceil(size / taps);
  const columnTiles = Math.ceil(outputs / columnSpan(tile));
  const tiles = channelTiles * tapTiles * columnTiles;
  const span = { rows: channels, columns: tile.columns, lanes: tile.lanes };
  const tapOf = (row: number): number => Math.floor(row / channels);
  const body = wgsl`
    let rowTile = wg % ${channelTiles}u;
    let columnTile = (wg / ${channelTiles}u) % ${columnTiles}u;
    let tapTile = (wg / ${channelTiles * columnTiles}u) % ${tapTiles}u;
    let chunk = wg / ${tiles}u;
    let firstBatch = (chunk / ${chunk.positionChunks}u) * ${chunk.batchesPerChunk}u;
    let firstPosition = (chunk % ${chunk.positionChunks}u) * ${chunk.positionsPerChunk}u;
    let lastBatch = min(firstBatch + ${chunk.batchesPerChunk}u, ${batch}u);
    let lastPosition = min(firstPosition + ${chunk.positionsPerChunk}u, ${outLength}u);
    ${tileIndices(span, inputs, outputs)}
    ${repeat(taps, (t) => `let tap${t} = tapTile * ${taps}u + ${t}u; let tapOffset${t} = tap${t} * ${dilation}u ${minus(padLeft)};`)}
    ${declareSums(tile)}
    for (var batch = firstBatch; batch < lastBatch; batch++) {
      let xStart = batch * ${length}u;
      let dyStart = batch * ${outLength}u;
      for (var position = firstPosition; position < lastPosition; position++) {
        let dyRow = (dyStart + position) * ${outputs}u;
        ${repeat(
          taps,
          (
            t,
          ) => `let place${t} = position * ${stride}u + tapOffset${t}; let inside${t} = place${t} < ${length}u;
          let source${t} = select(0u, (xStart + place${t}) * ${inputs}u, inside${t});`,
        )}
        ${multiplyAdd(
          tile,
          (i) => `select(0.0, load_x(source${tapOf(i)} + safeRow${i % channels}), inside${tapOf(i)})`,
          (j) => `load_dy(dyRow + safeColumn${j})`,
        )}
      }
    }
    ${repeat(taps, (t) => {
      const part = storeSums(
        span,
        inputs,
        outputs,
        (i, j) => `((chunk * ${size}u + tap${t}) * ${inputs}u + row${i}) * ${outputs}u + column${j}`,
        (i, j) => `sum${t * channels + i}_${j}`,
      ).join('\n');
      return size % taps === 0 ? part : `if (tap${t} < ${size}u) {\n${part}\n}`;
    })}
  `;
  return { body, workgroupSize: LANES, workgroups: tiles * chunk.chunks };
}

/** Neighbouring workgroups share a column tile: its weights stay in the cache while the rows go by. */
function tileOfWorkgroup(rowTiles: number, columnTiles: number): string[] {
  return [`let rowTile = wg % ${rowTiles}u;`, `let columnTile = (wg / ${rowTiles}u) % ${columnTiles}u;`];
}

/** `- 3u` or `+ 3u`: WGSL has no negative u32 literal. */
function minus(amount: number, suffix: 'u' | 'i' = 'u'): string {
  return amount < 0 ? `+ ${-amount}${suffix}` : `- ${amount}${suffix}`;
}
