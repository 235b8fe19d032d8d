import type { Graph } from '../graph.ts';
import { Parameter } from '../parameter.ts';
import type { SlotScope } from '../program.ts';
import type { Tensor } from '../tensor.ts';
import { isShared, type Sharded } from './layout.ts';
import type { Microbatches, Stages, Work } from './split.ts';
import { nodeOf, type Stored, stored } from './stored.ts';

/** What takes memory: a stored tensor or, by name, the gradient sums and leaves' outputs. */
export type Storage = Stored | string;

/** First and last position of a piece of storage, and where it lives. */
export interface Range {
  scope: SlotScope;
  first: number;
  last: number;
}

/**
 * Live ranges of everything stored, in positions of the program: the work of a stage in order, first what runs once,
 * then what runs for a leaf.
 */
export function liveRanges(sharded: Sharded, stages: Stages): Map<Storage, Range> {
  return new Lives(sharded, stages).measure();
}

/** Outputs of which a stage computes a piece: a leaf's, or where leaves share it a sequence's. */
export function pieceOutputs(
  { graph, layouts }: Sharded,
  stages: Stages,
  stage: Stages['stages'][number],
): { readonly value: Tensor; readonly key: string; readonly shared: boolean }[] {
  const index = stages.stages.indexOf(stage);
  return Object.entries(graph.outputs)
    .filter(([, value]) => layouts.get(value) !== 'whole' && stages.stageOf(stored(value)) === index)
    .map(([name, value]) => ({ value, key: `output ${name}`, shared: isShared(layouts.get(value)) }));
}

class Lives {
  private readonly sharded: Sharded;
  private readonly stages: Stages;
  private readonly assigned: ReadonlySet<Tensor>;
  private readonly ranges = new Map<Storage, Range>();

  constructor(sharded: Sharded, stages: Stages) {
    this.sharded = sharded;
    this.stages = stages;
    this.assigned = new Set(sharded.graph.assignments.map(({ value }) => value));
  }

  measure(): Map<Storage, Range> {
    const { graph, layouts } = this.sharded;
    let position = 0;
    for (const node of sourcesOf(graph, this.stages)) {
      if (node instanceof Parameter) this.touch(node, 'state', 0);
      else
        this.touch(node, layouts.get(node) === 'batch' ? 'leaf' : this.sequenceScope, 0).last =
          Number.POSITIVE_INFINITY;
    }
    if (this.stages.stages.some(({ leaf }) => leaf.some(({ kind }) => kind === 'accumulate')))
      for (const key of ['sums', 'peaks', 'scales'])
        this.touch(key, 'shared', 0).last = Number.POSITIVE_INFINITY;
    for (const stage of this.stages.stages) {
      for (const work of stage.once) this.visit(work, 'shared', ++position, position);
      const start = position + 1;
      const end = position + stage.leaf.length + 1;
      for (const x of stage.receive ?? []) this.touch(x, this.handedScope(x), start);
      for (const work of stage.leaf) this.visit(work, 'scratch', ++position, end);
      for (const node of stage.gather) {
        this.touch(stored(node.inputs.x!), 'scratch', end);
        this.touch(node, 'shared', start).last = end;
      }
      for (const x of stage.send ?? []) this.keepForAll(this.touch(x, this.handedScope(x), end));
      for (const x of stage.handOver ?? []) this.touch(x, 'shared', end);
      for (const node of stage.keep) {
        this.touch(stored(node.inputs.x!), 'shared', start);
        this.touch(node, 'shared', 0); // round after round adds to it, until the update, which may be another rank's
        this.touch(node, 'shared', this.lengthOf(this.stages.update ?? this.stages.stages.length) + 1);
      }
      for (const { value, key, shared } of pieceOutputs(this.sharded, this.stages, stage)) {
        this.touch(stored(value), shared ? 'shared' : 'scratch', end);
        this.touch(key, 'shared', 0).last = Number.POSITIVE_INFINITY;
      }
      position = end;
    }
    for (const value of Object.values(graph.outputs)) {
      if (layouts.get(value) === 'whole')
        this.touch(stored(value), 'shared', position).last = Number.POSITIVE_INFINITY;
    }
    this.keepAcrossStages();
    if (this.stages.microbatches !== undefined) this.keepAcrossActions(this.stages.microbatches);
    if (this.stages.sideBySide === true) this.keepOfEachSequence();
    return this.ranges;
  }

  /** Where what leaves of a sequence share is kept while the sequence is on its way. */
  private get sequenceScope(): SlotScope {
    return this.stages.microbatches === undefined && this.stages.sideBySide !== true ? 'shared' : 'sequence';
  }

