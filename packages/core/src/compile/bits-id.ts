import { createHash } from 'node:crypto';
import { elementCount } from '../host-tensor.ts';
import { accumulateCode, finishCode } from '../kernels/leaf-sum.ts';
import type { ProgramInput } from '../program.ts';
import { FRAME } from './entry-point.ts';
import type { Stages, Work } from './split.ts';

/** What decides the bits of a program: the logical plan, and the kernels in the order in which the graph has them. */
export interface Logical {
  readonly plan: unknown;
  readonly scalars: readonly string[];
  readonly inputs: readonly Pick<ProgramInput, 'name' | 'shape' | 'dtype'>[];
  /** As they are split, before anything is computed again or reordered. */
  readonly stages: Stages;
}

/** Hash of what decides the bits. Recomputing, reordering and memory are decided later and cannot change it. */
export function bitsId({ plan, scalars, inputs, stages }: Logical): string {
  const kernels = stages.stages.map(({ once, leaf }) => [once.map(identity), leaf.map(identity)]);
  const shapes = inputs.map(({ name, shape, dtype }) => [name, shape, dtype]);
  return createHash('sha256')
    .update(JSON.stringify([plan, scalars, shapes, kernels]))
    .digest('hex');
}

function identity(work: Work): unknown {
  if (work.kind === 'kernel') return [work.kernel.code, work.kernel.workgroups, work.kernel.keys];
  const code = work.kind === 'accumulate' ? accumulateCode(FRAME) : finishCode(FRAME);
  return [code, elementCount(work.sum.shape)];
}
