/** Compiles a step in stages: the kernels of `buildProgram`, each in the program of its stage. */

import type { Graph } from '../../graph.ts';
import { parameterOf } from '../../ops/leaf-sum.ts';
import type { Parameter } from '../../parameter.ts';
import type { UpdateShare } from '../../program.ts';
import type {
  Link,
  PipelineProgram,
  SharedParameter,
  StagePeaks,
  StageProgram,
} from '../../stage-program.ts';
import { byteLength } from '../../tensor.ts';
import { Assembly, type Parts } from '../assembly.ts';
import { type LogicalPlan, type LogicalStep, logicalStep, type Placement } from '../build.ts';
import { chooseRecompute, type MemoryOptions } from '../choose-recompute.ts';
import { layerPattern } from '../layer-pattern.ts';
import { isShared, partsOf } from '../layout.ts';
import { layOutSums, leafSums, storageBytes } from '../storage-bytes.ts';
import { nodeOf, type Stored } from '../stored.ts';
import { type Cut, type CutStage, cutStages, type PipelineOptions } from './cut.ts';

/** How a step in stages is fitted to devices. */
export interface PipelinePlacement extends PipelineOptions, Omit<Placement, 'leavesOnDevice'> {
  /** Microbatches of which a device of each stage keeps tensors at one time; all by default. */
  readonly inFlight?: readonly number[];
  /** Where a microbatch is a sequence in parts: how many of them a device of each stage has; all by default. */
  readonly partsOnDevice?: readonly number[];
}

/**
 * @throws as `buildProgram`, and when the step cannot be cut into these stages: see `cutStages`.
 */
export function buildPipeline(
  graph: Graph,
  plan: LogicalPlan,
  placement: PipelinePlacement,
): PipelineProgram {
  const step = logicalStep(graph, plan);
  const cut = cutStages(step.sharded, step.ordered, { ...placement, inParts: plan.leavesPerSequence > 1 });
  checkRecompute(cut, placement.recompute);
  const programs = cut.units.map((_, unit) => stageProgram(step, cut, unit, placement));
  const firsts = placement.stages.map((_, stage) => programs.find((program) => program.stage === stage)!);
  const peaks = peaksOf(leafSums(step.sharded.graph).map(parameterOf), firsts);
  const shared = sharedParameters(cut, programs);
  const ranks = programs.map((program): StageProgram => {
    const ofStage = programs.filter(({ stage }) => stage === program.stage);
    const updateShare = placement.sharedUpdate && updateShareOf(cut, program, ofStage, shared);
    return {
      ...program,
      peaks: peaks[program.stage]!,
      sharedParameters: shared.map((one) => ({ ...one, held: holds(program, one) })),
      ...(updateShare && { updateShare }),
    };
  });
  return {
    ...step.facts,
    inputs: step.inputs,
    outputs: firsts.flatMap(({ outputs, stage }) => outputs.map((output) => ({ ...output, stage }))),
    stages: firsts.map(({ unit }) => ranks[unit]!),
    ...(placement.sharedUpdate && { ranks }),
  };
}

type Assembled = Omit<StageProgram, 'peaks' | 'sharedParameters'>;

function stageProgram(step: LogicalStep, cut: Cut, unit: number, placement: PipelinePlacement): Assembled {
  const { stage, segments, actions, graph, sums } = cut.units[unit]!;
  const sharded = { ...step.sharded, graph };
  const sumLayout = layOutSums(sums, segments);
  const bytes = storageBytes(sharded, sumLayout);
  const { bindingLimit = Number.POSITIVE_INFINITY } = placement;
  const held = heldBy(step, stage, placement);
  const memory = ownMemory(placement, cut.units[unit]!);
  const stages = chooseRecompute({ sharded, stages: segments, bytes, ...held }, memory);
  const own = { sharded, ordered: segments, stages, ...held, sumLayout, bytes, bindingLimit };
  const assembly = new Assembly({ ...step, ...own });
  const program = assembly.program();
  const inParts = step.facts.leavesPerSequence > 1;
  const tensorOf = (x: Stored): Link['tensors'][number] => ({
    slot: assembly.slot(x),
    bytes: byteLength(x),
    label: String(nodeOf(x)),
    ...(inParts && !isShared(sharded.layouts.get(nodeOf(x))) ? { parts: partsOf(sharded, nodeOf(x)) } : {}),
  });
  return {
    ...program,
    stage,
    unit,
    actions,
    links: cut.links
      .filter(({ from, to }) => from === stage || to === stage)
      .map(({ tensors, ...link }) => ({
        ...link,
        bytes: tensors.reduce((total, x) => {
          const [from, to] = inParts ? partsOf(sharded, nodeOf(x)) : [0, 1];
          return total + byteLength(x) * (to - from);
        }, 0),
        tensors: tensors.map(tensorOf),
      })),
    handOvers: cut.update.handOvers.map((level) =>
      level.map(({ x, from, holders }) => ({
        from,
        bytes: byteLength(x),
        ...(holders.has(unit) ? { slot: assembly.slot(x) } : {}),
      })),
    ),
  };
}

