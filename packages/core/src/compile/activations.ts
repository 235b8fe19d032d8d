import type { Activations } from '../program.ts';
import type { Storage } from './lives.ts';
import type { Live } from './memory.ts';
import { isBackward, nodeOf } from './recompute.ts';
import type { Stages } from './split.ts';

/** What a plan keeps from the forward to the backward pass; undefined where there is none. */
export function keptActivations(
  { stages }: Stages,
  lives: ReadonlyMap<Storage, Live>,
): Pick<Activations, 'device' | 'leaf'> | undefined {
  const boundary = firstBackward(stages);
  if (boundary === undefined) return undefined;
  const kept = { device: 0, leaf: 0 };
  for (const [x, { bytes, scope, first, last }] of lives) {
    if (typeof x === 'string' || first >= boundary || last < boundary) continue;
    const { phase, op } = nodeOf(x);
    if (phase === 'F' && op.kernel.kind !== 'source') kept[scope === 'leaf' ? 'leaf' : 'device'] += bytes;
  }
  return kept;
}

/** Position of the first work of the backward pass, as `liveRanges` counts. */
function firstBackward(stages: Stages['stages']): number | undefined {
  let position = 0;
  for (const { once, leaf } of stages) {
    const found = [...once, ...leaf].findIndex((work) => work.kind === 'kernel' && isBackward(work));
    if (found >= 0) return position + found + 1;
    position += once.length + leaf.length + 1;
  }
  return undefined;
}
