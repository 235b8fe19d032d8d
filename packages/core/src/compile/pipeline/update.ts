/** Cuts the update: each stage or rank moves its own parameters, and gives others what they need of them, such as norms. */

import type { Assignment, Graph } from '../../graph.ts';
import type { Parameter } from '../../parameter.ts';
import { byteLength } from '../../tensor.ts';
import type { Sharded } from '../layout.ts';
import { touched } from '../lives.ts';
import type { Work } from '../split.ts';
import { type Stored, stored } from '../stored.ts';
import type { Placed } from './cut.ts';
import { ends, type Piece } from './place.ts';
import { type UpdateUnits, unitsOf } from './units.ts';

/** Some of the units that divide an update: stages, or ranks. */
export type Units = readonly number[];

export interface UpdateCut {
  readonly units: readonly UnitUpdate[];
  /** After each level of the update, what units compute for others. */
  readonly handOvers: readonly (readonly CutHandOver[])[];
  /** The units that assign each parameter: one, unless several compute its value. */
  readonly owners: ReadonlyMap<Parameter, Units>;
}

export interface UnitUpdate {
  /** Outputs and assignments of this unit. */
  readonly graph: Graph;
  /** Its work between two hand-overs. */
  readonly levels: readonly (readonly Work[])[];
}

export interface CutHandOver {
  readonly x: Stored;
  readonly from: number;
  /** The units that give or take it. */
  readonly holders: ReadonlySet<number>;
}

/** Who has what the update begins with. */
export interface UpdateOrigins {
  readonly works: readonly Work[];
  readonly count: number;
  /** The units that know a gradient sum or a gathered tensor, where not all do. */
  readonly known: ReadonlyMap<Stored, Units>;
  /** Who assigns a parameter, or has an output; `home`: the units that can do work, where not all can. */
  assignersOf(assignment: Assignment, homes: ReadonlyMap<Work, Units>): Units;
  holdersOf(output: Stored, home: Units | undefined): Units;
}

