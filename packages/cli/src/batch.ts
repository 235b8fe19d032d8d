import {
  augmentSequence,
  augmentTargets,
  augmentTriangle,
  buffer,
  type Example,
  type InputSpec,
  mix,
  oneHot,
  reshape,
  slice,
  type Tensor,
  type TypedArray,
} from '@cohesin/core';
import type { SequenceRecord } from '@cohesin/io';

/** Sizes of what a model reads and what it is trained on. */
export interface Shapes {
  readonly sequenceLengthBp: number;
  /** Bins of a target; 1 where a sequence has one value a track. */
  readonly targetLength: number;
  readonly tracks: number;
  /** How targets are stored: the half floats of TFRecord data sets stay as they are until they are on the device. */
  readonly targetDType: 'f16' | 'f32';
}

/** How training sequences are varied: both are drawn for each sequence of each step. */
export interface Augmentation {
  readonly reverseComplement: boolean;
  /** Largest shift to either side. */
  readonly shiftBp: number;
}

/** The inputs of a training step: one byte a base, targets as stored, and how each sequence is varied. */
export function trainingInputs(batch: number, shapes: Shapes): Record<string, InputSpec> {
  const { targetLength, tracks, targetDType } = shapes;
  return {
    ...predictionInputs(batch, shapes),
    targets: { shape: [batch, targetLength, tracks], dtype: targetDType },
    augment: [batch, 2],
  };
}

export function predictionInputs(batch: number, { sequenceLengthBp }: Shapes): Record<string, InputSpec> {
  return { codes: { shape: [batch, sequenceLengthBp], dtype: 'u8' } };
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
}

/** Decodes a step's inputs on the device: x [batch, length, 4], y [batch, …outputShape]. */
export function prepareTraining({
  tracks,
  strandPair,
  cropBins,
  outputShape,
  isTriangle,
}: TargetView): (inputs: Readonly<Record<string, Tensor>>) => Example {
  const partners = Float32Array.from(strandPair);
  const pairs = buffer([tracks], { name: 'data/strand_pair', init: () => partners });
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

/**
 * Values of the inputs for records `[batch]`; missing ones at the end stay N.
 *
 * @throws when targets are not stored as the step takes them
 */
export function packRecords(
  records: readonly SequenceRecord[],
  batch: number,
  shapes: Shapes,
): Record<string, TypedArray> {
  const { targetLength, tracks, targetDType } = shapes;
  const size = targetLength * tracks;
  const targets = targetDType === 'f16' ? new Uint16Array(batch * size) : new Float32Array(batch * size);
  for (const [i, { targets: own }] of records.entries()) {
    if (own.dtype !== targetDType)
      throw new Error(
        `targets are stored as ${own.dtype}, the step takes ${targetDType}; write the data set again with ${targetDType} targets`,
      );
    targets.set(own.data, i * size);
  }
  return { codes: packCodes(records, batch, shapes), targets };
}

/** Codes of sequences `[batch, length]`; missing ones at the end are N. */
export function packCodes(
  records: readonly SequenceRecord[],
  batch: number,
  { sequenceLengthBp }: Shapes,
): Uint8Array {
  const codes = new Uint8Array(batch * sequenceLengthBp).fill(4);
  for (const [i, { sequence }] of records.entries()) codes.set(sequence, i * sequenceLengthBp);
  return codes;
}

/** Per sequence: 1 to reverse-complement, and a shift in bp; a hash of seed and the sequence's global index decides. */
export function drawAugmentation(
  { reverseComplement, shiftBp }: Augmentation,
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

const AUGMENTATION = 0x0a46_3e17; // any constant of its own keeps these draws apart from others of the same seed
