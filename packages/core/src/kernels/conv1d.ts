/**
 * 1-D convolution and its two gradients with register tiles: see `tile.ts` for the idea.
 * Activations are [batch, length, channels], weights [size, inputs, outputs].
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
import { box, digits, rowsBehind, spans, within } from './touches.ts';

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
  /** Only 1 here: `grouped-conv1d.ts` has the kernels for more. */
  readonly groups?: number;
}

/**
 * y [batch, outLength, outputs] from inputs `x` [batch, length, inputs] and `weight` [size, inputs, outputs].
 * Sums run over taps, then channels, in f32.
 */
export const conv1dKernel: TiledKernel<Conv1dGeometry> = {
  tiles: ({ batch, outLength, inputs, outputs, size, stride }) =>
    tilesByCost({
      rows: outLength,
      columns: outputs,
      depth: size * inputs,
      groups: batch,
      rowStride: stride * inputs,
      columnStride: 1,
    }),
  kernel: forwardKernel,
};

/**
 * dx [batch, length, inputs] from inputs `dy` [batch, outLength, outputs] and `weight` [size, inputs, outputs], for the
 * geometry of the forward convolution. Every dx gathers its own sum: no atomics, any stride and dilation.
 */
export const conv1dInputGradientKernel: TiledKernel<Conv1dGeometry> = {
  tiles: ({ batch, length, inputs, outputs, size, stride }) =>
    tilesByCost({
      rows: Math.ceil(length / stride),
      columns: inputs,
      depth: Math.ceil(size / stride) * outputs,
      groups: batch * stride,
      rowStride: outputs,
      columnStride: outputs,
    }),
  kernel: inputGradientKernel,
};

/**
 * Partial weight gradients [chunks, size, inputs, outputs] from inputs `x` [batch, length, inputs] and
 * `dy` [batch, outLength, outputs], for the geometry of the forward convolution; their sum over the first axis is the
 * gradient. Each chunk is a fixed range of batches and positions, summed in order.
 */
export const conv1dWeightGradientKernel: TiledKernel<Conv1dGeometry> = {
  tiles: (geometry) => {
    const { inputs, outputs, size } = geometry;
    const { terms, chunks } = chunkRanges(geometry);
    return weightGradientTiles({ size, inputs, outputs, depth: terms, groups: chunks });
  },
  kernel: weightGradientKernel,
};

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
  checkGroups(geometry);
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  const rowTiles = Math.ceil(outLength / rowSpan(tile));
  const columnTiles = Math.ceil(outputs / columnSpan(tile));
  const sum = sumOverTaps(tile, {
    source: 'x',
    sourceLength: length,
    channels: inputs,
    size,
    neverOutside: padLeft <= 0 && (outLength - 1) * stride + (size - 1) * dilation - padLeft < length,
    firstPosition: (i) => `safeRow${i} * ${stride}u ${minus(padLeft)}`,
    tapStep: dilation,
    weight: (j) => `${outputs}u * (tap * ${inputs}u + channel) + safeColumn${j}`,
  });
  const body = wgsl`
    ${tileOfWorkgroup(rowTiles, columnTiles)}
    let batch = wg / ${rowTiles * columnTiles}u;
    let sourceStart = batch * ${length * inputs}u;
    let yStart = batch * ${outLength * outputs}u;
    ${tileIndices(tile, outLength, outputs)}
    ${declareSums(tile)}
    ${sum}
    ${storeSums(tile, outLength, outputs, (i, j) => `yStart + row${i} * ${outputs}u + column${j}`)}
  `;
  const touches: KernelBody['touches'] = (from, to) => {
    const [rowTile, columnTile, outer] = digits([from, to], [rowTiles, columnTiles]) as [Range, Range, Range];
    const row = spans(rowTile, rowSpan(tile), outLength);
    const column = spans(columnTile, columnSpan(tile), outputs);
    return {
      x: box({ outer, row: sourceRows(geometry, row), column: [0, inputs] }, length, inputs),
      y: box({ outer, row, column }, outLength, outputs),
    };
  };
  return { body, workgroupSize: LANES, workgroups: rowTiles * columnTiles * batch, touches };
}