/** Cuts the update of a pipeline. */
export function cutUpdate({ graph }: Sharded, placed: Placed, units: UpdateUnits): UpdateCut {
  const { whole, stageOf, producers } = placed;
  const works = whole.update === undefined ? [] : whole.stages[whole.update]!.once;
  const of = (stage: number): Units => unitsOf(units, stage);
  const known = new Map<Stored, Units>([...units.owners].map(([sum, owner]) => [sum, [owner]]));
  const stageThatMakes = (x: Stored): number | undefined => {
    const work = producers.get(x);
    return work === undefined ? undefined : stageOf.get(work);
  };
  for (const { gather, keep } of whole.stages.slice(0, whole.update)) {
    for (const node of [...gather, ...keep]) {
      const stage = stageThatMakes(stored(node.inputs.x!));
      if (stage !== undefined) known.set(node, of(stage));
    }
  }
  const last = placed.count - 1;
  return divideUpdate(graph, {
    works,
    count: units.stages.length,
    known,
    assignersOf: ({ parameter, value }, homes) => {
      const made = stageThatMakes(stored(value));
      if (made !== undefined) return of(made);
      const uses = (piece: Piece): boolean =>
        ends(piece)[0].some((x) => x === parameter || x === stored(value));
      const readers = works.filter(uses).flatMap((work) => homes.get(work) ?? []);
      const stages = [
        ...[...stageOf].flatMap(([piece, stage]) => (uses(piece) ? stage : [])),
        ...readers.map((unit) => units.stages[unit]!),
      ];
      return of(Math.min(last, ...stages));
    },
    holdersOf: (x, home) => of(stageThatMakes(x) ?? (home === undefined ? last : units.stages[home[0]!]!)),
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
  /** The units that can do work, and each do it if they need it; all where there are none. */
  private readonly homes = new Map<Work, Units>();
  private readonly needed: readonly Set<Work>[];
  /** Units that need what is computed elsewhere. */
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
    const graphOf = (unit: number): Graph => ({
      outputs: Object.fromEntries(Object.entries(outputs).filter((_, i) => holders[i]!.includes(unit))),
      assignments: assignments.filter(({ parameter }) => owners.get(parameter)!.includes(unit)),
    });
    return {
      owners,
      handOvers: levels.map((level) => this.handOversAt(level)),
      units: this.levels.map((of, unit) => ({
        graph: graphOf(unit),
        levels: levels.map((level) => this.origins.works.filter((work) => of.get(work) === level)),
      })),
    };
  }

  private findHomes(): void {
    for (const work of this.origins.works) {
      const [reads, writes] = touched(work);
      const from = work.kind === 'finish' ? [work.sum] : reads;
      const homes = from.flatMap((x) => {
        const home = this.homeOf(x);
        return home === undefined ? [] : [home];
      });
      if (homes.length > 0) {
        const all = homes.reduce((common, home) => common.filter((unit) => home.includes(unit)));
        const home = all.length > 0 ? all : this.homeOfLargest(from);
        if (home !== undefined) this.homes.set(work, home);
      }
      const sources = reads.flatMap((x) => this.writers.get(x) ?? []);
      this.sources.set(work, sources);
      this.writers.set(writes!, work);
    }
  }

  private homeOf(x: Stored): Units | undefined {
    const writer = this.writers.get(x);
    return writer === undefined ? this.origins.known.get(x) : this.homes.get(writer);
  }

  /** Who has the largest tensor that is read, so that norms go to gradients; nobody where several have one as large. */
  private homeOfLargest(reads: readonly Stored[]): Units | undefined {
    const read = reads.filter((x) => this.homeOf(x) !== undefined);
    const most = Math.max(...read.map(byteLength));
    const units = new Set(read.filter((x) => byteLength(x) === most).map((x) => this.homeOf(x)![0]!));
    return units.size === 1 ? [...units] : undefined;
  }

  /** The units that assign a parameter: those that can compute its new value, or else some that know it. */
  private ownersOf(assignment: Assignment): Units {
    const { parameter, value } = assignment;
    const work = this.writers.get(stored(value)) ?? this.writers.get(parameter);
    const home = work && this.homes.get(work);
    return home ?? this.origins.assignersOf(assignment, this.homes);
  }

  private holdersOf(x: Stored): Units {
    const work = this.writers.get(x);
    return this.origins.holdersOf(x, work && this.homes.get(work));
  }

  private needTensor(x: Stored, units: Units): void {
    const work = this.writers.get(x);
    if (work !== undefined) for (const unit of units) this.need(work, unit);
  }

  /** Who does work that a unit needs: itself, or else the first that can. */
  private doerOf(work: Work, unit: number): number {
    const home = this.homes.get(work);
    return home === undefined || home.includes(unit) ? unit : home[0]!;
  }

  /** A unit needs the result of work: it does it, or has the result handed over. */
  private need(work: Work, unit: number): void {
    const doer = this.doerOf(work, unit);
    if (doer !== unit) this.handed.set(work, (this.handed.get(work) ?? new Set()).add(unit));
    if (this.needed[doer]!.has(work)) return;
    this.needed[doer]!.add(work);
    for (const source of this.sources.get(work)!) this.need(source, doer);
  }

  /** How many hand-overs come before a unit's work. */
  private findLevels(): void {
    for (const work of this.origins.works) {
      const writes = touched(work)[1]!;
      for (const [unit, needed] of this.needed.entries()) {
        if (!needed.has(work)) continue;
        const levels = this.levels[unit]!;
        const after = this.sources.get(work)!.map((source) => this.levelOf(source, unit));
        const readBefore = [...levels].filter(([other]) => touched(other)[0].includes(writes)); // then overwritten
        levels.set(work, Math.max(0, ...after, ...readBefore.map(([, level]) => level)));
      }
    }
  }

  private levelOf(work: Work, unit: number): number {
    const doer = this.doerOf(work, unit);
    const level = this.levels[doer]!.get(work)!;
    return doer === unit ? level : level + 1;
  }

  private handOversAt(level: number): CutHandOver[] {
    return [...this.handed].flatMap(([work, readers]) => {
      const from = this.homes.get(work)![0]!;
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
