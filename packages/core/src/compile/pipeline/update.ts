/** Cuts the update: each stage moves its own parameters, and gives others what they need of them, such as norms. */

import type { Assignment, Graph } from '../../graph.ts';
import type { Parameter } from '../../parameter.ts';
import type { Sharded } from '../layout.ts';
import { touched } from '../lives.ts';
import type { Work } from '../split.ts';
import { type Stored, stored } from '../stored.ts';
import type { Placed } from './cut.ts';
import { ends, type Piece } from './place.ts';

export interface UpdateCut {
  readonly stages: readonly StageUpdate[];
  /** After each level of the update, what stages compute for others. */
  readonly handOvers: readonly (readonly CutHandOver[])[];
  /** The stages that assign each parameter: one, unless all compute its value. */
  readonly owners: ReadonlyMap<Parameter, readonly number[]>;
}

export interface StageUpdate {
  /** Outputs and assignments of this stage. */
  readonly graph: Graph;
  /** Its work between two hand-overs. */
  readonly levels: readonly (readonly Work[])[];
}

export interface CutHandOver {
  readonly x: Stored;
  readonly from: number;
  /** The stages that compute or read it. */
  readonly holders: ReadonlySet<number>;
}

/** Who has what the update begins with. */
export interface UpdateOrigins {
  readonly works: readonly Work[];
  readonly count: number;
  /** The stage that knows a gradient sum or a gathered tensor, where not all do. */
  readonly known: ReadonlyMap<Stored, number>;
  /** Which of several stages does work that reads what they compute; each that needs it where undefined. */
  choose(work: Work, homeOf: (x: Stored) => number | undefined): number | undefined;
  /** Who assigns a parameter, or has an output, that no work of a single stage computes. */
  assignersOf(assignment: Assignment, homes: ReadonlyMap<Work, number>): readonly number[];
  holdersOf(output: Stored, home: number | undefined): readonly number[];
}

/** Cuts the update of a pipeline. */
export function cutUpdate({ graph }: Sharded, placed: Placed): UpdateCut {
  const { whole, stageOf, ofLayer, producers, count } = placed;
  const works = whole.update === undefined ? [] : whole.stages[whole.update]!.once;
  const known = new Map<Stored, number>();
  for (const { leaf, gather, keep } of whole.stages.slice(0, whole.update)) {
    for (const work of leaf) if (work.kind === 'accumulate') known.set(work.sum, stageOf.get(work)!);
    for (const node of [...gather, ...keep]) {
      const work = producers.get(stored(node.inputs.x!));
      if (work !== undefined) known.set(node, stageOf.get(work)!);
    }
  }
  const stageThatMakes = (x: Stored): number | undefined => {
    const work = producers.get(x);
    return work === undefined ? undefined : stageOf.get(work);
  };
  return divideUpdate(graph, {
    works,
    count,
    known,
    choose: (work) => (work.kind === 'kernel' ? ofLayer(work.kernel.node.path) : undefined),
    assignersOf: ({ parameter, value }, homes) => {
      const made = stageThatMakes(stored(value));
      if (made !== undefined) return [made];
      const uses = (piece: Piece): boolean =>
        ends(piece)[0].some((x) => x === parameter || x === stored(value));
      const stages = [
        ...[...stageOf].flatMap(([piece, stage]) => (uses(piece) ? stage : [])),
        ...works.filter(uses).flatMap((reader) => homes.get(reader) ?? []),
      ];
      return [Math.min(count - 1, ...stages)];
    },
    holdersOf: (x, home) => [stageThatMakes(x) ?? home ?? count - 1],
  });
}

/** Cuts the update where it is known who has what it begins with. */
export function divideUpdate(graph: Graph, origins: UpdateOrigins): UpdateCut {
  return new UpdateCutting(graph, origins).cut();
}

class UpdateCutting {
  private readonly graph: Graph;
  private readonly origins: UpdateOrigins;
  /** For each work the works that compute what it reads. */
  private readonly sources = new Map<Work, readonly Work[]>();
  /** The last work that writes a tensor. */
  private readonly writers = new Map<Stored, Work>();
  /** Where work is done; what several stages have a part in, each that needs it does. */
  private readonly homes = new Map<Work, number>();
  private readonly needed: readonly Set<Work>[];
  /** Stages that need what is computed elsewhere. */
  private readonly handed = new Map<Work, Set<number>>();
  private readonly levels: readonly Map<Work, number>[];

  constructor(graph: Graph, origins: UpdateOrigins) {
    this.graph = graph;
    this.origins = origins;
    const { count } = origins;
    this.needed = Array.from({ length: count }, () => new Set());
    this.levels = Array.from({ length: count }, () => new Map());
  }

