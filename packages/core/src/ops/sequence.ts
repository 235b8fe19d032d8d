/** From stored nucleotides and tracks to what a model computes with: one-hot encoding and augmentation. */
import { defineOp, type Reference } from '../op.ts';
import { type Spec, shapeText, type Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { perElement } from './per-element.ts';

/** Codes 0…3 are A, C, G, T: the order of the published data sets and weights. */
const NUCLEOTIDES = 4;

/**
 * codes [batch, length] → f32 [batch, length, 4]: 1 in the column of the nucleotide (0…3 = A, C, G, T), and a row of zeros
 * for N (4, or any other code).
 */
export function oneHot(codes: Tensor): Tensor {
  return oneHotOp({ codes }, undefined);
}

/**
 * One-hot encoding of shifted and reverse-complemented sequences: codes [batch, length], augment [batch, 2] →
 * [batch, length, 4]. Row b of `augment` is (1 to reverse-complement, else 0; shift in bp). A positive shift moves the
 * content right and leaves rows of zeros on the left, as basenji's StochasticShift. The shift comes first.
 */
export function augmentSequence(codes: Tensor, augment: Tensor): Tensor {
  return augmentOp({ codes, augment }, undefined);
}

/**
 * The targets that belong to `augmentSequence`: targets [batch, bins, tracks], augment [batch, 2], strandPair [tracks] →
 * [batch, bins, tracks]. Where a sequence is reverse-complemented, bins are reversed and track t becomes track
 * strandPair[t], its partner on the other strand (itself if it has none). A shift leaves targets as they are.
 * strandPair belongs to the model, not to the batch: pass a `buffer`.
 */
export function augmentTargets(targets: Tensor, augment: Tensor, strandPair: Tensor): Tensor {
  return augmentTargetsOp({ targets, augment, strandPair }, undefined);
}

/** x [batch, length, channels] → [batch, channels · length], index channel · length + row: how Torch7 flattens. */
export function flattenChannelMajor(x: Tensor): Tensor {
  return flattenOp({ x }, undefined);
}

const SEQUENCE_SAMPLES = [
  {
    inputs: { codes: [2, 37] },
    attrs: undefined,
    range: { codes: [0, NUCLEOTIDES + 1] },
    integers: ['codes'],
  },
] as const;

const oneHotOp = defineOp()({
  name: 'oneHot',
  inputs: ['codes'],
  axes: 'batch length -> batch length _',
  infer: ({ codes }) => ({ shape: [...checkCodes('oneHot', codes), NUCLEOTIDES], dtype: 'f32' }),
  kernel: {
    kind: 'map',
    index: (_, __, { i }) => `${i} / ${NUCLEOTIDES}u`,
    expression: ({ codes }, _, { i }) => `select(0.0, 1.0, ${codes} == f32(${i} % ${NUCLEOTIDES}u))`,
  },
  reference: ({ codes }) =>
    Float64Array.from({ length: codes.data.length * NUCLEOTIDES }, (_, i) =>
      codes.data[Math.floor(i / NUCLEOTIDES)] === i % NUCLEOTIDES ? 1 : 0,
    ),
  samples: SEQUENCE_SAMPLES,
});

function checkCodes(name: string, codes: Spec): readonly number[] {
  if (codes.shape.length === 2) return codes.shape;
  throw new Error(`${name}: codes is ${shapeText(codes.shape)}; it must be [batch, length], one code a base`);
}

function checkAugment(name: string, augment: Spec, batch: number): void {
  if (augment.shape.length === 2 && augment.shape[0] === batch && augment.shape[1] === 2) return;
  throw new Error(
    `${name}: augment is ${shapeText(augment.shape)}; it must be [${batch}, 2]: reverse complement (0 or 1) and shift (bp)`,
  );
}

const augmentOp = defineOp()({
  name: 'augmentSequence',
  inputs: ['codes', 'augment'],
  axes: 'batch _, batch _ -> batch _ _',
  infer: ({ codes, augment }) => {
    checkAugment('augmentSequence', augment, codes.shape[0]!);
    return { shape: [...checkCodes('augmentSequence', codes), NUCLEOTIDES], dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ codes }, y) => {
      const length = codes.shape[1]!;
      const body = wgsl`
        let nucleotide = i % ${NUCLEOTIDES}u;
        let row = i32(i / ${NUCLEOTIDES}u % ${length}u);
        let batch = i / ${length * NUCLEOTIDES}u;
        let forward = load_augment(2u * batch) == 0.0;
        // A pairs with T and C with G: reversed, column c is read from column 3 − c.
        let column = select(${NUCLEOTIDES - 1}u - nucleotide, nucleotide, forward);
        let source = select(${length - 1} - row, row, forward) - i32(load_augment(2u * batch + 1u));
        let inside = source >= 0 && source < ${length};
        let code = load_codes(batch * ${length}u + u32(clamp(source, 0, ${length - 1})));
        store(i, select(0.0, 1.0, inside && code == f32(column)));
      `;
      return perElement(y, body);
    },
  },
  reference: ({ codes, augment }) => {
    const length = codes.shape[1]!;
    return Float64Array.from({ length: codes.data.length * NUCLEOTIDES }, (_, i) => {
      const b = Math.floor(i / (length * NUCLEOTIDES));
      const row = Math.floor(i / NUCLEOTIDES) % length;
      const [reverse, shift] = [augment.data[2 * b]!, augment.data[2 * b + 1]!];
      const source = (reverse === 0 ? row : length - 1 - row) - shift;
      const column = reverse === 0 ? i % NUCLEOTIDES : NUCLEOTIDES - 1 - (i % NUCLEOTIDES);
      return source >= 0 && source < length && codes.data[b * length + source] === column ? 1 : 0;
    });
  },
  samples: [
    {
      inputs: { codes: [7, 37], augment: [7, 2] },
      attrs: undefined,
      range: { codes: [0, NUCLEOTIDES + 1], augment: [-2, 3] }, // any number but 0 reverses
      integers: ['codes', 'augment'],
    },
  ],
});

