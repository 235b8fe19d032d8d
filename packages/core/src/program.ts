import type { Range } from './op.ts';
import type { Phase } from './scope.ts';
import type { DType } from './tensor.ts';

/**
 * Where a slot's bytes live while a program runs:
 * `scratch` is reused by every leaf in turn, `leaf` is kept once per leaf of the rank, `shared` once per rank;
 * `state` and `next` belong to the state store and change places when a step commits. In stages that work on parts of
 * sequences, of which several are on their way, `sequence` is kept once for each of them and `part` once for each part, to
 * be used by one sequence after the other; a `leaf` is a part of one of them.
 */
export type SlotScope = 'scratch' | 'leaf' | 'sequence' | 'part' | 'shared' | 'state' | 'next';

/** Copies of a slot on a device that keeps tensors of so many leaves, of so many sequences in stages, at one time. */
export function copiesOf(scope: SlotScope, leaves: number, sequences = 1): number {
  if (scope === 'leaf') return leaves;
  if (scope === 'sequence') return sequences;
  return scope === 'part' ? leaves / sequences : 1;
}

export interface Slot {
  readonly bytes: number;
  readonly scope: SlotScope;
  /** What it holds first: a tensor's layer path and op. */
  readonly label: string;
}

/** A slot, or a range of it, as a kernel sees it. */
export interface Binding {
  readonly slot: number;
  readonly access: 'read' | 'read_write';
  readonly offset?: number;
  readonly bytes?: number;
  /** Elements are f16; otherwise they have 32 bits. */
  readonly half?: true;
}

/** One dispatch. */
export interface Step {
  readonly label: string;
  readonly path: string;
  readonly phase: Phase;
  /** Its place among the kernels of the whole step, the same in every placement. */
  readonly ordinal: number;
  readonly shader: number;
  readonly bindings: readonly Binding[];
  readonly workgroups: readonly [x: number, y: number];
  /** Parts of a sequence this runs for, where that is not all of them. */
  readonly parts?: Range;
  /** Constants of this dispatch, passed as immediates `frame.k`; absent when the kernel reads no frame. */
  readonly keys?: readonly number[];
  /** The kernel is dispatched in windows, this being one of them. */
  readonly window?: StepWindow;
}

/** Bytes of a window's constants, a uniform: the largest offset alignment of a binding. */
export const WINDOW_BYTES = 256;

/** Part of the work of a kernel that touches a tensor larger than one binding. */
export interface StepWindow {
  /** Where the bindings lie in their tensors; bound after them as a uniform. */
  readonly constants: readonly number[];
  readonly index: number;
  readonly count: number;
  /** 1, and one more for each further binding of a tensor that one binding cannot hold. */
  readonly pages: number;
  /** All of the tensor that the windows write. */
  readonly output: Binding;
}

/** After a leaf's steps, its piece of a tensor is copied to its place among those of other leaves. */
export interface Publish {
  readonly from: number;
  readonly to: number;
  /** Bytes of one leaf's piece. */
  readonly bytes: number;
  /** Leaves of a round that have a piece, in the order of their places. */
  readonly parts: Range;
  /** Whether every round has places of its own; otherwise a round takes those of the one before. */
  readonly perRound: boolean;
}

/** Between segments: `combine` makes the pieces of all leaves of a round known to every rank. */
export interface Combine {
  readonly slot: number;
  readonly bytesPerLeaf: number;
  /** Leaves of a round that have a piece. */
  readonly parts: Range;
  /** Each leaf needs one of the equal parts of every piece, in their order, and no other. */
  readonly addressed?: true;
  /** Each leaf needs the pieces of so many leaves before and after it, and no others. */
  readonly reach?: number;
}

/** Steps up to the next exchange: those run once a rank and round, then those run for each of its leaves. */
export interface Segment {
  readonly once: readonly Step[];
  readonly leaf: readonly Step[];
  /** Pieces of leaves. */
  readonly publish: readonly Publish[];
  /** Copied after `once`: values that are the same for all leaves of a round. */
  readonly publishOnce: readonly Publish[];
  readonly combine: readonly Combine[];
}

export interface ProgramInput {
  readonly name: string;
  readonly slot: number;
  /** Shape of the whole batch. A leaf of whole sequences holds its share; parts of a sequence share all of it. */
  readonly shape: readonly number[];
  readonly dtype: DType;
}

export interface ProgramOutput {
  readonly name: string;
  readonly slot: number;
  /** Logical shape; `perLeaf` outputs are stored as one piece for each leaf. */
  readonly shape: readonly number[];
  /**
   * `batch`: leaves' rows in order; `sequence`: rows of sequences that leaves share; `partial`: one addend per leaf;
   * `whole`: the same on every rank.
   */
  readonly layout: 'batch' | 'sequence' | 'partial' | 'whole';
  /** Leaves of a round that hold some of it. */
  readonly parts: Range;
}

export interface ProgramState {
  readonly name: string;
  readonly slot: number;
  /** The slot of the new value, if the program assigns it other than by writing over the old one. */
  readonly next?: number;
  readonly shape: readonly number[];
}

