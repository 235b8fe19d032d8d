/** What a step has to do, layer by layer: the ground on which plans for several devices are compared. */
import { roots, topologicalOrder } from '../graph.ts';
import { elementCount } from '../host-tensor.ts';
import { type GatherAttrs, parameterOf } from '../ops/leaf-sum.ts';
import { Parameter } from '../parameter.ts';
import type { Activations, SlotScope } from '../program.ts';
import type { Phase } from '../scope.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { planParts } from './build.ts';
import { type BuildOptions, type Traceable, traced } from './compile.ts';
import { partsOf } from './layout.ts';
import { liveRanges } from './lives.ts';
import type { Lowered } from './lower.ts';
import { multiplyAdds } from './multiply-adds.ts';
import { sumLabel, type Work } from './split.ts';
import { nodeOf, type Stored, stored } from './stored.ts';

/** One kernel, for one leaf. */
export interface KernelWork {
  readonly path: string;
  readonly phase: Phase;
  /** As in the program, and its profile. */
  readonly label: string;
  readonly segment: number;
  /** Leaves of a round that it runs for; 0 where it runs once for all, on every device that has the layer. */
  readonly leaves: number;
  /** Whether it runs again what the forward pass has computed, for the backward pass. */
  readonly again: boolean;
  /** Of a product or a convolution; 0 for others, which move memory. */
  readonly multiplyAdds: number;
  /** Read and written. */
  readonly bytes: number;
}

/** A tensor that the leaves of a round gather, at the end of a segment. */
export interface GatherWork {
  readonly path: string;
  readonly phase: Phase;
  readonly segment: number;
  /** Of all leaves together. */
  readonly bytes: number;
  /** Whether each leaf needs one of the equal parts of every piece, and no other. */
  readonly addressed: boolean;
  /** Bytes that a leaf needs of those before and after it, where it needs no others'. */
  readonly besideBytes?: number;
}

/** A tensor of the forward pass, all leaves of a round together. */
export interface ForwardTensor {
  readonly path: string;
  /** Layers whose forward kernels read it. */
  readonly readers: readonly string[];
  readonly bytes: number;
  /** Whether it is kept for the backward pass. */
  readonly kept: boolean;
}

/** Bytes once on a device, for each sequence in parts that is on its way, and for each leaf. */
export type HeldBytes = Pick<Activations, 'device' | 'sequence' | 'leaf'>;

export interface StepWork {
  /** Rounds of a step: one, or one for each sequence where leaves are parts of a sequence. */
  readonly rounds: number;
  /** Leaves of a round. */
  readonly leaves: number;
  readonly kernels: readonly KernelWork[];
  readonly gathers: readonly GatherWork[];
  readonly tensors: readonly ForwardTensor[];
  /** Of a round. */
  readonly inputs: readonly InputWork[];
  /** Segments of a round and of the update: a device meets the others at the end of each. */
  readonly segments: number;
  /** Largest bytes live at once, besides state, sums, inputs, outputs and what is kept: by layer of the kernel that runs. */
  readonly working: Readonly<Record<string, HeldBytes>>;
  /** Values of each gradient sum, by parameter. */
  readonly gradients: Readonly<Record<string, number>>;
  /** Values of weights, statistics and moments, by name. */
  readonly state: Readonly<Record<string, number>>;
}

/** An input of the step, of all leaves of a round or of the sequence that they share. */
export interface InputWork {
  readonly bytes: number;
  /** Layers that read it, in any pass. */
  readonly readers: readonly string[];
}