/** What a device of a stage keeps tensors of at one time. */
function heldBy(
  { sharded: { rounds }, facts }: LogicalStep,
  stage: number,
  { inFlight, partsOnDevice }: PipelinePlacement,
): Pick<Parts, 'leavesOnDevice' | 'sequencesOnDevice'> {
  if (facts.leavesPerSequence === 1) return { leavesOnDevice: inFlight?.[stage] ?? rounds.leaves };
  const sequencesOnDevice = inFlight?.[stage] ?? rounds.count;
  const parts = partsOnDevice?.[stage] ?? rounds.leaves;
  return { leavesOnDevice: sequencesOnDevice * parts, sequencesOnDevice };
}

/** The layers of a stage. */
function layersOf({ segments }: CutStage): string[] {
  const works = segments.stages.flatMap(({ once, leaf }) => [...once, ...leaf]);
  return works.flatMap((work) =>
    work.kind === 'kernel' && work.kernel.node.phase === 'F' ? work.kernel.node.path : [],
  );
}

const names = (pattern: string, layers: readonly string[]): boolean =>
  layers.some((layer) => layerPattern(pattern).test(layer));

function checkRecompute({ units }: Cut, recompute: MemoryOptions['recompute']): void {
  const layers = units.flatMap(layersOf);
  const unknown = (recompute || []).find((pattern) => !names(pattern, layers));
  if (unknown !== undefined)
    throw new Error(
      `recompute: no layer matches '${unknown}'; there are ${[...new Set(layers)].slice(0, 20).join(', ')}`,
    );
}

/** What of the memory options is for a stage. */
function ownMemory({ recompute, memoryBudget }: MemoryOptions, stage: CutStage): MemoryOptions {
  const own = recompute === false ? false : recompute?.filter((pattern) => names(pattern, layersOf(stage)));
  return {
    ...(own === undefined ? {} : { recompute: own }),
    ...(memoryBudget === undefined ? {} : { memoryBudget }),
  };
}

/** Tensors of all stages in the order of the step, and where each stage's begin in the stages' lists. */
function peaksOf(names: readonly string[], programs: readonly Assembled[]): StagePeaks[] {
  const lists = programs.map(({ sums }) => sums?.tensors.map(({ name }) => name) ?? []);
  const all = lists.flat();
  const tensors = names.map((name) => ({ name, place: all.indexOf(name) }));
  return lists.map((_, stage) => ({ tensors, first: lists.slice(0, stage).flat().length }));
}

const holds = ({ state }: Assembled, { name }: { readonly name: string }): boolean =>
  state.some((one) => one.name === name);

function sharedParameters({ update }: Cut, programs: readonly Assembled[]): Omit<SharedParameter, 'held'>[] {
  const stagesOf = (parameter: Parameter): Set<number> =>
    new Set(programs.filter((program) => holds(program, parameter)).map(({ stage }) => stage));
  return [...update.owners]
    .filter(([parameter]) => stagesOf(parameter).size > 1)
    .map(([parameter, [from]]) => ({ name: parameter.name, bytes: byteLength(parameter), from: from! }));
}

/** A rank's part of the update that it shares with the others of its stage. */
function updateShareOf(
  { owners, update, units }: Cut,
  { unit, stage }: Assembled,
  ofStage: readonly Assembled[],
  shared: readonly { readonly name: string }[],
): UpdateShare {
  const first = ofStage[0]!.unit;
  const moved = [...update.owners].filter(
    ([parameter, [owner, ...others]]) =>
      others.length === 0 &&
      units[owner!]!.stage === stage &&
      shared.every(({ name }) => name !== parameter.name) &&
      ofStage.filter((program) => holds(program, parameter)).length > 1,
  );
  return {
    rank: unit - first,
    ranks: ofStage.length,
    owners: units[unit]!.sums.map((sum) => owners.get(sum)! - first),
    parameters: moved.map(([parameter, [owner]]) => ({
      name: parameter.name,
      bytes: byteLength(parameter),
      owner: owner! - first,
    })),
  };
}