/**
 * Positions q of dx with the same `phase` = q mod stride see the same taps: rows are q = row · stride + phase, and tap t
 * reaches dy[row + offset] where offset = (phase + padLeft − t · dilation) / stride, if that is whole.
 */
function inputGradientKernel(geometry: Conv1dGeometry, tile: RegisterTile): KernelBody {
  checkGroups(geometry);
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  const phaseRows = Math.ceil(length / stride);
  const rowTiles = Math.ceil(phaseRows / rowSpan(tile));
  const columnTiles = Math.ceil(inputs / columnSpan(tile));
  const phased = `(i32(phase) - i32(tap * ${dilation}u) ${minus(-padLeft, 'i')})`;
  const sum = sumOverTaps(tile, {
    source: 'dy',
    sourceLength: outLength,
    channels: outputs,
    size,
    neverOutside: stride === 1 && padLeft >= (size - 1) * dilation && length - 1 + padLeft < outLength,
    firstPosition: (i) => (stride === 1 ? `safeRow${i} ${minus(-padLeft)}` : `safeRow${i}`),
    tapStep:
      stride === 1
        ? -dilation
        : { position: `u32(${phased} / ${stride}i)`, used: `${phased} % ${stride}i == 0i` },
    weight: (j) => `${outputs}u * (tap * ${inputs}u + safeColumn${j}) + channel`,
  });
  const position = (i: number): string => (stride === 1 ? `row${i}` : `position${i}`);
  const body = wgsl`
    ${tileOfWorkgroup(rowTiles, columnTiles)}
    let phase = (wg / ${rowTiles * columnTiles}u) % ${stride}u;
    let batch = wg / ${rowTiles * columnTiles * stride}u;
    let sourceStart = batch * ${outLength * outputs}u;
    let dxStart = batch * ${length * inputs}u;
    ${tileIndices(tile, phaseRows, inputs)}
    ${declareSums(tile)}
    ${sum}
    ${stride === 1 ? [] : repeat(tile.rows, (i) => `let position${i} = row${i} * ${stride}u + phase;`)}
    ${storeSums(
      tile,
      { name: position, count: length, exact: length % (stride * rowSpan(tile)) === 0 },
      inputs,
      (i, j) => `dxStart + ${position(i)} * ${inputs}u + column${j}`,
    )}
  `;
  const touches: KernelBody['touches'] = (from, to) => {
    const radices = [rowTiles, columnTiles, stride];
    const [rowTile, columnTile, , outer] = digits([from, to], radices) as [Range, Range, Range, Range];
    const row = spans(rowTile, rowSpan(tile) * stride, length);
    const column = spans(columnTile, columnSpan(tile), inputs);
    const first = Math.ceil((row[0] + padLeft - (size - 1) * dilation) / stride);
    const source = within([first, Math.floor((row[1] - 1 + padLeft) / stride) + 1], outLength);
    return {
      dy: box({ outer, row: source, column: [0, outputs] }, outLength, outputs),
      y: box({ outer, row, column }, length, inputs),
    };
  };
  return { body, workgroupSize: LANES, workgroups: rowTiles * columnTiles * stride * batch, touches };
}

/** A sum over taps and channels of a padded activation times the weight. */
interface TapSum {
  /** The activation's name; `sourceStart` is where this batch begins in it. */
  readonly source: string;
  readonly sourceLength: number;
  readonly channels: number;
  readonly size: number;
  /** No row of any tap is outside the activation: no masks. */
  readonly neverOutside: boolean;
  /** The position that row i of the tile reads for tap 0, as u32: positions before the start wrap around. */
  readonly firstPosition: (row: number) => string;
  /** Positions from one tap to the next, or expressions in `tap`: how far, and whether the tap is used at all. */
  readonly tapStep: number | { readonly position: string; readonly used: string };
  /** The index into the weight for column j, in `tap` and `channel`. */
  readonly weight: (column: number) => string;
}

