import type { Range } from './op.ts';
import type { Program, ProgramInput, ProgramOutput } from './program.ts';

/** A step that cannot be cut into the stages that are asked for. */
export class StageError extends Error {
  override name = 'StageError';
}

/** What a stage of a pipeline does with a microbatch at a time. `backward` is both gradients in one. */
export type ActionKind = 'forward' | 'backward' | 'inputGradient' | 'weightGradient';

/**
 * Tensors of a microbatch that one stage computes and another one reads. Where a microbatch is a sequence in parts, the
 * ranks of both stages may hold others of them.
 */
export interface Link {
  /** Activations go to later stages after `forward`; gradients to earlier ones, after the input gradient. */
  readonly value: 'activation' | 'gradient';
  readonly from: number;
  readonly to: number;
  /** Of a microbatch. */
  readonly bytes: number;
  /** The slots are those of the program that holds the link. */
  readonly tensors: readonly LinkTensor[];
}

export interface LinkTensor {
  readonly slot: number;
  /** Of a piece. */
  readonly bytes: number;
  readonly label: string;
  /** Parts of the sequence that hold a piece; absent where the ranks of a microbatch all hold the same. */
  readonly parts?: Range;
}

/** A tensor of a link, by its place there, or the piece of it that a part of the sequence holds. */
export interface LinkPiece {
  readonly tensor: number;
  readonly part: number | undefined;
}

/** A parameter that several stages read: one updates it and gives the others the new value. */
export interface SharedParameter {
  readonly name: string;
  readonly bytes: number;
  /** The unit of the update that moves it. */
  readonly from: number;
  /** Whether this program has it. */
  readonly held: boolean;
}

/** Where the largest leaf gradients of a stage lie among those of all stages, by which all decide alike. */
export interface StagePeaks {
  /** Tensors of all stages in the order of the whole step: name, and place in the stages' lists one after another. */
  readonly tensors: readonly { readonly name: string; readonly place: number }[];
  /** Place of this stage's first. */
  readonly first: number;
}

/**
 * The part of a step that the ranks of one stage run. Segment 0 runs once; then the segments of actions on microbatches,
 * in the order of the schedule; then, from `update` on, the update, with a hand-over after each segment.
 */
export interface StageProgram extends Program {
  readonly stage: number;
  /** Its number among those that divide the update: that of the stage, or of the rank where ranks share the update. */
  readonly unit: number;
  /** The segments of each action: several where the parts of a sequence exchange what they computed in between. */
  readonly actions: Readonly<Partial<Record<ActionKind, Range>>>;
  readonly links: readonly Link[];
  readonly sharedParameters: readonly SharedParameter[];
  readonly peaks: StagePeaks;
}

/** A step cut into stages. */
export interface PipelineProgram
  extends Pick<Program, 'leaves' | 'leavesPerSequence' | 'sequences' | 'scalars' | 'bitsId'> {
  readonly inputs: readonly Pick<ProgramInput, 'name' | 'shape' | 'dtype'>[];
  /** One for each; where the ranks of a stage share its update, that of the first. */
  readonly stages: readonly StageProgram[];
  /** Those of all ranks, stage after stage, where they share the updates of their stages. */
  readonly ranks?: readonly StageProgram[];
  /** All outputs, each with the stage that computes it. */
  readonly outputs: readonly (ProgramOutput & { readonly stage: number })[];
}