/** The work of a function, by shapes alone: takes the options of `build` and opens no device. */
export function stepWork(fn: Traceable, options: BuildOptions): StepWork {
  const { graph, plan } = traced(fn, options);
  const parts = planParts(graph, plan, options);
  const { sharded, stages } = parts;
  const forward = forwardTensors(parts);
  const written = writtenBy(parts);
  const kernels: KernelWork[] = [];
  const gathers: GatherWork[] = [];
  for (const [segment, { once, leaf, gather }] of stages.stages.entries()) {
    for (const work of once) kernels.push({ ...kernelWork(work, 0, written), segment });
    for (const work of leaf) kernels.push({ ...kernelWork(work, leavesOf(work, parts), written), segment });
    for (const node of gather) {
      const pieces = partsOf(sharded, stored(node.inputs.x!));
      const bytes = byteLength(node.inputs.x!) * (pieces[1] - pieces[0]);
      const { addressed = false, reach } = node.attrs as GatherAttrs;
      const beside = reach === undefined ? {} : { besideBytes: 2 * reach * byteLength(node.inputs.x!) };
      gathers.push({ path: node.path, phase: node.phase, segment, bytes, addressed, ...beside });
    }
  }
  const sums = parts.sumLayout.sums.map((sum) => [parameterOf(sum), elementCount(sum.shape)]);
  return {
    rounds: sharded.rounds.count,
    leaves: sharded.rounds.leaves,
    kernels,
    gathers,
    tensors: [...forward.values()],
    inputs: inputWork(parts),
    segments: stages.stages.length,
    working: workingSets(parts, forward),
    gradients: Object.fromEntries(sums),
    state: Object.fromEntries([...stateOf(parts)].map(({ name, shape }) => [name, elementCount(shape)])),
  };
}

type Parts = ReturnType<typeof planParts>;

function leavesOf(work: Work, { sharded }: Parts): number {
  const [from, to] = (work.kind === 'kernel' ? work.kernel.parts : undefined) ?? [0, sharded.rounds.leaves];
  return to - from;
}

function stateOf({ sharded: { graph } }: Parts): ReadonlySet<Parameter> {
  const reached = topologicalOrder(roots(graph)).filter((node) => node instanceof Parameter);
  return new Set([...reached, ...graph.assignments.map(({ parameter }) => parameter)]);
}

/** All that kernels store, of every phase. */
function writtenBy({ stages }: Parts): ReadonlySet<Stored> {
  const works = stages.stages.flatMap(({ once, leaf }) => [...once, ...leaf]);
  return new Set(works.flatMap((work) => (work.kind === 'kernel' ? [work.kernel.writes] : [])));
}

function kernelWork(work: Work, leaves: number, written: ReadonlySet<Stored>): Omit<KernelWork, 'segment'> {
  if (work.kind !== 'kernel') {
    const { path, shape } = work.sum;
    const bytes = 12 * elementCount(shape); // an f32 and a 64-bit integer
    const phase = work.kind === 'accumulate' ? 'W' : 'U';
    const label = sumLabel(work.kind, work.sum);
    return { path, phase, label, leaves, again: false, multiplyAdds: 0, bytes };
  }
  const { node, label, again = false, reads, writes } = work.kernel;
  return {
    path: node.path,
    phase: node.phase,
    label,
    leaves,
    again,
    multiplyAdds: [...computed(work.kernel, written)].reduce((sum, inner) => sum + productsOf(inner), 0),
    bytes: [...reads, writes].reduce((sum, x) => sum + byteLength(x), 0),
  };
}

/** The nodes of a kernel, from what it writes down to what is stored. */
function computed({ writes }: Lowered, written: ReadonlySet<Stored>): ReadonlySet<Tensor> {
  const inner = new Set<Tensor>([nodeOf(writes)]);
  for (const node of inner)
    for (const source of Object.values(node.inputs))
      if (!written.has(stored(source)) && source.op.kernel.kind !== 'exchange') inner.add(source);
  return inner;
}

/** Element-wise work is counted by its bytes. */
function productsOf(node: Tensor): number {
  const products = multiplyAdds(node);
  return products > elementCount(node.shape) ? products : 0;
}

