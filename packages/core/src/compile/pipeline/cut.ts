/** Cuts a step into stages: for each, the segments it runs, what it hands to others, and what state it holds. */

import type { Graph } from '../../graph.ts';
import { type ActionKind, StageError } from '../../stage-program.ts';
import type { Tensor } from '../../tensor.ts';
import type { Sharded } from '../layout.ts';
import { touched } from '../lives.ts';
import type { Stage as Segment, Stages as Segments, Work } from '../split.ts';
import { type Stored, stored } from '../stored.ts';
import { isForward, placeWork, type WorkStages } from './place.ts';
import { cutUpdate, neededOf, type UpdateCut } from './update.ts';

export interface PipelineOptions {
  /**
   * Layers of each stage, from the first to the last: paths, `*` for one name, several with `|`. Layers that no stage
   * names go with what they read, so it is enough to name where a stage begins.
   */
  readonly stages: readonly string[];
  /** Whether weight gradients are an action of their own, as a zero-bubble schedule needs. */
  readonly splitBackward?: boolean;
}

/** Tensors that go from one stage to another with each microbatch. */
export interface CutLink {
  readonly value: 'activation' | 'gradient';
  readonly from: number;
  readonly to: number;
  readonly tensors: readonly Stored[];
}

export interface CutStage {
  readonly segments: Segments;
  /** The segment of each action. */
  readonly actions: Readonly<Partial<Record<ActionKind, number>>>;
  /** The outputs and assignments that are this stage's. */
  readonly graph: Graph;
  /** Gradient sums of its parameters. */
  readonly sums: readonly Tensor[];
}

export interface Cut {
  readonly stages: readonly CutStage[];
  readonly links: readonly CutLink[];
  readonly update: UpdateCut;
}

/**
 * @throws when work before the update joins leaves, which would have to wait for each other; when a pattern matches no
 *   layer; or when a stage has nothing to do.
 */
export function cutStages(sharded: Sharded, whole: Segments, options: PipelineOptions): Cut {
  checkIndependent(sharded, whole);
  const { leaf } = whole.stages[0]!;
  const { of: stageOf, ofLayer } = placeWork(sharded.graph, leaf, options.stages);
  const producers = producersOf(leaf);
  const links = linksOf(leaf, stageOf, producers);
  const kinds = kindsOf(whole, links, options.splitBackward === true);
  const count = options.stages.length;
  const placed: Placed = { whole, stageOf, ofLayer, producers, count };
  const update = cutUpdate(sharded, placed);
  const stages = Array.from({ length: count }, (_, stage) =>
    cutStage(placed, { stage, links, kinds, update }),
  );
  return { stages, links, update };
}

/** A leaf's work with its stages. */
export interface Placed {
  readonly whole: Segments;
  readonly stageOf: ReadonlyMap<Work, number>;
  readonly ofLayer: WorkStages['ofLayer'];
  /** The work that computes each of a leaf's tensors; of partial results, the last. */
  readonly producers: ReadonlyMap<Stored, Work>;
  readonly count: number;
}

/** Leaves that wait for each other cannot go through a pipeline one by one. */
function checkIndependent({ rounds }: Sharded, { stages, update = 1 }: Segments): void {
  if (rounds.count > 1)
    throw new StageError(
      'stages: leaves that are parts of a sequence do not go through stages yet; use leaves of whole sequences',
    );
  if (stages.length <= update + 1 && update <= 1) return;
  const joins = stages.slice(0, update - 1).flatMap(({ gather }) => gather);
  throw new StageError(
    `stages: ${joins[0]?.inputs.x ?? 'a tensor'} is gathered from all leaves of the step before the update, so no leaf can go through the stages before the others. Use batch norm over each sequence, or share the step by leaves on all devices, without stages`,
  );
}

function producersOf(leaf: readonly Work[]): Map<Stored, Work> {
  return new Map(
    leaf.flatMap((work) => {
      const writes = touched(work)[1];
      return writes === undefined ? [] : [[writes, work] as const];
    }),
  );
}