const augmentTargetsOp = defineOp()({
  name: 'augmentTargets',
  inputs: ['targets', 'augment', 'strandPair'],
  axes: 'batch _ _, batch _, _ -> batch _ _',
  infer: ({ targets, augment, strandPair }) => {
    checkAugment('augmentTargets', augment, targets.shape[0]!);
    if (
      targets.shape.length !== 3 ||
      strandPair.shape.length !== 1 ||
      strandPair.shape[0] !== targets.shape[2]
    ) {
      throw new Error(
        `augmentTargets: targets is ${shapeText(targets.shape)} and strandPair ${shapeText(strandPair.shape)}; they must be [batch, bins, tracks] and [tracks]`,
      );
    }
    return { shape: targets.shape, dtype: 'f32' };
  },
  kernel: {
    kind: 'shader',
    body: ({ targets }, y) => {
      const [, bins, tracks] = targets.shape as [number, number, number];
      const body = wgsl`
        let track = i % ${tracks}u;
        let bin = i / ${tracks}u % ${bins}u;
        let batch = i / ${bins * tracks}u;
        let mirrored = (batch * ${bins}u + ${bins - 1}u - bin) * ${tracks}u + u32(load_strandPair(track));
        store(i, load_targets(select(mirrored, i, load_augment(2u * batch) == 0.0)));
      `;
      return perElement(y, body);
    },
  },
  reference: ({ targets, augment, strandPair }) => {
    const [, bins, tracks] = targets.shape as [number, number, number];
    return targets.data.map((value, i) => {
      const b = Math.floor(i / (bins * tracks));
      if (augment.data[2 * b] === 0) return value;
      const bin = bins - 1 - (Math.floor(i / tracks) % bins);
      return targets.data[(b * bins + bin) * tracks + strandPair.data[i % tracks]!]!;
    });
  },
  samples: [
    {
      inputs: { targets: [5, 13, 6], augment: [5, 2], strandPair: [6] },
      attrs: undefined,
      range: { augment: [0, 2], strandPair: [0, 6] },
      integers: ['augment', 'strandPair'],
    },
  ],
});

const flattenOp = defineOp()({
  name: 'flattenChannelMajor',
  inputs: ['x'],
  axes: 'batch _ _ -> batch _',
  infer: ({ x }) => {
    if (x.shape.length !== 3)
      throw new Error(
        `flattenChannelMajor: x is ${shapeText(x.shape)}; it must be [batch, length, channels]`,
      );
    return { shape: [x.shape[0]!, x.shape[1]! * x.shape[2]!], dtype: x.dtype };
  },
  kernel: {
    kind: 'view',
    index: (i, x) => {
      const [, length, channels] = x.shape as [number, number, number];
      return transposedIndex(i, channels, length);
    },
  },
  linear: true,
  gradient: (dy, { x }) => ({
    x: () => unflattenOp({ x: dy }, { length: x.shape[1]!, channels: x.shape[2]! }),
  }),
  reference: ({ x }) => transpose(x, x.shape[1]!, x.shape[2]!),
  samples: [{ inputs: { x: [2, 7, 5] }, attrs: undefined }],
});

/** The inverse of `flattenChannelMajor`: x [batch, channels · length] → [batch, length, channels]. */
const unflattenOp = defineOp<{ readonly length: number; readonly channels: number }>()({
  name: 'unflattenChannelMajor',
  inputs: ['x'],
  axes: 'batch _ -> batch _ _',
  infer: ({ x }, { length, channels }) => ({ shape: [x.shape[0]!, length, channels], dtype: x.dtype }),
  kernel: {
    kind: 'view',
    index: (i, _, __, { length, channels }) => transposedIndex(i, length, channels),
  },
  linear: true,
  gradient: (dy) => ({ x: () => flattenChannelMajor(dy) }),
  reference: ({ x }, { length, channels }) => transpose(x, channels, length),
  samples: [{ inputs: { x: [2, 35] }, attrs: { length: 7, channels: 5 } }],
});

/** WGSL of the index into [batch, columns, rows] behind index i of [batch, rows, columns]. */
function transposedIndex(i: string, rows: number, columns: number): string {
  const inBatch = `${i} % ${rows * columns}u`;
  return `${i} / ${rows * columns}u * ${rows * columns}u + ${inBatch} % ${columns}u * ${rows}u + ${inBatch} / ${columns}u`;
}

/** Values of x, read as [batch, rows, columns], in the order of [batch, columns, rows]. */
function transpose(x: Reference, rows: number, columns: number): Float64Array {
  return x.data.map((_, i) => {
    const inBatch = i % (rows * columns);
    return x.data[i - inBatch + (inBatch % rows) * columns + Math.floor(inBatch / rows)]!;
  });
}
