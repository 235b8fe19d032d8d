/**
 * Computes forward tensors again in the backward pass instead of keeping them: the lowered kernels run a second time,
 * never others, so no bit can change. Exchanges, sums over leaves and statistics are always kept.
 */

import { Tensor } from '../tensor.ts';
import { touched } from './lives.ts';
import type { Lowered } from './lower.ts';
import type { Stage, Stages, Work } from './split.ts';
import { nodeOf, type Stored } from './stored.ts';

/** What the forward pass stores. */
export interface Forward {
  /** How to compute each tensor that may be computed again. */
  readonly producers: ReadonlyMap<Stored, Producer>;
  /** Those that the backward pass reads. */
  readonly saved: ReadonlySet<Stored>;
  /** All that the backward pass reads. */
  readonly read: ReadonlySet<Stored>;
}

interface Producer {
  readonly kernels: Lowered[];
  /** Index of the stage, and whether the kernels run for each leaf or once for all. */
  readonly stage: number;
  readonly list: 'once' | 'leaf';
}

export function forwardPass({ stages, microbatches }: Stages): Forward {
  const producers = new Map<Stored, Producer>();
  const read = new Set<Stored>();
  const visit = (work: Work, stage: number, list: 'once' | 'leaf'): void => {
    if (isBackward(work)) for (const x of touched(work)[0]) read.add(x);
    else if (work.kind === 'kernel' && mayRunAgain(work.kernel.node)) {
      const { writes } = work.kernel;
      producers.set(writes, producers.get(writes) ?? { kernels: [], stage, list });
      producers.get(writes)!.kernels.push(work.kernel);
    }
  };
  for (const [stage, { once, leaf }] of stages.entries()) {
    // What microbatches share is computed before the first of them.
    if (microbatches === undefined || stage > 0) for (const work of once) visit(work, stage, 'once');
    for (const work of leaf) visit(work, stage, 'leaf');
  }
  return { producers, saved: new Set([...read].filter((x) => producers.has(x))), read };
}

/** Not statistics, nor what is folded over leaves. */
function mayRunAgain({ phase, op }: Tensor): boolean {
  return phase === 'F' && op.saved !== true && op.combine !== true;
}

/** All nodes that a kernel computes, the stored one first. */
export function computedBy(kernel: Lowered, { producers }: Forward): ReadonlySet<Tensor> {
  const inner = new Set<Tensor>([nodeOf(kernel.writes)]);
  for (const node of inner)
    for (const source of Object.values(node.inputs))
      if (!kernel.reads.includes(source) && !producers.has(source)) inner.add(source);
  return inner;
}

export function isBackward(work: Work): boolean {
  if (work.kind !== 'kernel') return true;
  const { phase } = work.kernel.node;
  return phase === 'I' || phase === 'W';
}

/** These tensors with what only their kernels read: it would else be kept longer than it is now. */
export function withOwnInputs(chosen: Iterable<Stored>, { producers, saved }: Forward): Set<Stored> {
  const all = new Set(chosen);
  for (const x of all)
    for (const y of producers.get(x)!.kernels.flatMap(({ reads }) => reads))
      if (producers.has(y) && !saved.has(y)) all.add(y);
  return all;
}

/**
 * The stages with `dropped` computed a second time, right before the backward pass first reads them. What is computed
 * again is a tensor of its own, so the memory of the first is free in between; kernels that need other dropped tensors
 * have those computed again first.
 */
export function recompute(stages: Stages, dropped: ReadonlySet<Stored>, { producers }: Forward): Stages {
  const again = new Map<Stored, Stored>();
  const renamed = (kernel: Lowered): Lowered => ({
    ...kernel,
    reads: kernel.reads.map((x) => again.get(x) ?? x),
  });
  const ensure = (needed: readonly Stored[], at: Lists): void => {
    for (const x of needed) {
      if (!dropped.has(x) || again.has(x)) continue;
      const { kernels, stage, list } = producers.get(x)!;
      if (list === 'once' && stage === at.stage && at.list === 'leaf') continue; // it has only just been computed
      for (const { reads } of kernels) ensure(reads, at);
      const writes = secondIdentity(x);
      for (const kernel of kernels) {
        const second = { ...renamed(kernel), writes, label: `${kernel.label} again`, again: true };
        at[list].push({ kind: 'kernel', kernel: second });
      }
      again.set(x, writes);
    }
  };
  const run = (stage: Stage, index: number): Stage => {
    const lists = { once: [] as Work[], leaf: [] as Work[], stage: index };
    for (const list of ['once', 'leaf'] as const) {
      for (const work of stage[list]) {
        if (isBackward(work)) ensure(touched(work)[0], { ...lists, list });
        const changes =
          isBackward(work) && work.kind === 'kernel' && work.kernel.reads.some((x) => again.has(x));
        lists[list].push(changes ? { kind: 'kernel', kernel: renamed(work.kernel) } : work);
      }
    }
    return { ...stage, once: lists.once, leaf: lists.leaf };
  };
  return { ...stages, stages: stages.stages.map(run) };
}

/** The work of a stage so far, and the list that is being written. */
interface Lists {
  readonly once: Work[];
  readonly leaf: Work[];
  readonly stage: number;
  readonly list: 'once' | 'leaf';
}

function secondIdentity(x: Stored): Stored {
  return 'of' in x ? { ...x } : new Tensor(x.op, x.inputs, x.attrs, x, x);
}
