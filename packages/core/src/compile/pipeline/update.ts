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
  /** The stage that assigns each parameter. */
  readonly owners: ReadonlyMap<Parameter, number>;
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

export function cutUpdate(sharded: Sharded, placed: Placed): UpdateCut {
  return new UpdateCutting(sharded, placed).cut();
}

class UpdateCutting {
  private readonly graph: Graph;
  private readonly placed: Placed;
  private readonly works: readonly Work[];
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

  constructor({ graph }: Sharded, placed: Placed) {
    this.graph = graph;
    this.placed = placed;
    const { whole, count } = placed;
    this.works = whole.update === undefined ? [] : whole.stages[whole.update]!.once;
    this.needed = Array.from({ length: count }, () => new Set());
    this.levels = Array.from({ length: count }, () => new Map());
  }

  cut(): UpdateCut {
    this.findHomes();
    const { outputs, assignments } = this.graph;
    const owners = new Map(assignments.map((one) => [one.parameter, this.ownerOf(one)]));
    const outputStages = Object.values(outputs).map((x) => this.outputStage(stored(x)));
    for (const { parameter, value } of assignments)
      for (const x of [stored(value), parameter]) this.needTensor(x, owners.get(parameter)!);
    for (const [i, x] of Object.values(outputs).entries()) this.needTensor(stored(x), outputStages[i]!);
    this.findLevels();
    const count = 1 + Math.max(-1, ...this.levels.flatMap((of) => [...of.values()]));
    const levels = Array.from({ length: count }, (_, level) => level);
    const graphOf = (stage: number): Graph => ({
      outputs: Object.fromEntries(Object.entries(outputs).filter((_, i) => outputStages[i] === stage)),
      assignments: assignments.filter(({ parameter }) => owners.get(parameter) === stage),
    });
    return {
      owners,
      handOvers: levels.map((level) => this.handOversAt(level)),
      stages: this.levels.map((of, stage) => ({
        graph: graphOf(stage),
        levels: levels.map((level) => this.works.filter((work) => of.get(work) === level)),
      })),
    };
  }

  private findHomes(): void {
    const { whole, stageOf, ofLayer, producers } = this.placed;
    const origins = new Map<Stored, number>(); // of gathered tensors and gradient sums
    for (const { leaf, gather, keep } of whole.stages.slice(0, whole.update)) {
      for (const work of leaf) if (work.kind === 'accumulate') origins.set(work.sum, stageOf.get(work)!);
      for (const node of [...gather, ...keep]) {
        const work = producers.get(stored(node.inputs.x!));
        if (work !== undefined) origins.set(node, stageOf.get(work)!);
      }
    }
    for (const work of this.works) {
      const [reads, writes] = touched(work);
      const sources = reads.flatMap((x) => this.writers.get(x) ?? []);
      const known = work.kind === 'finish' ? [work.sum] : reads;
      const stages = new Set([
        ...known.flatMap((x) => origins.get(x) ?? []),
        ...sources.flatMap((source) => this.homes.get(source) ?? []),
      ]);
      this.sources.set(work, sources);
      this.writers.set(writes!, work);
      const layer = work.kind === 'kernel' ? ofLayer(work.kernel.node.path) : undefined;
      if (stages.size === 1) this.homes.set(work, [...stages][0]!);
      else if (layer !== undefined && stages.has(layer)) this.homes.set(work, layer);
    }
  }

  /** The stage that assigns a parameter: where its new value is computed, or else one that reads it. */
  private ownerOf({ parameter, value }: Assignment): number {
    const { stageOf, producers, count } = this.placed;
    const work = this.writers.get(stored(value)) ?? this.writers.get(parameter);
    const made = producers.get(stored(value));
    const home = work === undefined ? made && stageOf.get(made) : this.homes.get(work);
    if (home !== undefined) return home;
    const uses = (piece: Piece): boolean =>
      ends(piece)[0].some((x) => x === parameter || x === stored(value));
    const stages = [
      ...[...stageOf].flatMap(([piece, stage]) => (uses(piece) ? stage : [])),
      ...this.works.filter(uses).flatMap((reader) => this.homes.get(reader) ?? []),
    ];
    return Math.min(count - 1, ...stages);
  }

  private outputStage(x: Stored): number {
    const { stageOf, producers, count } = this.placed;
    const made = producers.get(x);
    const work = this.writers.get(x);
    const home = made === undefined ? work && this.homes.get(work) : stageOf.get(made);
    return home ?? count - 1;
  }

  private needTensor(x: Stored, stage: number): void {
    const work = this.writers.get(x);
    if (work !== undefined) this.need(work, stage);
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
    for (const work of this.works) {
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