function linksOf(
  leaf: readonly Work[],
  stageOf: ReadonlyMap<Work, number>,
  producers: ReadonlyMap<Stored, Work>,
): CutLink[] {
  const links = new Map<
    string,
    { value: CutLink['value']; from: number; to: number; tensors: Set<Stored> }
  >();
  for (const work of leaf) {
    const to = stageOf.get(work)!;
    for (const x of touched(work)[0]) {
      const producer = producers.get(x);
      const from = producer === undefined ? to : stageOf.get(producer)!;
      if (from === to) continue;
      const key = `${from} ${to}`;
      const value = from < to ? 'activation' : 'gradient';
      const link = links.get(key) ?? { value, from, to, tensors: new Set() };
      links.set(key, link);
      link.tensors.add(x);
    }
  }
  return [...links.values()].map((link) => ({ ...link, tensors: [...link.tensors] }));
}

/** The action that each piece of a leaf's work is part of. */
function kindsOf(
  { stages, update }: Segments,
  links: readonly CutLink[],
  split: boolean,
): Map<Work, ActionKind> {
  const { leaf } = stages[0]!;
  const kinds = new Map<Work, ActionKind>();
  const awaited = new Set(links.flatMap(({ tensors }) => tensors)); // by other stages, or by an input gradient
  for (const work of leaf.toReversed()) {
    const [reads, writes] = touched(work);
    const isInput = work.kind === 'kernel' && (work.kernel.node.phase === 'I' || awaited.has(writes!));
    if (isForward(work) || update === undefined) kinds.set(work, 'forward');
    else if (!split) kinds.set(work, 'backward');
    else kinds.set(work, isInput ? 'inputGradient' : 'weightGradient');
    if (kinds.get(work) === 'inputGradient') for (const x of reads) awaited.add(x);
  }
  return kinds;
}

function actionsOf({ update }: Segments, kinds: ReadonlyMap<Work, ActionKind>): ActionKind[] {
  if (update === undefined) return ['forward'];
  return new Set(kinds.values()).has('backward')
    ? ['forward', 'backward']
    : ['forward', 'inputGradient', 'weightGradient'];
}

const HANDED_ON = { forward: 'activation', inputGradient: 'gradient', backward: 'gradient' } as const;

interface Own {
  readonly stage: number;
  readonly links: readonly CutLink[];
  readonly kinds: ReadonlyMap<Work, ActionKind>;
  readonly update: UpdateCut;
}

function cutStage({ whole, stageOf }: Placed, { stage, links, kinds, update }: Own): CutStage {
  const { once, leaf, gather } = whole.stages[0]!;
  const own = leaf.filter((work) => stageOf.get(work) === stage);
  const actions = actionsOf(whole, kinds);
  const action = (kind: ActionKind): Segment => {
    const works = own.filter((work) => kinds.get(work) === kind);
    const written = new Set(works.map((work) => touched(work)[1]));
    const value = kind === 'weightGradient' ? undefined : HANDED_ON[kind];
    const tensors = (end: 'from' | 'to'): Stored[] => [
      ...new Set(
        links.filter((link) => link[end] === stage && link.value === value).flatMap((link) => link.tensors),
      ),
    ];
    return {
      ...EMPTY,
      leaf: works,
      gather: gather.filter((node) => written.has(stored(node.inputs.x!))),
      receive: tensors('to'),
      send: tensors('from'),
    };
  };
  const { graph, levels } = update.stages[stage]!;
  const ends = [...Object.values(graph.outputs), ...graph.assignments.map(({ value }) => value)].map(stored);
  const segments = [
    { ...EMPTY, once: neededOf(once, [...own, ...levels.flat()], ends) },
    ...actions.map(action),
    ...levels.map((works, level): Segment => {
      const shared = update.handOvers[level]!.filter(({ holders }) => holders.has(stage));
      return { ...EMPTY, once: [...works], handOver: shared.map(({ x }) => x) };
    }),
  ];
  return {
    segments: {
      stages: segments,
      update: whole.update === undefined ? undefined : 1 + actions.length,
      stageOf: indexOf(segments),
      perMicrobatch: [1, actions.length],
    },
    actions: Object.fromEntries(actions.map((kind, i) => [kind, 1 + i])),
    graph,
    sums: own.flatMap((work) => (work.kind === 'accumulate' ? work.sum : [])),
  };
}

const EMPTY: Segment = { once: [], leaf: [], gather: [], keep: [] };

/** The segment that computes a tensor. */
function indexOf(segments: readonly Segment[]): (node: Tensor) => number {
  const index = new Map<Stored, number>();
  for (const [i, { once, leaf }] of segments.entries())
    for (const work of [...once, ...leaf]) {
      const writes = touched(work)[1];
      if (writes !== undefined) index.set(writes, i);
    }
  return (node) => index.get(node) ?? 1;
}