function sumOverTaps(tile: RegisterTile, sum: TapSum): string[] {
  return sum.channels < MIN_CHANNEL_LOOP && typeof sum.tapStep === 'number'
    ? flatSum(tile, sum, sum.tapStep)
    : nestedSum(tile, sum);
}

/** Loops over channels that are shorter than this would be unrolled by the driver: slow to compile, and slower to run. */
const MIN_CHANNEL_LOOP = 16;

/** A loop over taps around a loop over channels: addresses and masks are made once per tap. */
function nestedSum(tile: RegisterTile, sum: TapSum): string[] {
  const { source, sourceLength, channels, size, neverOutside, firstPosition, tapStep, weight } = sum;
  const always = typeof tapStep === 'number';
  const offset = always ? `tap * ${Math.abs(tapStep)}u` : tapStep.position;
  const place = (i: number): string =>
    `${firstPosition(i)} ${always && tapStep < 0 ? '-' : '+'} ${always ? offset : 'tapPosition'}`;
  // One comparison checks both ends: places before the start are large numbers.
  const masked = (i: number): string =>
    `let place${i} = ${place(i)}; let inside${i} = place${i} < ${sourceLength}u;
     let from${i} = sourceStart + select(0u, place${i} * ${channels}u, inside${i});`;
  const unmasked = (i: number): string => `let from${i} = sourceStart + (${place(i)}) * ${channels}u;`;
  const value = (i: number): string =>
    neverOutside
      ? `load_${source}(from${i} + channel)`
      : `select(0.0, load_${source}(from${i} + channel), inside${i})`;
  return [
    `for (var tap = 0u; tap < ${size}u; tap++) {`,
    ...(always ? [] : [`let tapPosition = ${offset};`]),
    // An unused tap is an empty loop.
    `let channels = ${always ? `${channels}u` : `select(0u, ${channels}u, ${tapStep.used})`};`,
    ...repeat(tile.rows, neverOutside ? unmasked : masked),
    'for (var channel = 0u; channel < channels; channel++) {',
    ...multiplyAdd(tile, value, (j) => `load_weight(${weight(j)})`),
    '} }',
  ];
}

