/**
 * Computes forward tensors again in the backward pass instead of keeping them: the lowered kernels run a second time,
 * never others, so no bit can change. Exchanges, sums over leaves and statistics are always kept.
 */
import { Tensor } from '../tensor.ts';
import { touched } from './lives.ts';
import type { Lowered, Stored } from './lower.ts';
import type { Stage, Stages, Work } from './split.ts';

/** What a leaf's forward pass stores. */
export interface Forward {
  /** The kernels behind each tensor that may be computed again. */
  readonly producers: ReadonlyMap<Stored, readonly Lowered[]>;
  /** Those that the backward pass reads. */
  readonly saved: ReadonlySet<Stored>;
}

export function forwardPass({ stages }: Stages): Forward {
  const work = stages.flatMap(({ leaf }) => leaf);
  const producers = new Map<Stored, Lowered[]>();
  for (const one of work) {
    if (one.kind !== 'kernel' || isBackward(one)) continue;
    const { writes } = one.kernel;
    if (nodeOf(writes).phase !== 'F' || nodeOf(writes).op.saved === true) continue;
    producers.set(writes, [...(producers.get(writes) ?? []), one.kernel]);
  }
  const read = work.filter(isBackward).flatMap((one) => touched(one)[0]);
  return { producers, saved: new Set(read.filter((x) => producers.has(x))) };
}

/** The tensor that is stored, or whose partial results are. */
export const nodeOf = (x: Stored): Tensor => ('of' in x ? x.of : x);

function isBackward(work: Work): boolean {
  if (work.kind !== 'kernel') return true;
  const { phase } = nodeOf(work.kernel.writes);
  return phase === 'I' || phase === 'W';
}

/** These tensors with what only their kernels read: it would else be kept longer than it is now. */
export function withOwnInputs(chosen: Iterable<Stored>, { producers, saved }: Forward): Set<Stored> {
  const all = new Set(chosen);
  for (const x of all)
    for (const y of producers.get(x)!.flatMap(({ reads }) => reads))
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
  const ensure = (needed: readonly Stored[], list: Work[]): void => {
    for (const x of needed) {
      if (!dropped.has(x) || again.has(x)) continue;
      const kernels = producers.get(x)!;
      for (const { reads } of kernels) ensure(reads, list);
      const writes = secondIdentity(x);
      for (const kernel of kernels) {
        const second = { ...renamed(kernel), writes, label: `${kernel.label} again` };
        list.push({ kind: 'kernel', kernel: second });
      }
      again.set(x, writes);
    }
  };
  const leafWork = (stage: Stage): Work[] => {
    const list: Work[] = [];
    for (const work of stage.leaf) {
      if (!isBackward(work)) list.push(work);
      else {
        ensure(touched(work)[0], list);
        list.push(work.kind === 'kernel' ? { kind: 'kernel', kernel: renamed(work.kernel) } : work);
      }
    }
    return list;
  };
  return { ...stages, stages: stages.stages.map((stage) => ({ ...stage, leaf: leafWork(stage) })) };
}

function secondIdentity(x: Stored): Stored {
  return 'of' in x ? { ...x } : new Tensor(x.op, x.inputs, x.attrs, x, x);
}
