/** Cuts a step into stages: for each, the segments it runs, what it hands to others, and what state it holds. */

import type { Graph } from '../../graph.ts';
import type { Range } from '../../op.ts';
import { type ActionKind, StageError } from '../../stage-program.ts';
import type { Tensor } from '../../tensor.ts';
import type { Sharded } from '../layout.ts';
import { touched } from '../lives.ts';
import type { Stage as Segment, Stages as Segments, Work } from '../split.ts';
import { nodeOf, type Stored, stored } from '../stored.ts';
import { ends, isForward, type Piece, phaseOf, placeWork } from './place.ts';
import { type SharedUpdate, type UpdateUnits, updateUnits } from './units.ts';
import { cutUpdate, neededOf, type UpdateCut } from './update.ts';

export interface PipelineOptions {
  /**
   * Layers of each stage, from the first to the last: paths, `*` for one name, several with `|`. Layers that no stage
   * names go with what they read, so it is enough to name where a stage begins.
   */
  readonly stages: readonly string[];
  /** Whether weight gradients are an action of their own, as a zero-bubble schedule needs. */
  readonly splitBackward?: boolean;
  /** Has the ranks of each stage share its update: each moves some of its parameters, of which it alone has the moments. */
  readonly sharedUpdate?: SharedUpdate;
}

/** How the stages of a step in parts of sequences differ: a microbatch is a sequence, whose parts meet within a stage. */
export interface CutOptions extends PipelineOptions {
  readonly inParts: boolean;
}

/** Tensors that go from one stage to another with each microbatch. */
export interface CutLink {
  readonly value: 'activation' | 'gradient';
  readonly from: number;
  readonly to: number;
  readonly tensors: readonly Stored[];
}

/** A stage, or a rank of one where ranks share its update. */
export interface CutStage {
  readonly stage: number;
  readonly segments: Segments;
  /** The segments of each action: several where parts of a sequence meet in between. */
  readonly actions: Readonly<Partial<Record<ActionKind, Range>>>;
  /** The outputs and assignments that are this stage's. */
  readonly graph: Graph;
  /** Gradient sums of its parameters. */
  readonly sums: readonly Tensor[];
}

export interface Cut {
  /** By unit of the update. */
  readonly units: readonly CutStage[];
  readonly links: readonly CutLink[];
  readonly update: UpdateCut;
  /** The unit that finishes each gradient sum. */
  readonly owners: UpdateUnits['owners'];
}

/**
 * @throws when work before the update joins microbatches, which would have to wait for each other; when a pattern matches no
 *   layer; or when a stage has nothing to do.
 */
export function cutStages(sharded: Sharded, whole: Segments, options: CutOptions): Cut {
  if (options.inParts) checkUpdate(whole);
  else checkIndependent(whole);
  const levels = levelsOf(sharded, whole, options.inParts);
  const pieces = levels.flatMap(({ once, leaf, gather }) => [...once, ...leaf, ...gather]);
  const stageOf = placeWork(sharded.graph, pieces, options.stages);
  const producers = producersOf(pieces);
  const links = linksOf(pieces, stageOf, producers);
  const kinds = kindsOf(pieces, whole, links, options.splitBackward === true);
  const count = options.stages.length;
  const placed: Placed = { whole, stageOf, producers, count };
  const units = updateUnits(stageOf, count, options.sharedUpdate);
  const update = cutUpdate(sharded, placed, units);
  const own = { levels, links, kinds, update, inParts: options.inParts };
  return {
    units: units.stages.map((stage, unit) => cutStage(sharded, placed, { ...own, stage, unit })),
    links,
    update,
    owners: units.owners,
  };
}

/** Work on a microbatch with its stages. */
export interface Placed {
  readonly whole: Segments;
  readonly stageOf: ReadonlyMap<Piece, number>;
  /** The work that computes each tensor of a microbatch; of partial results, the last. */
  readonly producers: ReadonlyMap<Stored, Piece>;
  readonly count: number;
}

/** Leaves that wait for each other cannot go through a pipeline one by one. */
function checkIndependent({ stages, update = 1 }: Segments): void {
  if (stages.length <= update + 1 && update <= 1) return;
  const joins = stages.slice(0, update - 1).flatMap(({ gather }) => gather);
  throw new StageError(
    `stages: ${joins[0]?.inputs.x ?? 'a tensor'} is gathered from all leaves of the step before the update, so no leaf can go through the stages before the others. Use batch norm over each sequence, or share the step by leaves on all devices, without stages`,
  );
}

