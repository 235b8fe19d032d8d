/** Kinds of plans for a number of devices, each with its candidates. */
import { SCHEDULES } from '../schedule/generate.ts';
import { groupsOf } from '../schedule/pipeline.ts';
import type { Blocks } from './blocks.ts';
import type { CompareOptions } from './compare.ts';
import { partition, type Stage } from './partition.ts';
import type { Plan } from './predict.ts';
import { microbatchMs, type Sharing, type StageCost, stageCost } from './stage.ts';

/** Plans of one kind: the fastest is shown. */
export interface Kind {
  readonly name: string;
  readonly candidates: readonly Candidate[];
  /** The same with the optimizer sharded. */
  readonly sharded: readonly Candidate[];
  /** Why there are none. */
  readonly none: string;
}

export type Candidate = readonly [Plan, Blocks];

const AHEAD = [0, 1];
const SIDE_BY_SIDE = [1, 2, 4, 8];
const MOST_STAGES = 4; // of several devices

/**
 * Whole sequences on each device; sequences in parts that all devices share, or groups of them; stages of one device each, of
 * several that take whole sequences in turn, and of several that share sequences, all or in groups.
 */
export function kinds(options: CompareOptions): Kind[] {
  const { blocks, devices, costs } = options;
  if (devices === 1) return [oneStage('data parallel', 1, options)];
  const stages = (name: string, sharings: readonly Sharing[], even = false): Kind => ({
    name,
    candidates: sharings.flatMap((sharing) =>
      blocks.flatMap((cut) => pipelines(name, cut, sharing, options, even)),
    ),
    sharded: [],
    none: `no cut into ${even ? `${devices} stages` : 'stages'} fits ${costs.device.memoryGb} GB`,
  });
  const groups = divisors(devices).filter((count) => count > 1 && count < devices);
  const inParts = blocks.some(({ leaves }) => leaves > 1);
  const inStages = groups.filter((count) => 2 * count < devices); // two devices a group, and another stage
  const sharings = inStages.map((replicas): Sharing => ({ within: 'sequence', replicas }));
  const several = [
    stages('stages of several devices', [{ within: 'data' }]),
    ...(inParts ? [stages('stages that share sequences', [{ within: 'sequence', replicas: 1 }])] : []),
    ...(inParts && inStages.length > 0 ? [stages('stages of groups', sharings)] : []),
  ];
  return [
    oneStage('data parallel', devices, options),
    oneStage('sequence parallel', 1, options),
    ...(inParts
      ? groups.map((count) => oneStage(`groups of ${devices / count} devices`, count, options))
      : []),
    stages('pipeline', [{ within: 'data' }], true),
    ...(devices > 2 ? several : []),
  ];
}

/** Every norm waits for all sequences of the step, so these go through the model together. */
export function lockstepKinds({ blocks, devices }: CompareOptions): Kind[] {
  const together =
    'batch norm over the whole step: every norm waits for all sequences, so there is nothing to put in a pipeline; use --batch-norm sequence';
  const cut = blocks[0]!;
  const plans = (shardOptimizer: boolean): Candidate[] =>
    cut.leaves < devices
      ? []
      : [[inOneStage('data parallel', cut, devices, 1, { within: 'sequence', shardOptimizer }), cut]];
  return [
    {
      name: 'data parallel',
      candidates: plans(false),
      sharded: devices === 1 ? [] : plans(true),
      none: `${cut.leaves} sequences cannot be dealt to ${devices} devices; use a batch of at least ${devices}`,
    },
    { name: 'pipeline', candidates: [], sharded: [], none: together },
  ];
}

/** All layers on every device, in groups that have sequences of their own. */
function oneStage(name: string, groups: number, { blocks, devices, microbatches }: CompareOptions): Kind {
  const size = devices / groups;
  const plans = (shardOptimizer: boolean): Candidate[] =>
    microbatches < groups
      ? []
      : blocks
          .filter(({ leaves }) => leaves >= size)
          .flatMap((cut) =>
            widths(microbatches / groups, size).map((sideBySide): Candidate => {
              const sharing: Sharing =
                size === 1
                  ? { within: 'data', shardOptimizer }
                  : { within: 'sequence', replicas: groups, sideBySide, shardOptimizer };
              return [inOneStage(name, cut, devices, microbatches, sharing), cut];
            }),
          );
  return {
    name,
    candidates: plans(false),
    sharded: devices === 1 ? [] : plans(true),
    none:
      microbatches < groups
        ? `${microbatches} sequences cannot be dealt to ${groups} ${size === 1 ? 'devices' : 'groups'}; use a batch of at least ${groups}`
        : `no sequence is cut into ${size} leaves or more`,
  };
}

/** Sequences that devices which share them may take at once. */
function widths(sequences: number, devices: number): number[] {
  return devices === 1 ? [1] : SIDE_BY_SIDE.filter((count) => count === 1 || sequences % count === 0);
}

function inOneStage(
  name: string,
  { blocks }: Blocks,
  devices: number,
  microbatches: number,
  sharing: Sharing,
): Plan {
  const stages = [{ from: 0, to: blocks.length, devices }];
  return {
    name: sharing.shardOptimizer === true ? `${name}, optimizer sharded` : name,
    stages,
    ...sharing,
    schedule: '1f1b',
    ahead: 0,
    microbatches,
  };
}

/** Partitions with their schedules: all stages of one device each, or at least one of several. */
function pipelines(
  name: string,
  cut: Blocks,
  sharing: Sharing,
  { devices, microbatches, costs }: CompareOptions,
  even: boolean,
): Candidate[] {
  const candidates: Candidate[] = [];
  const groups = (count: number): number => groupsOf(count, sharing);
  const isPossible = ({ devices: count }: Stage): boolean =>
    even ? count === 1 : count % groups(count) === 0 && count / groups(count) <= cut.leaves;
  for (const ahead of cut.leaves === 1 && sharing.within === 'sequence' ? [] : AHEAD) {
    const known = new Map<string, StageCost | undefined>();
    const stageMs = (stage: Stage, inFlight: number): number => {
      if (!isPossible(stage)) return Number.POSITIVE_INFINITY;
      const key = `${stage.from} ${stage.to} ${stage.devices} ${inFlight}`;
      if (!known.has(key))
        known.set(key, stageCost(cut, stage, { ...sharing, inFlight, buffers: 1 + ahead }, costs));
      const cost = known.get(key);
      return cost === undefined ? Number.POSITIVE_INFINITY : microbatchMs(cost, sharing, costs);
    };
    const problem = {
      blocks: cut.blocks.length,
      devices,
      maxStages: even ? devices : Math.min(MOST_STAGES, devices),
      groups,
      ahead,
      stageMs,
    };
    for (const { stages } of partition(problem)) {
      if (stages.length === 1 || (!even && stages.length === devices)) continue;
      if (stages.every((stage) => stage.devices <= (sharing.replicas ?? 0))) continue; // a plan of another kind
      for (const schedule of SCHEDULES)
        candidates.push([{ name, stages, ...sharing, schedule, ahead, microbatches }, cut]);
    }
  }
  return candidates;
}

function divisors(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1).filter((divisor) => count % divisor === 0);
}