/** Who reads what in the forward pass. A tensor that is gathered is read where its gathered form is. */
function forwardTensors({ sharded, stages }: Parts): ReadonlyMap<Stored, ForwardTensor> {
  const found = new Map<Stored, { readers: Set<string>; kept: boolean }>();
  for (const work of stages.stages.flatMap(({ once, leaf }) => [...once, ...leaf])) {
    if (work.kind !== 'kernel') continue;
    const { node, again, writes, reads } = work.kernel;
    const isForward = node.phase === 'F' && again !== true;
    if (isForward && !found.has(writes)) found.set(writes, { readers: new Set(), kept: false });
    for (const read of reads) {
      const known = found.get(beforeGather(read));
      if (isForward) known?.readers.add(node.path);
      else if (known !== undefined) known.kept = true;
    }
  }
  return new Map(
    [...found].map(([x, { readers, kept }]) => {
      const [from, to] = partsOf(sharded, nodeOf(x));
      const bytes = byteLength(x) * (to - from);
      return [x, { path: nodeOf(x).path, readers: [...readers], bytes, kept }];
    }),
  );
}

function inputWork({ sharded, stages }: Parts): InputWork[] {
  const readers = new Map<Stored, Set<string>>();
  for (const work of stages.stages.flatMap(({ once, leaf }) => [...once, ...leaf]))
    if (work.kind === 'kernel')
      for (const x of work.kernel.reads) {
        if (nodeOf(x).op.name !== 'input') continue;
        readers.set(x, (readers.get(x) ?? new Set()).add(work.kernel.node.path));
      }
  return [...readers].map(([x, paths]) => {
    const [from, to] = partsOf(sharded, nodeOf(x));
    return { bytes: byteLength(x) * (to - from), readers: [...paths] };
  });
}

/** What a gathered tensor is gathered from. */
function beforeGather(x: Stored): Stored {
  const node = nodeOf(x);
  return node.op.kernel.kind === 'exchange' ? stored(node.inputs.x!) : x;
}

function workingSets(parts: Parts, forward: ReadonlyMap<Stored, ForwardTensor>): Record<string, HeldBytes> {
  const { sharded, stages, bytes, facts } = parts;
  const changes: HeldBytes[][] = [];
  const change = (position: number, scope: SlotScope, size: number): void => {
    const kind = scope === 'leaf' || scope === 'sequence' ? scope : 'device';
    changes[position] ??= [];
    changes[position].push({ ...NOTHING, [kind]: size });
  };
  const lives = liveRanges(sharded, { ...stages, sideBySide: facts.leavesPerSequence > 1 });
  for (const [x, { scope, first, last }] of lives) {
    if (scope === 'state' || scope === 'next' || typeof x === 'string' || !Number.isFinite(last)) continue;
    if (forward.get(beforeGather(x))?.kept === true) continue;
    change(first, scope, bytes(x));
    change(last + 1, scope, -bytes(x));
  }
  const working: Record<string, HeldBytes> = {};
  let [position, live] = [0, (changes[0] ?? []).reduce(sumHeld, NOTHING)];
  const advance = (): void => {
    live = (changes[++position] ?? []).reduce(sumHeld, live);
  };
  for (const { once, leaf } of stages.stages) {
    for (const work of [...once, ...leaf]) {
      advance();
      const path = work.kind === 'kernel' ? work.kernel.node.path : work.sum.path;
      working[path] = mostHeld([working[path] ?? NOTHING, live]);
    }
    advance();
  }
  return working;
}

const NOTHING: HeldBytes = { device: 0, sequence: 0, leaf: 0 };

const sumHeld = (a: HeldBytes, b: HeldBytes): HeldBytes => ({
  device: a.device + b.device,
  sequence: a.sequence + b.sequence,
  leaf: a.leaf + b.leaf,
});

/** The most of each, as each has memory of its own. */
export function mostHeld(all: readonly HeldBytes[]): HeldBytes {
  return {
    device: Math.max(0, ...all.map(({ device }) => device)),
    sequence: Math.max(0, ...all.map(({ sequence }) => sequence)),
    leaf: Math.max(0, ...all.map(({ leaf }) => leaf)),
  };
}