/** The update of a stage is work that runs once. */
function checkUpdate({ stages, update = stages.length }: Segments): void {
  const late = stages.slice(update).find(({ leaf, gather }) => leaf.length + gather.length > 0);
  if (late === undefined) return;
  const [work] = late.leaf;
  throw new StageError(
    `stages: ${work === undefined ? late.gather[0] : ends(work)[1]} is computed for each part of a sequence after the gradients are summed; leave the stages out`,
  );
}

/** Work on a microbatch between two exchanges. */
interface Level {
  readonly once: readonly Work[];
  readonly leaf: readonly Work[];
  /** What the parts of a microbatch make known to each other. */
  readonly gather: readonly Extract<Piece, { kind: 'gather' }>[];
}

/** Forward and backward pass of a microbatch, without what all microbatches share. */
function levelsOf(sharded: Sharded, { stages, update }: Segments, inParts: boolean): Level[] {
  return stages.slice(0, update).map(({ once, leaf, gather }) => ({
    once: once.filter((work) => !isOfStep(sharded, work)),
    leaf,
    gather: inParts ? gather.map((node) => ({ kind: 'gather', node })) : [], // else only the update needs it
  }));
}

const isOfStep = ({ layouts }: Sharded, work: Work): boolean =>
  layouts.get(nodeOf(touched(work)[1]!)) === 'whole';

function producersOf(pieces: readonly Piece[]): Map<Stored, Piece> {
  return new Map(
    pieces.flatMap((piece) => {
      const writes = ends(piece)[1];
      return writes === undefined ? [] : [[writes, piece] as const];
    }),
  );
}

