/** Which stage of a pipeline runs each lowered kernel. Kernels are never changed: stages cannot change a bit. */

import { type Graph, roots, topologicalOrder } from '../../graph.ts';
import { StageError } from '../../stage-program.ts';
import type { Tensor } from '../../tensor.ts';
import { layerPattern } from '../layer-pattern.ts';
import { touched } from '../lives.ts';
import type { Work } from '../split.ts';
import { type Stored, stored } from '../stored.ts';

/** Work on a microbatch, or the gathering of what its parts computed, which is placed like work. */
export type Piece = Work | { readonly kind: 'gather'; readonly node: Tensor };

/** What a piece reads and writes. */
export function ends(piece: Piece): ReturnType<typeof touched> {
  return piece.kind === 'gather' ? [[stored(piece.node.inputs.x!)], piece.node] : touched(piece);
}

/**
 * Stages of work on a microbatch. Forward, a kernel belongs to the stage of its layer, or of what it reads if that is later;
 * backward, likewise the other way round, but no lower than the activations it reads: so activations only go up, and
 * gradients only go down.
 *
 * @throws when a pattern matches no layer, or a stage has nothing to do.
 */
export function placeWork(
  graph: Graph,
  works: readonly Piece[],
  patterns: readonly string[],
): ReadonlyMap<Piece, number> {
  const placing = new Placing(graph, patterns);
  for (const work of works) placing.place(work);
  placing.placeFromInputs(works);
  const busy = new Set(placing.stages.values());
  const idle = patterns.findIndex((_, stage) => !busy.has(stage));
  if (idle < 0) return placing.stages;
  throw new StageError(
    `stages: stage ${idle} ('${patterns[idle]}') has no work; list the stages in the order in which layers are computed`,
  );
}

class Placing {
  readonly stages = new Map<Piece, number>();
  private readonly layers: LayerStages;
  private readonly last: number;
  /** Where each tensor is computed, in the forward and in the backward pass. */
  private readonly forward = new Map<Stored, number>();
  private readonly backward = new Map<Stored, number>();

  constructor(graph: Graph, patterns: readonly string[]) {
    this.layers = new LayerStages(graph, patterns);
    this.last = patterns.length - 1;
  }

  place(work: Piece): void {
    const [reads, writes] = ends(work);
    const stage = isForward(work) ? this.forwardStage(work, reads) : this.backwardStage(work, reads);
    if (stage === undefined) return;
    this.stages.set(work, stage);
    if (writes !== undefined) (isForward(work) ? this.forward : this.backward).set(writes, stage);
  }

  /** What is made of inputs alone is made where it is first needed. */
  placeFromInputs(works: readonly Piece[]): void {
    for (const work of works.toReversed()) {
      if (this.stages.has(work)) continue;
      const writes = ends(work)[1]!;
      const readers = works.filter((other) => ends(other)[0].includes(writes));
      this.stages.set(work, Math.min(this.last, ...readers.map((reader) => this.stages.get(reader)!)));
    }
  }

  private forwardStage(work: Piece, reads: readonly Stored[]): number | undefined {
    const inputs = reads.flatMap((x) => this.forward.get(x) ?? []);
    const own = this.layers.ofForward(mainOf(work));
    const stages = own === undefined ? inputs : [own, ...inputs];
    return stages.length === 0 ? undefined : Math.max(...stages);
  }

  private backwardStage(work: Piece, reads: readonly Stored[]): number {
    const from = Math.min(this.last, ...reads.flatMap((x) => this.backward.get(x) ?? []));
    if (work.kind === 'accumulate' || work.kind === 'finish') return from;
    const activations = reads.flatMap((x) => this.forward.get(x) ?? []);
    const own = this.layers.ofPath(mainOf(work).path);
    const stages = own === undefined ? activations : [own, ...activations];
    return stages.length === 0 ? from : Math.min(from, Math.max(...stages));
  }
}

/** The phase of a kernel or a gathering. */
export function phaseOf(piece: Piece): Tensor['phase'] | undefined {
  if (piece.kind === 'kernel') return piece.kernel.node.phase;
  return piece.kind === 'gather' ? piece.node.phase : undefined;
}

export const isForward = (piece: Piece): boolean => phaseOf(piece) === 'F';

function mainOf(piece: Piece): Tensor {
  if (piece.kind === 'kernel') return piece.kernel.main;
  return piece.kind === 'gather' ? piece.node : piece.sum;
}

/** Stages of layers: as the patterns say, and where they say nothing, of what the layer reads. */
class LayerStages {
  private readonly patterns: readonly (readonly RegExp[])[];
  private readonly nodes = new Map<Tensor, number>();
  private readonly paths = new Map<string, number>();

  constructor(graph: Graph, patterns: readonly string[]) {
    this.patterns = patterns.map((pattern) => pattern.split('|').map(layerPattern));
    const forward = topologicalOrder(roots(graph)).filter(
      ({ phase, op }) => phase === 'F' && op.kernel.kind !== 'source',
    );
    this.checkPatterns(patterns, new Set(forward.map(({ path }) => path)));
    for (const node of forward) {
      const own = this.named(node.path);
      const inputs = Object.values(node.inputs).flatMap((source) => this.nodes.get(source) ?? []);
      const stages = own === undefined ? inputs : [own, ...inputs];
      if (stages.length === 0) continue;
      const stage = Math.max(...stages);
      this.nodes.set(node, stage);
      this.paths.set(node.path, Math.max(stage, this.paths.get(node.path) ?? 0));
    }
  }

  /** Undefined for what is made of inputs alone. */
  ofForward(node: Tensor): number | undefined {
    return this.nodes.get(node);
  }

  ofPath(path: string): number | undefined {
    return this.paths.get(path) ?? this.named(path);
  }

  /** The last stage that names a layer has it: `tower` and, in a later stage, `tower.3`. */
  private named(path: string): number | undefined {
    const stage = this.patterns.findLastIndex((any) => any.some((pattern) => pattern.test(path)));
    return stage < 0 ? undefined : stage;
  }

  private checkPatterns(patterns: readonly string[], paths: ReadonlySet<string>): void {
    for (const pattern of patterns.flatMap((any) => any.split('|'))) {
      if ([...paths].some((path) => layerPattern(pattern).test(path))) continue;
      const depth = pattern.split('.').length;
      const layers = new Set([...paths].map((path) => path.split('.').slice(0, depth).join('.')));
      layers.delete('');
      throw new StageError(
        `stages: no layer matches '${pattern}'; there are ${[...layers].slice(0, 40).join(', ')}`,
      );
    }
  }
}
