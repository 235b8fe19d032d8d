import type { Activations } from '../program.ts';
import type { Tensor } from '../tensor.ts';
import type { Storage } from './lives.ts';
import { type Live, liveBytes } from './memory.ts';
import { isBackward } from './recompute.ts';
import type { Stages } from './split.ts';
import { nodeOf } from './stored.ts';

/** What a plan keeps from the forward to the backward pass, where that is most; undefined where there is none. */
export function keptActivations(
  { stages }: Stages,
  lives: ReadonlyMap<Storage, Live>,
  leavesOnDevice: number,
  sequencesOnDevice?: number,
): Omit<Activations, 'all'> | undefined {
  const backward = new Set<number>();
  const again = new Set<Storage>();
  let position = 0;
  for (const { once, leaf } of stages) {
    for (const work of [...once, ...leaf]) {
      position++;
      if (work.kind !== 'kernel') continue;
      if (isBackward(work)) backward.add(position);
      if (work.kernel.again === true) again.add(work.kernel.writes);
    }
    position++;
  }
  if (backward.size === 0) return undefined;
  const forward = [...lives].filter(
    ([x]) => typeof x !== 'string' && !again.has(x) && isActivation(nodeOf(x)),
  );
  const own = forward.map(([, live]) => live);
  const total = liveBytes(own, leavesOnDevice, sequencesOnDevice);
  const most = [...backward].reduce((best, at) => ((total[at] ?? 0) > (total[best] ?? 0) ? at : best));
  const at = own.filter(({ first, last }) => first <= most && most <= last);
  const bytes = (lives: readonly Live[]): number => lives.reduce((sum, live) => sum + live.bytes, 0);
  const leaf = bytes(at.filter(({ scope }) => scope === 'leaf'));
  const sequence = bytes(at.filter(({ scope }) => scope === 'sequence'));
  return { device: bytes(at) - leaf - sequence, sequence, leaf, again: again.size };
}

const isActivation = ({ phase, op }: Tensor): boolean => phase === 'F' && op.kernel.kind !== 'source';