/** Gradient sums over leaves: 64-bit integers in units of 2^q, one q for each tensor. */
export interface GradientSums {
  /** 64-bit accumulators of all tensors, two u32 words each. */
  readonly slot: number;
  /** u32 per tensor: bits of the largest |leaf gradient|. */
  readonly peakSlot: number;
  /** i32 per tensor: q. */
  readonly scaleSlot: number;
  readonly tensors: readonly { readonly name: string; readonly offset: number; readonly count: number }[];
}

/** A small tensor of the update that one stage or rank computes for others, such as the norm of its gradients. */
export interface HandOver {
  readonly bytes: number;
  /** The stage or rank that computes it. */
  readonly from: number;
  /** Where this one holds it; absent if it neither computes nor reads it. */
  readonly slot?: number;
}

/**
 * A rank's part of the update, or of its stage's, where each moves its own parameters, of which it alone has the moments.
 * Ranks are counted among those that share it.
 */
export interface UpdateShare {
  readonly rank: number;
  readonly ranks: number;
  /** The rank that finishes each gradient sum, in their order. */
  readonly owners: readonly number[];
  /** Parameters that one rank moves and others read. */
  readonly parameters: readonly { readonly name: string; readonly bytes: number; readonly owner: number }[];
}

/** What is kept from the forward to the backward pass, in bytes: once on a device, and for each of its leaves. */
export interface Activations {
  readonly device: number;
  /** For each sequence on its way through stages that work on parts. */
  readonly sequence: number;
  readonly leaf: number;
  /** The same if nothing were computed again. */
  readonly all: { readonly device: number; readonly sequence: number; readonly leaf: number };
  /** Tensors that are computed again in the backward pass. */
  readonly again: number;
}

/** A compiled function as plain data: it can be cloned to a worker, hashed and printed. */
export interface Program {
  readonly leaves: number;
  /** Sequences of the whole batch. */
  readonly sequences: number;
  /** More than 1 where a leaf is a part of a sequence. */
  readonly leavesPerSequence: number;
  readonly slots: readonly Slot[];
  readonly shaders: readonly string[];
  readonly segments: readonly Segment[];
  /** Index of the first segment of the update; the step is decided before it. Absent without gradient sums. */
  readonly update?: number;
  readonly inputs: readonly ProgramInput[];
  readonly outputs: readonly ProgramOutput[];
  readonly state: readonly ProgramState[];
  readonly scalars: readonly string[];
  readonly sums?: GradientSums;
  /** Values of single sequences of which the update needs those of all: pieces of `bytes`, one for each round. */
  readonly kept: readonly { readonly slot: number; readonly bytes: number }[];
  /** Absent without a backward pass. */
  readonly activations?: Activations;
  /** After each segment of the update; none where each rank does all of it alone. */
  readonly handOvers: readonly (readonly HandOver[])[];
  /** Absent where every rank moves all parameters, or all of its stage. */
  readonly updateShare?: UpdateShare;
  /** Hash of the kernel texts and of the logical plan: what decides the bits. */
  readonly bitsId: string;
}

/** How a batch is cut. */
type Cut = Pick<Program, 'leaves' | 'leavesPerSequence'>;

/**
 * Leaves that are worked on together, and how often: all of the batch in one round, or where leaves are parts of a
 * sequence, sequence after sequence. Segments before the update run once a round, those from it on once a step.
 */
export function rounds({ leaves, leavesPerSequence }: Cut): {
  readonly count: number;
  readonly leaves: number;
} {
  return leavesPerSequence === 1
    ? { count: 1, leaves }
    : { count: leaves / leavesPerSequence, leaves: leavesPerSequence };
}

/** Leaves of a round that one device works on. */
export interface Share {
  readonly round: number;
  /** Consecutive. */
  readonly leaves: readonly number[];
}

/** All leaves of all rounds. */
export function allLeaves(program: Cut): Share[] {
  const { count, leaves } = rounds(program);
  const all = Array.from({ length: leaves }, (_, leaf) => leaf);
  return Array.from({ length: count }, (_, round) => ({ round, leaves: all }));
}

/** Where the pieces of an output that a device's shares hold lie among all of them. */
export function piecesOf({ parts: [from, to] }: ProgramOutput, shares: readonly Share[]): number[] {
  return shares.flatMap(({ round, leaves }) =>
    leaves.filter((leaf) => leaf >= from && leaf < to).map((leaf) => round * (to - from) + leaf - from),
  );
}

/** Pieces of an output that all leaves hold together. */
export function pieceCount(program: Cut, { parts: [from, to] }: ProgramOutput): number {
  return rounds(program).count * (to - from);
}

/** The total of `count` addends, stored one after the other: added in float64, in leaf order. */
export function addLeaves(addends: Float32Array, count: number): Float64Array {
  const totals = new Float64Array(addends.length / count);
  for (let i = 0; i < addends.length; i++) totals[i % totals.length]! += addends[i]!;
  return totals;
}
