/** Plain numbers that go from step to step on the host and into checkpoints: the step, powers of Adam's betas. */
export type Counters = Readonly<Record<string, number>>;

/** The host side of an optimizer: what its update needs to be told at each step. */
export interface StepCounters {
  /** The counters before the first step. */
  counters(): Counters;
  /** The counters after a step that was taken; a step that was skipped does not advance them. */
  advance(counters: Counters): Counters;
  /**
   * The counters to run a step again with whose gradients were not finite, when another loss scale may help;
   * undefined when none can.
   */
  afterOverflow?(counters: Counters): Counters | undefined;
  /** What `scalar(name)` holds at the step with these counters. */
  scalars(counters: Counters): Readonly<Record<string, number>>;
}
