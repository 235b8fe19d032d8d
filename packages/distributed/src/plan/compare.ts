/** The plans worth comparing for a model and a number of devices, the best first. */
import { SCHEDULES } from '../schedule/generate.ts';
import { type Blocks, PASSES } from './blocks.ts';
import { type Costs, gatherMs } from './costs.ts';
import { partition, type Stage } from './partition.ts';
import { type Plan, type Prediction, predict } from './predict.ts';
import { microbatchMs, type StageCost, stageCost } from './stage.ts';

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

const AHEAD = [0, 1];

/** Plans of one kind: the fastest is shown. */
interface Kind {
  readonly name: string;
  readonly candidates: readonly (readonly [Plan, Blocks])[];
  /** Why there are none. */
  readonly none: string;
}

/**
 * Data, sequence and pipeline parallel plans, each at its best, and the best of all partitions: uneven stages, with
 * devices that share sequences or take turns.
 */
export function comparePlans(options: CompareOptions): Compared {
  const { blocks, microbatches, costs } = options;
  const plans: Prediction[] = [];
  const refused: Refused[] = [];
  for (const { name, candidates, none } of options.lockstep === true
    ? lockstepKinds(options)
    : kinds(options)) {
    const predictions: Prediction[] = [];
    const reasons = candidates.length === 0 ? [none] : [];
    for (const [plan, cut] of candidates) {
      try {
        predictions.push(predict(plan, cut, costs));
      } catch (error) {
        reasons.push((error as Error).message);
      }
    }
    const [fastest] = predictions.sort((a, b) => a.stepMs - b.stepMs);
    if (fastest !== undefined) plans.push(fastest);
    else refused.push({ name, reason: reasons[0]! });
  }
  return {
    oneDeviceMs: Math.min(...blocks.map((cut) => oneDeviceMs(cut, microbatches, costs))),
    plans: plans.sort((a, b) => a.stepMs - b.stepMs),
    refused,
  };
}

function kinds({ blocks, devices, microbatches, costs }: CompareOptions): Kind[] {
  const data =
    microbatches >= devices
      ? blocks.map((cut) => oneStage('data parallel', 'data', cut, devices, microbatches))
      : [];
  const tooFew = `${microbatches} sequences cannot be dealt to ${devices} devices; use a batch of at least ${devices}`;
  const first = { name: 'data parallel', candidates: data, none: tooFew };
  if (devices === 1) return [first];
  const cuts = (name: string, even: boolean): Kind => ({
    name,
    candidates: blocks.flatMap((cut) => pipelines(name, cut, { devices, microbatches, costs }, even)),
    none: `no cut into ${even ? `${devices} stages` : 'stages'} fits ${costs.device.memoryGb} GB`,
  });
  const sequence: Kind = {
    name: 'sequence parallel',
    candidates: blocks
      .filter(({ leaves }) => leaves >= devices)
      .map((cut) => oneStage('sequence parallel', 'sequence', cut, devices, microbatches)),
    none: `no sequence is cut into ${devices} leaves or more`,
  };
  return [
    first,
    sequence,
    cuts('pipeline', true),
    ...(devices > 2 ? [cuts('stages of several devices', false)] : []),
  ];
}

/** Every norm waits for all sequences of the step, so these go through the model together. */
function lockstepKinds({ blocks, devices, microbatches }: CompareOptions): Kind[] {
  const together =
    'batch norm over the whole step: every norm waits for all sequences, so there is nothing to put in a pipeline; use --batch-norm sequence';
  const [cut] = blocks;
  return [
    {
      name: 'data parallel',
      candidates:
        cut!.leaves >= devices ? [oneStage('data parallel', 'sequence', cut!, devices, microbatches)] : [],
      none: `${cut!.leaves} sequences cannot be dealt to ${devices} devices; use a batch of at least ${devices}`,
    },
    { name: 'pipeline', candidates: [], none: together },
  ];
}

function oneStage(
  name: string,
  within: Plan['within'],
  cut: Blocks,
  devices: number,
  microbatches: number,
): readonly [Plan, Blocks] {
  const stages = [{ from: 0, to: cut.blocks.length, devices }];
  return [{ name, stages, within, schedule: '1f1b', ahead: 0, microbatches }, cut];
}

/** Partitions with their schedules: all stages of one device each, or at least one of several. */
function pipelines(
  name: string,
  cut: Blocks,
  { devices, microbatches, costs }: Omit<CompareOptions, 'blocks'>,
  even: boolean,
): (readonly [Plan, Blocks])[] {
  const candidates: (readonly [Plan, Blocks])[] = [];
  for (const within of even || cut.leaves === 1 ? (['data'] as const) : (['data', 'sequence'] as const)) {
    for (const ahead of AHEAD) {
      const known = new Map<string, StageCost | undefined>();
      const stageMs = (stage: Stage, inFlight: number): number => {
        if (even ? stage.devices > 1 : within === 'sequence' && stage.devices > cut.leaves)
          return Number.POSITIVE_INFINITY;
        const key = `${stage.from} ${stage.to} ${stage.devices} ${inFlight}`;
        if (!known.has(key))
          known.set(key, stageCost(cut, stage, { within, inFlight, buffers: 1 + ahead }, costs));
        const cost = known.get(key);
        return cost === undefined ? Number.POSITIVE_INFINITY : microbatchMs(cost, within, costs);
      };
      const maxStages = even ? devices : Math.min(4, devices);
      for (const { stages } of partition({
        blocks: cut.blocks.length,
        devices,
        maxStages,
        within,
        ahead,
        stageMs,
      })) {
        if (stages.length === 1 || (!even && stages.length === devices)) continue;
        for (const schedule of SCHEDULES)
          candidates.push([{ name, stages, within, schedule, ahead, microbatches }, cut]);
      }
    }
  }
  return candidates;
}

/** Whether it fits or not: what the work takes. */
function oneDeviceMs({ blocks }: Blocks, microbatches: number, costs: Costs): number {
  const block = ({ passes, updateMs }: Blocks['blocks'][number]): number =>
    updateMs +
    microbatches *
      PASSES.reduce((sum, pass) => {
        const { leavesMs, onceMs, gathers } = passes[pass];
        return sum + leavesMs + onceMs + gathers.reduce((all, bytes) => all + gatherMs(bytes, 1, costs), 0);
      }, 0);
  return blocks.reduce((sum, one) => sum + block(one), 0);
}
