/** The plans worth comparing for a model and a number of devices, the best first. */
import { type Blocks, PASSES } from './blocks.ts';
import { type Costs, gatherMs } from './costs.ts';
import { type Candidate, kinds, lockstepKinds } from './kinds.ts';
import { type Prediction, predict } from './predict.ts';

export interface Refused {
  readonly name: string;
  readonly reason: string;
}

export interface Compared {
  /** Time of the step on one device, with the logical plan that is fastest there; what efficiency refers to. */
  readonly oneDeviceMs: number;
  /** Fastest first. */
  readonly plans: readonly Prediction[];
  readonly refused: readonly Refused[];
}

export interface CompareOptions {
  /** The model cut into leaves in each way that is allowed: the choice decides bits. */
  readonly blocks: readonly Blocks[];
  readonly devices: number;
  readonly microbatches: number;
  readonly costs: Costs;
  /** All sequences of a step share batch-norm statistics: they are the leaves of one microbatch. */
  readonly lockstep?: boolean;
}

/**
 * Plans of every kind, each at its best, without and with the optimizer sharded. What is refused says the least that is
 * missing.
 */
export function comparePlans(options: CompareOptions): Compared {
  const { blocks, microbatches, costs } = options;
  const plans: Prediction[] = [];
  const refused: Refused[] = [];
  for (const kind of options.lockstep === true ? lockstepKinds(options) : kinds(options)) {
    const whole = fastest(kind.candidates, costs);
    const sharded = fastest(kind.sharded, costs);
    if (whole.best !== undefined) plans.push(whole.best);
    if (sharded.best !== undefined && spares(sharded.best, whole.best)) plans.push(sharded.best);
    if (whole.best === undefined)
      refused.push({ name: kind.name, reason: sharded.reason ?? whole.reason ?? kind.none });
  }
  return {
    oneDeviceMs: Math.min(...blocks.map((cut) => oneDeviceMs(cut, microbatches, costs))),
    plans: plans.sort((a, b) => a.stepMs - b.stepMs),
    refused,
  };
}

/** Whether sharded moments are worth a plan of their own. */
function spares({ stages: [sharded] }: Prediction, whole: Prediction | undefined): boolean {
  if (whole === undefined) return true;
  const { state, total } = whole.stages[0]!.memory;
  return state - sharded!.memory.state > 0.01 * total;
}

const NEARLY = 1.01;

/** Of the fastest and those within 1 % of it, the one that takes least memory; or why the first of them cannot be. */
function fastest(
  candidates: readonly Candidate[],
  costs: Costs,
): { readonly best?: Prediction; readonly reason?: string } {
  const predictions: Prediction[] = [];
  const reasons: string[] = [];
  for (const [plan, cut] of candidates) {
    try {
      predictions.push(predict(plan, cut, costs));
    } catch (error) {
      reasons.push((error as Error).message);
    }
  }
  if (predictions.length === 0) return reasons.length === 0 ? {} : { reason: reasons[0]! };
  const shortestMs = Math.min(...predictions.map(({ stepMs }) => stepMs));
  const near = predictions.filter(({ stepMs }) => stepMs <= NEARLY * shortestMs);
  return { best: near.reduce((a, b) => (memoryOf(b) < memoryOf(a) ? b : a)) };
}

/** Bytes of the device that needs most. */
const memoryOf = ({ stages }: Prediction): number => Math.max(...stages.map(({ memory }) => memory.total));

/** Whether it fits or not: what the work takes. */
function oneDeviceMs({ blocks }: Blocks, microbatches: number, costs: Costs): number {
  const block = ({ passes, updateMs }: Blocks['blocks'][number]): number =>
    updateMs +
    microbatches *
      PASSES.reduce((sum, pass) => {
        const { leavesMs, onceMs, gathers } = passes[pass];
        return (
          sum + leavesMs + onceMs + gathers.reduce((all, { bytes }) => all + gatherMs(bytes, 1, costs), 0)
        );
      }, 0);
  return blocks.reduce((sum, one) => sum + block(one), 0);
}