  /** Where a tensor is kept that goes from stage to stage, with all leaves of its microbatch together. */
  private handedScope(x: Stored): SlotScope {
    if (isShared(this.sharded.layouts.get(nodeOf(x)))) return 'shared';
    return this.stages.microbatches!.inParts ? 'part' : 'scratch';
  }

  private keepForAll(range: Range): void {
    if (range.scope === 'scratch' && this.stages.microbatches!.inParts) range.scope = 'part';
  }

  private visit(work: Work, scope: SlotScope, position: number, sharedUntil: number): void {
    const [reads, writes] = touched(work);
    for (const x of reads) {
      const range = this.touch(x, scope, position);
      if (range.scope === 'shared') range.last = Math.max(range.last, sharedUntil);
    }
    if (writes !== undefined) this.touch(writes, scope, position);
  }

  private touch(x: Storage, scope: SlotScope, position: number): Range {
    const known = this.ranges.get(x);
    if (known !== undefined) {
      known.last = Math.max(known.last, position);
      return known;
    }
    const isNext = typeof x !== 'string' && !('of' in x) && this.assigned.has(x);
    const range = { scope: isNext ? ('next' as const) : scope, first: position, last: position };
    this.ranges.set(x, range);
    return range;
  }

  /** A leaf's tensor that is read in a later stage is kept for each leaf; one that is not is scratch. */
  private keepAcrossStages(): void {
    let position = 0;
    for (const stage of this.stages.stages) {
      const end = position + stage.once.length + stage.leaf.length + 1;
      for (const range of this.ranges.values()) {
        if (range.scope === 'scratch' && range.first > position && range.first <= end && range.last > end)
          range.scope = 'leaf';
      }
      position = end;
    }
  }

  /** Where sequences go side by side, each has a place for what its leaves share before the update. */
  private keepOfEachSequence(): void {
    const last = this.lengthOf(this.stages.update ?? this.stages.stages.length);
    for (const range of this.ranges.values())
      if (range.scope === 'shared' && range.first > 0 && range.last <= last) range.scope = 'sequence';
  }

  /** Positions of the stages before one. */
  private lengthOf(to: number): number {
    return this.stages.stages
      .slice(0, to)
      .reduce((total, { once, leaf }) => total + once.length + leaf.length + 1, 0);
  }

  /**
   * Where actions on microbatches take turns, one may be in a later action before another is in an earlier one: what all
   * share, or gather for the update, lives as long as any of them; what is of one sequence and read in another action has
   * a place for each. Nothing comes between the stages of one action.
   */
  private keepAcrossActions({ actions, inParts }: Microbatches): void {
    const spans = actions.map(([from, to]) => [this.lengthOf(from) + 1, this.lengthOf(to + 1)] as const);
    const [[first], [, last]] = [spans[0]!, spans.at(-1)!];
    for (const range of this.ranges.values()) {
      if (range.last < first || range.first > last) continue;
      const inOne = spans.some(([from, to]) => range.first >= from && range.last <= to);
      if (range.scope === 'leaf' && inOne && inParts) range.scope = 'part';
      if (range.scope === 'part' && !inOne) range.scope = 'leaf';
      if (range.scope !== 'shared' || (inOne && inParts)) continue;
      if (inParts && range.first >= first && range.last <= last) range.scope = 'sequence';
      else {
        range.first = Math.min(range.first, first);
        range.last = Math.max(range.last, last);
      }
    }
  }
}

/** The inputs and parameters that work, outputs or assignments use, in the order of their making. */
export function sourcesOf({ outputs, assignments }: Graph, { stages }: Stages): Tensor[] {
  const used = new Set<Stored>([
    ...stages.flatMap(({ once, leaf }) => [...once, ...leaf]).flatMap((work) => touched(work)[0]),
    ...stages.flatMap(({ gather, keep }) => [...gather, ...keep]).map((node) => stored(node.inputs.x!)),
    ...Object.values(outputs).map(stored),
  ]);
  const read = [...used].flatMap((x) =>
    !('of' in x) && (x instanceof Parameter || x.op.name === 'input') ? [x] : [],
  );
  const assigned = assignments.map(({ parameter }) => parameter).filter((parameter) => !used.has(parameter));
  return [...read.sort((a, b) => a.id - b.id), ...assigned];
}

/** What work reads and writes. */
export function touched(work: Work): readonly [reads: readonly Stored[], writes: Stored | undefined] {
  if (work.kind === 'kernel') return [work.kernel.reads, work.kernel.writes];
  return work.kind === 'accumulate' ? [[stored(work.sum.inputs.x!)], undefined] : [[], work.sum];
}
