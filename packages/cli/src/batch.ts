/** What steps are given: bytes of records on the host, and what becomes of them on the device. */
import {
  augmentSequence,
  augmentTargets,
  augmentTriangle,
  buffer,
  type Example,
  elementCount,
  type InputSpec,
  mix,
  oneHot,
  reshape,
  slice,
  type Tensor,
  type TypedArray,
} from '@cohesin/core';
import type { SequenceRecord } from '@cohesin/io';

/** One tensor of a step: its shape for one sequence, and where its values are in a record. */
export interface StepInput {
  readonly shape: readonly number[];
  readonly dtype: 'u8' | 'f16' | 'f32';
  /** Its value where a batch has no record. */
  readonly absent?: number;
  /** Writes the values of a record whose window begins `fromBp` after its start. */
  fill(values: TypedArray, record: SequenceRecord, fromBp: number): void;
}

/** The tensors of a step by name. */
export type StepInputs = Readonly<Record<string, StepInput>>;

/** How training sequences are varied: all is drawn for each sequence of each step. */
export interface Augmentation {
  readonly reverseComplement: boolean;
  /** Largest shift of the sequence below its targets, to either side. */
  readonly shiftBp: number;
  /** Largest distance of a window from the middle of its record, targets and all. */
  readonly jitterBp: number;
}

/** Shapes of a batch. */
export function batchInputs(batch: number, inputs: StepInputs): Record<string, InputSpec> {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, dtype }]) => [name, { shape: [batch, ...shape], dtype }]),
  );
}

/** Shapes of a training batch: inputs, targets, and how each sequence is varied. */
export function trainingInputs(
  batch: number,
  { inputs, targets }: { readonly inputs: StepInputs; readonly targets: StepInputs },
): Record<string, InputSpec> {
  return { ...batchInputs(batch, inputs), ...batchInputs(batch, targets), augment: [batch, 2] };
}

const ARRAYS = { u8: Uint8Array, f16: Uint16Array, f32: Float32Array } as const;

/** Values for records `[batch]`, in their middle or moved by `jitterBp` from it; missing ones at the end stay absent. */
export function packRecords(
  records: readonly SequenceRecord[],
  batch: number,
  inputs: StepInputs,
  sequenceLengthBp: number,
  jitterBp: (record: number, most: number) => number = () => 0,
): Record<string, TypedArray> {
  const starts = records.map(({ sequence }, i) => {
    const margin = (sequence.length - sequenceLengthBp) / 2;
    return margin + jitterBp(i, margin);
  });
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, dtype, absent = 0, fill }]) => {
      const size = elementCount(shape);
      const values = new ARRAYS[dtype](batch * size).fill(absent);
      for (const [i, record] of records.entries())
        fill(values.subarray(i * size, (i + 1) * size), record, starts[i]!);
      return [name, values];
    }),
  );
}

/** The sequence, one byte a base: A, C, G, T as 0…3, N as 4. */
export function codesInput(sequenceLengthBp: number): StepInput {
  return {
    shape: [sequenceLengthBp],
    dtype: 'u8',
    absent: 4,
    fill: (values, { sequence }, fromBp) =>
      (values as Uint8Array).set(sequence.subarray(fromBp, fromBp + sequenceLengthBp)),
  };
}

/** All targets of a record; the half floats of TFRecord data sets stay as they are until they are on the device. */
export function targetsInput(targetLength: number, tracks: number): StepInput {
  return {
    shape: [targetLength, tracks],
    dtype: 'f16',
    fill: (values, { targets }) => {
      if (targets.dtype !== 'f16')
        throw new Error(
          `targets are stored as ${targets.dtype}, the step takes f16; write the data set again with f16 targets`,
        );
      (values as Uint16Array).set(targets.data);
    },
  };
}

/** What is made of stored targets before the loss sees them. */
export interface TargetView {
  readonly tracks: number;
  /** For each track the one it becomes on the other strand. */
  readonly strandPair: readonly number[];
  /** Bins of the data at each end that the model leaves out. */
  readonly cropBins: number;
  /** Shape of one sequence's prediction. */
  readonly outputShape: readonly number[];
  /** Whether bins are pairs of bins, the triangle of a contact map. */
  readonly isTriangle: boolean;
  /** Of several genomes, the one these targets are of. */
  readonly genome?: string | undefined;
}

/** Decodes a step's inputs on the device: x [batch, length, 4], y [batch, …outputShape]. */
export function prepareTraining({
  tracks,
  strandPair,
  cropBins,
  outputShape,
  isTriangle,
  genome,
}: TargetView): (inputs: Readonly<Record<string, Tensor>>) => Example {
  const partners = Float32Array.from(strandPair);
  const name = genome === undefined ? 'data/strand_pair' : `data/${genome}/strand_pair`;
  const pairs = buffer([tracks], { name, init: () => partners });
  return ({ codes, targets, augment }) => {
    const turned = isTriangle
      ? augmentTriangle(targets!, augment!)
      : augmentTargets(targets!, augment!, pairs); // [batch, bins, tracks]
    const bins = turned.shape[1]!;
    const y = cropBins === 0 ? turned : slice(turned, { from: cropBins, to: bins - cropBins });
    return { x: augmentSequence(codes!, augment!), y: reshape(y, [-1, ...outputShape]) };
  };
}

export function preparePrediction({ codes }: Readonly<Record<string, Tensor>>): Example {
  const x = oneHot(codes!);
  return { x, y: x };
}

/** Per sequence: 1 to reverse-complement, and a shift in bp; a hash of seed and the sequence's global index decides. */
export function drawAugmentation(
  { reverseComplement, shiftBp }: Pick<Augmentation, 'reverseComplement' | 'shiftBp'>,
  seed: number,
  sequence: number,
  batch: number,
): Float32Array {
  const drawn = new Float32Array(2 * batch);
  for (let i = 0; i < batch; i++) {
    const word = mix(mix(seed, AUGMENTATION), sequence + i);
    if (reverseComplement) drawn[2 * i] = word & 1;
    drawn[2 * i + 1] = ((word >>> 1) % (2 * shiftBp + 1)) - shiftBp;
  }
  return drawn;
}

/** How far the window of a sequence is from the middle of its record, to either side. */
export function drawJitter(mostBp: number, seed: number, sequence: number): number {
  return (mix(mix(seed, JITTER), sequence) % (2 * mostBp + 1)) - mostBp;
}

// Any constants of their own keep these draws apart from others of the same seed.
const AUGMENTATION = 0x0a46_3e17;
const JITTER = 0x317e_5a2b;