function linksOf(
  pieces: readonly Piece[],
  stageOf: ReadonlyMap<Piece, number>,
  producers: ReadonlyMap<Stored, Piece>,
): CutLink[] {
  const links = new Map<
    string,
    { value: CutLink['value']; from: number; to: number; tensors: Set<Stored> }
  >();
  for (const piece of pieces) {
    const to = stageOf.get(piece)!;
    for (const x of ends(piece)[0]) {
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

/** The action that each piece of work on a microbatch is part of. */
function kindsOf(
  pieces: readonly Piece[],
  { update }: Segments,
  links: readonly CutLink[],
  split: boolean,
): Map<Piece, ActionKind> {
  const kinds = new Map<Piece, ActionKind>();
  const awaited = new Set(links.flatMap(({ tensors }) => tensors)); // by other stages, or by an input gradient
  for (const piece of pieces.toReversed()) {
    const [reads, writes] = ends(piece);
    const isInput = phaseOf(piece) === 'I' || (writes !== undefined && awaited.has(writes));
    if (isForward(piece) || update === undefined) kinds.set(piece, 'forward');
    else if (!split) kinds.set(piece, 'backward');
    else kinds.set(piece, isInput ? 'inputGradient' : 'weightGradient');
    if (kinds.get(piece) === 'inputGradient') for (const x of reads) awaited.add(x);
  }
  return kinds;
}

function actionsOf({ update }: Segments, kinds: ReadonlyMap<Piece, ActionKind>): ActionKind[] {
  if (update === undefined) return ['forward'];
  return new Set(kinds.values()).has('backward')
    ? ['forward', 'backward']
    : ['forward', 'inputGradient', 'weightGradient'];
}

const HANDED_ON = { forward: 'activation', inputGradient: 'gradient', backward: 'gradient' } as const;

interface Own {
  readonly stage: number;
  readonly unit: number;
  readonly levels: readonly Level[];
  readonly links: readonly CutLink[];
  readonly kinds: ReadonlyMap<Piece, ActionKind>;
  readonly update: UpdateCut;
  readonly inParts: boolean;
}

function cutStage(sharded: Sharded, { whole, stageOf }: Placed, own: Own): CutStage {
  const { stage, unit, links, kinds, update, inParts } = own;
  const before = whole.stages.slice(0, whole.update);
  const pieces = [...stageOf.keys()].filter((piece) => stageOf.get(piece) === stage);
  const exchanges = before.flatMap(({ gather, keep }) => (inParts ? keep : gather));
  const { graph, levels } = update.units[unit]!;
  const published = new Set<Stored>([
    ...exchanges.map((node) => stored(node.inputs.x!)),
    ...Object.values(graph.outputs).map(stored),
  ]);
  const action = (kind: ActionKind): Segment[] => {
    const isOwn = (piece: Piece): boolean => stageOf.get(piece) === stage && kinds.get(piece) === kind;
    const value = kind === 'weightGradient' ? undefined : HANDED_ON[kind];
    const handed = (end: 'from' | 'to'): Stored[] => [
      ...new Set(
        links.filter((link) => link[end] === stage && link.value === value).flatMap((link) => link.tensors),
      ),
    ];
    const ownLevels = own.levels
      .map((level) => filtered(level, isOwn))
      .filter(({ once, leaf, gather }) => once.length + leaf.length + gather.length > 0)
      .reduce(joined, []);
    const last = ownLevels.at(-1)?.gather.map(({ node }) => node) ?? [];
    const more = last.some((node) => published.has(node)) ? [NO_WORK] : []; // from there on it is known
    const all = [...ownLevels, ...more].map((level, i, each): Segment => {
      const known = new Set<Stored | undefined>(each[i - 1]?.gather.map(({ node }) => node));
      for (const work of [...level.once, ...level.leaf]) known.add(touched(work)[1]);
      const now = exchanges.filter((node) => known.has(stored(node.inputs.x!)));
      return {
        once: [...level.once],
        leaf: [...level.leaf],
        gather: inParts ? level.gather.map(({ node }) => node) : now,
        keep: inParts ? now : [],
      };
    });
    if (all.length === 0) all.push(EMPTY);
    all[0] = { ...all[0]!, receive: handed('to') };
    all[all.length - 1] = { ...all.at(-1)!, send: handed('from') };
    return all;
  };
  const kept = [...Object.values(graph.outputs), ...graph.assignments.map(({ value }) => value)].map(stored);
  const ofStep = before.flatMap(({ once }) => once).filter((work) => isOfStep(sharded, work));
  const kindsHere = actionsOf(whole, kinds);
  const actions = kindsHere.map(action);
  const starts = actions.map((_, i) => 1 + actions.slice(0, i).flat().length);
  const ranges = actions.map((one, i): Range => [starts[i]!, starts[i]! + one.length]);
  const segments = [
    { ...EMPTY, once: neededOf(ofStep, [...pieces, ...levels.flat()], kept) },
    ...actions.flat(),
    ...levels.map((works, level): Segment => {
      const shared = update.handOvers[level]!.filter(({ holders }) => holders.has(unit));
      return { ...EMPTY, once: [...works], handOver: shared.map(({ x }) => x) };
    }),
  ];
  return {
    stage,
    segments: {
      stages: segments,
      update: whole.update === undefined ? undefined : ranges.at(-1)![1],
      stageOf: indexOf(segments),
      microbatches: { actions: ranges.map(([from, to]) => [from, to - 1]), inParts },
    },
    actions: Object.fromEntries(kindsHere.map((kind, i) => [kind, ranges[i]!])),
    graph,
    sums: pieces.flatMap((piece) => (piece.kind === 'accumulate' ? piece.sum : [])),
  };
}

function filtered({ once, leaf, gather }: Level, isOwn: (piece: Piece) => boolean): Level {
  return { once: once.filter(isOwn), leaf: leaf.filter(isOwn), gather: gather.filter(isOwn) };
}

/** A level put together with the one before, where nothing of it waits for what that one gathers. */
function joined(levels: readonly Level[], next: Level): Level[] {
  const before = levels.at(-1);
  const gathered = new Set<Stored>(before?.gather.map(({ node }) => node));
  const waits = [...next.once, ...next.leaf].some((work) => touched(work)[0].some((x) => gathered.has(x)));
  if (before === undefined || waits) return [...levels, next];
  const both: Level = {
    once: [...before.once, ...next.once],
    leaf: [...before.leaf, ...next.leaf],
    gather: [...before.gather, ...next.gather],
  };
  return [...levels.slice(0, -1), both];
}

const NO_WORK: Level = { once: [], leaf: [], gather: [] };
const EMPTY: Segment = { once: [], leaf: [], gather: [], keep: [] };

/** The segment that computes a tensor; of one that is gathered the next, in which it is known. */
function indexOf(segments: readonly Segment[]): (node: Tensor) => number {
  const index = new Map<Stored, number>();
  for (const [i, { once, leaf, gather }] of segments.entries()) {
    for (const work of [...once, ...leaf]) {
      const writes = touched(work)[1];
      if (writes !== undefined) index.set(writes, i);
    }
    for (const node of gather) index.set(node, i + 1);
  }
  return (node) => index.get(node) ?? 1;
}