/** One loop over taps and channels, for few channels: a mask per load, but no short inner loop. */
function flatSum(tile: RegisterTile, sum: TapSum, tapStep: number): string[] {
  const { source, sourceLength, channels, size, neverOutside, firstPosition, weight } = sum;
  const elements = sourceLength * channels;
  const value = (i: number): string =>
    neverOutside
      ? `load_${source}(sourceStart + from${i} + offset)`
      : `select(0.0, load_${source}(sourceStart + min(from${i} + offset, ${elements - 1}u)),
           from${i} + offset < ${elements}u)`;
  return [
    ...repeat(tile.rows, (i) => `let from${i} = (${firstPosition(i)}) * ${channels}u;`),
    `for (var term = 0u; term < ${size * channels}u; term++) {`,
    `let tap = term / ${channels}u;`,
    `let channel = term % ${channels}u;`,
    `let offset = channel ${tapStep < 0 ? '-' : '+'} tap * ${Math.abs(tapStep) * channels}u;`,
    ...multiplyAdd(tile, value, (j) => `load_weight(${weight(j)})`),
    '}',
  ];
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
  const batchesPerChunk = Math.ceil(batch / wanted);
  const batchChunks = Math.ceil(batch / batchesPerChunk);
  const pieces = Math.floor(wanted / batchChunks); // at least 1
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

function weightGradientKernel(geometry: Conv1dGeometry, tile: WeightGradientTile): KernelBody {
  checkGroups(geometry);
  const { batch, length, outLength, inputs, outputs, size, stride, dilation, padLeft } = geometry;
  const { taps } = tile;
  const channels = tile.rows / taps;
  const chunk = chunkRanges(geometry);
  const span = { ...tile, rows: channels };
  const channelTiles = Math.ceil(inputs / rowSpan(span));
  const tapTiles = Math.ceil(size / taps);
  const columnTiles = Math.ceil(outputs / columnSpan(tile));
  const tiles = channelTiles * tapTiles * columnTiles;
  const tapOf = (row: number): number => Math.floor(row / channels);
  const place =
    (t: number) =>
    (i: number, j: number): string =>
      `((chunk * ${size}u + tap${t}) * ${inputs}u + row${i}) * ${outputs}u + column${j}`;
  const sumOf =
    (t: number) =>
    (i: number, j: number): string =>
      `sum${t * channels + i}_${j}`;
  const body = (fold: boolean): string => wgsl`
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
    ${fold ? repeat(taps, (t) => resumeSums(span, inputs, outputs, place(t), sumOf(t)).join(' ')) : declareSums(tile)}
    for (var batch = ${fold ? `max(firstBatch, termFrom / ${outLength}u)` : 'firstBatch'}; batch < ${fold ? `min(lastBatch, (termTo - 1u) / ${outLength}u + 1u)` : 'lastBatch'}; batch++) {
      let xStart = batch * ${length}u;
      let dyStart = batch * ${outLength}u;
      for (var position = ${fold ? 'max(firstPosition, max(termFrom, dyStart) - dyStart)' : 'firstPosition'}; position < ${fold ? 'min(lastPosition, termTo - dyStart)' : 'lastPosition'}; position++) {
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
      const part = storeSums(span, inputs, outputs, place(t), sumOf(t)).join('\n');
      return size % taps === 0 ? part : `if (tap${t} < ${size}u) {\n${part}\n}`;
    })}
  `;
  const touches = (workgroups: Range, terms?: Range): Record<string, Range> => {
    const radices = [channelTiles * columnTiles, tapTiles];
    const [, tapTile, chunks] = digits(workgroups, radices) as [Range, Range, Range];
    const position = terms ?? [positions(chunks[0])[0], positions(chunks[1] - 1)[1]]; // batch · outLength + position
    const reach = (row: number): Range => sourceRows(geometry, [row, row + 1]);
    return {
      x: rowsBehind(position, outLength, reach, [length, inputs]),
      dy: spans(position, outputs),
      y: box(
        { outer: chunks, row: spans(tapTile, taps, size), column: [0, inputs * outputs] },
        size,
        inputs * outputs,
      ),
    };
  };
  const positions = (ofChunk: number): Range => {
    const { positionChunks, positionsPerChunk, batchesPerChunk } = chunk;
    const piece = ofChunk % positionChunks;
    const first = Math.floor(ofChunk / positionChunks) * batchesPerChunk;
    const rows = spans([piece, piece + 1], positionsPerChunk, outLength);
    return [
      first * outLength + rows[0],
      (Math.min(first + batchesPerChunk, batch) - 1) * outLength + rows[1],
    ];
  };
  return {
    body: body(false),
    workgroupSize: LANES,
    workgroups: tiles * chunk.chunks,
    touches: (from, to) => touches([from, to]),
    fold: { body: body(true), row: tiles, count: batch * outLength, terms: positions, touches },
  };
}

/** Rows of x behind rows of y. */
function sourceRows({ length, size, stride, dilation, padLeft }: Conv1dGeometry, [from, to]: Range): Range {
  const last = (to - 1) * stride - padLeft + (size - 1) * dilation;
  return within([from * stride - padLeft, last + 1], length);
}

/** Neighbouring workgroups share a column tile: its weights stay in the cache while the rows go by. */
function tileOfWorkgroup(rowTiles: number, columnTiles: number): string[] {
  return [`let rowTile = wg % ${rowTiles}u;`, `let columnTile = (wg / ${rowTiles}u) % ${columnTiles}u;`];
}

/** `- 3u` or `+ 3u`: WGSL has no negative u32 literal. */
function minus(amount: number, suffix: 'u' | 'i' = 'u'): string {
  return amount < 0 ? `+ ${-amount}${suffix}` : `- ${amount}${suffix}`;
}
