/** What is computed again without being asked for: large results that cost little more than reading them back. */
import { byteLength } from '../tensor.ts';
import { touched } from './lives.ts';
import type { Lowered } from './lower.ts';
import { computedBy, type Forward, isBackward } from './recompute.ts';
import type { Stages } from './split.ts';
import { nodeOf, type Stored } from './stored.ts';

/**
 * Bytes of one leaf's tensor from which it counts as large. Below, a dispatch (some 5 µs) takes longer than the tensor
 * takes to be read and written (8 MiB at 3 TB/s), and a hundred such tensors are less than 1 GB.
 */
export const LARGE_BYTES: number = 2 ** 23;

/**
 * Large element-wise results and row norms whose inputs are kept anyway, so that each takes one kernel and none has a
 * longer life. By shapes alone: the same wherever the step runs.
 */
export function lightTensors(stages: Stages, forward: Forward): Set<Stored> {
  const light = new Set<Stored>();
  const forEachLeaf = readByLeaves(stages);
  for (const [x, { kernels, list }] of forward.producers) {
    const [kernel] = kernels;
    if (!forward.saved.has(x) || byteLength(x) < LARGE_BYTES || kernels.length > 1) continue;
    if (list === 'once' && forEachLeaf.has(x)) continue; // it would be computed once for every leaf
    const kept = kernel!.reads.every((y) => isSource(y) || (forward.read.has(y) && !light.has(y)));
    if (kept && isLight(kernel!, forward)) light.add(x);
  }
  return light;
}

const isSource = (x: Stored): boolean => nodeOf(x).op.kernel.kind === 'source';

/** What the backward pass of leaves reads. */
function readByLeaves({ stages }: Stages): Set<Stored> {
  const works = stages.flatMap(({ leaf }) => leaf).filter(isBackward);
  return new Set(works.flatMap((work) => [...touched(work)[0]]));
}

function isLight(kernel: Lowered, forward: Forward): boolean {
  return [...computedBy(kernel, forward)].every(({ op: { kernel: own } }) => {
    if (own.kind === 'shader') return own.light === true;
    return own.kind === 'map' || own.kind === 'view' || own.kind === 'source';
  });
}