  cut(): UpdateCut {
    this.findHomes();
    const { outputs, assignments } = this.graph;
    const owners = new Map(assignments.map((one) => [one.parameter, this.ownersOf(one)]));
    const holders = Object.values(outputs).map((x) => this.holdersOf(stored(x)));
    for (const { parameter, value } of assignments)
      for (const x of [stored(value), parameter]) this.needTensor(x, owners.get(parameter)!);
    for (const [i, x] of Object.values(outputs).entries()) this.needTensor(stored(x), holders[i]!);
    this.findLevels();
    const count = 1 + Math.max(-1, ...this.levels.flatMap((of) => [...of.values()]));
    const levels = Array.from({ length: count }, (_, level) => level);
    const graphOf = (stage: number): Graph => ({
      outputs: Object.fromEntries(Object.entries(outputs).filter((_, i) => holders[i]!.includes(stage))),
      assignments: assignments.filter(({ parameter }) => owners.get(parameter)!.includes(stage)),
    });
    return {
      owners,
      handOvers: levels.map((level) => this.handOversAt(level)),
      stages: this.levels.map((of, stage) => ({
        graph: graphOf(stage),
        levels: levels.map((level) => this.origins.works.filter((work) => of.get(work) === level)),
      })),
    };
  }

  private findHomes(): void {
    const { works, known } = this.origins;
    const homeOf = (x: Stored): number | undefined => {
      const writer = this.writers.get(x);
      return writer === undefined ? known.get(x) : this.homes.get(writer);
    };
    for (const work of works) {
      const [reads, writes] = touched(work);
      const stages = new Set((work.kind === 'finish' ? [work.sum] : reads).flatMap((x) => homeOf(x) ?? []));
      const chosen = stages.size > 1 ? this.origins.choose(work, homeOf) : [...stages][0];
      if (chosen !== undefined && stages.has(chosen)) this.homes.set(work, chosen);
      const sources = reads.flatMap((x) => this.writers.get(x) ?? []);
      this.sources.set(work, sources);
      this.writers.set(writes!, work);
    }
  }

  /** The stages that assign a parameter: the one where its new value is computed, or else some that know it. */
  private ownersOf(assignment: Assignment): readonly number[] {
    const { parameter, value } = assignment;
    const work = this.writers.get(stored(value)) ?? this.writers.get(parameter);
    const home = work && this.homes.get(work);
    return home === undefined ? this.origins.assignersOf(assignment, this.homes) : [home];
  }

  private holdersOf(x: Stored): readonly number[] {
    const work = this.writers.get(x);
    return this.origins.holdersOf(x, work && this.homes.get(work));
  }

  private needTensor(x: Stored, stages: readonly number[]): void {
    const work = this.writers.get(x);
    if (work !== undefined) for (const stage of stages) this.need(work, stage);
  }

  /** A stage needs the result of work: it does it, or has the result handed over. */
  private need(work: Work, stage: number): void {
    const home = this.homes.get(work) ?? stage;
    if (home !== stage) this.handed.set(work, (this.handed.get(work) ?? new Set()).add(stage));
    if (this.needed[home]!.has(work)) return;
    this.needed[home]!.add(work);
    for (const source of this.sources.get(work)!) this.need(source, home);
  }

  /** How many hand-overs come before a stage's work. */
  private findLevels(): void {
    for (const work of this.origins.works) {
      const writes = touched(work)[1]!;
      for (const [stage, needed] of this.needed.entries()) {
        if (!needed.has(work)) continue;
        const levels = this.levels[stage]!;
        const after = this.sources.get(work)!.map((source) => this.levelOf(source, stage));
        const readBefore = [...levels].filter(([other]) => touched(other)[0].includes(writes)); // then overwritten
        levels.set(work, Math.max(0, ...after, ...readBefore.map(([, level]) => level)));
      }
    }
  }

  private levelOf(work: Work, stage: number): number {
    const home = this.homes.get(work) ?? stage;
    const level = this.levels[home]!.get(work)!;
    return home === stage ? level : level + 1;
  }

  private handOversAt(level: number): CutHandOver[] {
    return [...this.handed].flatMap(([work, readers]) => {
      const from = this.homes.get(work)!;
      if (this.levels[from]!.get(work) !== level) return [];
      return [{ x: touched(work)[1]!, from, holders: new Set([from, ...readers]) }];
    });
  }
}

/** What of `works` the others, and what is kept at the end, need. */
export function neededOf(works: readonly Work[], others: readonly Piece[], kept: readonly Stored[]): Work[] {
  const wanted = new Set<Stored>([...kept, ...others.flatMap((piece) => ends(piece)[0])]);
  const needed: Work[] = [];
  for (const work of works.toReversed()) {
    const [reads, writes] = touched(work);
    if (writes === undefined || !wanted.has(writes)) continue;
    needed.unshift(work);
    for (const x of reads) wanted.add(x);
  }
  return needed;
}
