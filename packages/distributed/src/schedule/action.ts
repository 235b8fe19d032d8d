/** What ranks do in a pipelined step, as plain data: it can be generated, checked, printed, simulated and run. */

/** Work on a microbatch of a stage. `backward` is `inputGradient` and `weightGradient` in one. */
export type Work = 'forward' | 'backward' | 'inputGradient' | 'weightGradient';

export interface Compute {
  readonly kind: Work;
  readonly stage: number;
  readonly microbatch: number;
}

/** A value at the border of two stages: the activation a forward pass hands on, the gradient a backward pass hands back. */
export interface Transfer {
  readonly kind: 'send' | 'receive';
  readonly value: 'activation' | 'gradient';
  /** The stage that computed the value. */
  readonly stage: number;
  readonly microbatch: number;
  /** The rank at the other end. */
  readonly peer: number;
}

export type Action = Compute | Transfer;

/** Stages of a model and who computes them. */
export interface Pipeline {
  /** Ranks of each stage, from the first stage to the last; each rank is in one stage. */
  readonly stages: readonly (readonly number[])[];
  /**
   * How the ranks of a stage divide its work: `sequence`, each computes its leaves of every microbatch, all together;
   * `data`, each computes microbatches of its own, dealt in turn.
   */
  readonly within: 'sequence' | 'data';
  /**
   * Under `sequence`: groups that the ranks of each stage form, as many as it can. Each computes microbatches of its own,
   * dealt in turn, all its ranks together; one group by default.
   */
  readonly replicas?: number;
  /** Leaves of a microbatch in each stage, dealt to its ranks in order; default: one for each rank. */
  readonly leaves?: readonly number[];
}

export interface Schedule {
  readonly pipeline: Pipeline;
  readonly microbatches: number;
  /** Values that a channel, from one rank to another, holds between send and receive; a further send waits. */
  readonly buffers: number;
  /** What each rank does, in order. */
  readonly actions: readonly (readonly Action[])[];
}

const LETTERS: Readonly<Record<Work, string>> = {
  forward: 'F',
  backward: 'B',
  inputGradient: 'I',
  weightGradient: 'W',
};

export function isTransfer(action: Action): action is Transfer {
  return action.kind === 'send' || action.kind === 'receive';
}

/** `1F0` is the forward pass of microbatch 0 in stage 1; `send 1F0 to 3` hands its result to rank 3. */
export function formatAction(action: Action): string {
  const { stage, microbatch } = action;
  if (!isTransfer(action)) return `${stage}${LETTERS[action.kind]}${microbatch}`;
  const value = `${stage}${action.value === 'activation' ? 'F' : 'B'}${microbatch}`;
  return action.kind === 'send' ? `send ${value} to ${action.peer}` : `receive ${value} from ${action.peer}`;
}
