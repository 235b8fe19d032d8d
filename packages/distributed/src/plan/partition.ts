/** Cuts a row of blocks into stages of one or more devices each, so that the slowest stage is as fast as can be. */

export interface Stage {
  /** Blocks `[from, to)`. */
  readonly from: number;
  readonly to: number;
  readonly devices: number;
}

export interface PartitionProblem {
  readonly blocks: number;
  readonly devices: number;
  readonly maxStages: number;
  /** Groups that the devices of a stage form, which work on microbatches of their own. */
  readonly groups: (devices: number) => number;
  /** Further microbatches in flight, as for a schedule. */
  readonly ahead: number;
  /**
   * Time of a stage for each microbatch of the pipeline, when every device of it keeps the activations of `inFlight`
   * microbatches; infinite where that does not fit.
   */
  readonly stageMs: (stage: Stage, inFlight: number) => number;
}

export interface Partition {
  readonly stages: readonly Stage[];
  /** Microbatches that each device of a stage keeps. */
  readonly inFlight: readonly number[];
  readonly slowestMs: number;
}

/**
 * The best partition for each number of stages, those that fit. A dynamic programme from the last stage to the first, as
 * how much a stage keeps depends on those behind it (PipeDream, Narayanan et al. 2019; Alpa, Zheng et al. 2022).
 */
export function partition(problem: PartitionProblem): Partition[] {
  const { blocks, devices, maxStages } = problem;
  const found: Partition[] = [];
  let later: Table = new Map([[key(blocks, 0), new Map([[0, { stages: [], inFlight: [], slowestMs: 0 }]])]]);
  for (let count = 1; count <= Math.min(maxStages, devices, blocks); count++) {
    later = prepend(problem, later);
    const all = [...(later.get(key(0, devices))?.values() ?? [])];
    const best = all.reduce<Partition | undefined>(
      (a, b) => (a !== undefined && a.slowestMs <= b.slowestMs ? a : b),
      undefined,
    );
    if (best !== undefined) found.push(best);
  }
  return found;
}

/** By first block and devices: the best tail for each number of microbatches in its first stage. */
type Table = Map<string, Map<number, Partition>>;

const key = (from: number, devices: number): string => `${from} ${devices}`;

/** Tails with one stage more. */
function prepend({ devices, groups, ahead, stageMs }: PartitionProblem, later: Table): Table {
  const longer: Table = new Map();
  for (const [at, tails] of later) {
    const [to, used] = at.split(' ').map(Number) as [number, number];
    for (const [next, tail] of tails) {
      for (let own = 1; own <= devices - used; own++) {
        const inFlight = 1 + Math.ceil(next / groups(own)) + (next > 0 ? ahead : 0);
        for (let from = to - 1; from >= 0; from--) {
          const place = key(from, used + own);
          const known = longer.get(place) ?? new Map<number, Partition>();
          longer.set(place, known);
          const total = inFlight * groups(own);
          const best = known.get(total)?.slowestMs ?? Number.POSITIVE_INFINITY;
          if (best <= tail.slowestMs) continue;
          const stage = { from, to, devices: own };
          const slowestMs = Math.max(tail.slowestMs, stageMs(stage, inFlight));
          if (best <= slowestMs) continue;
          known.set(total, {
            stages: [stage, ...tail.stages],
            inFlight: [inFlight, ...tail.inFlight],
            slowestMs,
          });
        }
      }
    }
  }
  return longer;
}
