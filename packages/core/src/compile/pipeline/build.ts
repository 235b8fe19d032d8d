/** Compiles a step in stages: the kernels of `buildProgram`, each in the program of its stage. */

import type { Graph } from '../../graph.ts';
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
  const programs = cut.stages.map((_, stage) => stageProgram(step, cut, stage, placement));
  const peaks = peaksOf(
    leafSums(step.sharded.graph).map((sum) => (sum.attrs as { name: string }).name),
    programs,
  );
  const shared = sharedParameters(cut, programs);
  return {
    ...step.facts,
    inputs: step.inputs,
    outputs: programs.flatMap(({ outputs, stage }) => outputs.map((output) => ({ ...output, stage }))),
    stages: programs.map((program, stage) => ({
      ...program,
      peaks: peaks[stage]!,
      sharedParameters: shared.map((one) => ({
        ...one,
        held: program.state.some(({ name }) => name === one.name),
      })),
    })),
  };
}

type Assembled = Omit<StageProgram, 'peaks' | 'sharedParameters'>;

function stageProgram(step: LogicalStep, cut: Cut, stage: number, placement: PipelinePlacement): Assembled {
  const { segments, actions, graph, sums } = cut.stages[stage]!;
  const sharded = { ...step.sharded, graph };
  const sumLayout = layOutSums(sums);
  const bytes = storageBytes(sharded, sumLayout);
  const { bindingLimit = Number.POSITIVE_INFINITY } = placement;
  const held = heldBy(step, stage, placement);
  const memory = ownMemory(placement, cut.stages[stage]!);
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
        ...(holders.has(stage) ? { slot: assembly.slot(x) } : {}),
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

function checkRecompute({ stages }: Cut, recompute: MemoryOptions['recompute']): void {
  const layers = stages.flatMap(layersOf);
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

function sharedParameters({ update }: Cut, programs: readonly Assembled[]): Omit<SharedParameter, 'held'>[] {
  const holders = (name: string): number =>
    programs.filter(({ state }) => state.some((one) => one.name === name)).length;
  return [...update.owners]
    .filter(([{ name }]) => holders(name) > 1)
    .map(([parameter, [from]]) => ({ name: parameter.name, bytes: byteLength(parameter), from: from! }));
}
