/** What a step stores, tensor by tensor: to find the first one in which two placements differ. */
import { createHash } from 'node:crypto';
import { isHalf, type Visited } from '@cohesin/core';

/** A tensor that a kernel wrote on one rank. */
export interface Written {
  /** Equal for the same tensor of the same leaf in every placement. */
  readonly key: string;
  /** Its place among the kernels of the whole step. */
  readonly ordinal: number;
  /** Layer path, op and shape. */
  readonly label: string;
  readonly round: number;
  /** Undefined where all leaves share it. */
  readonly leaf: number | undefined;
  readonly hash: string;
  /** Its bytes, f16 where `half`; only of the tensor that was asked for. */
  readonly bytes?: Uint8Array;
  readonly half: boolean;
}

/** What to record of a step: hashes of all tensors, and the values of the one with this key. */
export interface Inspection {
  readonly values?: string | undefined;
}

/** Records what the kernels of a step write. */
export class Recorder {
  readonly written: Written[] = [];
  private readonly inspection: Inspection;
  private readonly seen = new Map<string, number>();

  constructor(inspection: Inspection) {
    this.inspection = inspection;
  }

  readonly visit = async ({ step, place, shared, read }: Visited): Promise<void> => {
    const bytes = await read();
    if (bytes === undefined) return;
    const { ordinal, label } = step;
    const [round, , ownLeaf] = place;
    const leaf = shared ? undefined : ownLeaf;
    const name = `${ordinal} ${label} ${round} ${leaf ?? 'all'}`;
    const times = this.seen.get(name) ?? 0;
    this.seen.set(name, times + 1);
    const key = `${name} ${times}`;
    const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
    const values = key === this.inspection.values ? { bytes } : {};
    this.written.push({ key, ordinal, label, round, leaf, hash, half: isHalf(step), ...values });
  };
}

/** A tensor of one leaf in two computations; `sides` says which ranks of which. */
export interface Difference {
  readonly key: string;
  readonly label: string;
  readonly round: number;
  readonly leaf: number | undefined;
  /** Placement, 0 or 1, and rank of the two that differ; the placement is the same where its ranks disagree. */
  readonly sides: readonly [Side, Side];
}

export interface Side {
  readonly placement: 0 | 1;
  readonly rank: number;
}

export interface ComparedSteps {
  /** In the order of the step; leaves of the same tensor in theirs. */
  readonly differences: readonly Difference[];
  /** Tensors that both placements stored, and copies of them over leaves. */
  readonly tensors: number;
  readonly copies: number;
  /** Tensors that only one of the placements stored. */
  readonly alone: number;
}

/** Compares what the ranks of two placements wrote in the same step. */
export function compareWritten(
  first: readonly (readonly Written[])[],
  second: readonly (readonly Written[])[],
): ComparedSteps {
  const copies = new Map<string, [Written, Side][]>();
  for (const [placement, ranks] of [first, second].entries())
    for (const [rank, written] of ranks.entries())
      for (const one of written) {
        const known = copies.get(one.key) ?? [];
        known.push([one, { placement: placement as 0 | 1, rank }]);
        copies.set(one.key, known);
      }
  const differences: (Difference & Pick<Written, 'ordinal'>)[] = [];
  const labels = new Set<string>();
  const alone = new Set<string>();
  let count = 0;
  for (const [key, [[one, side], ...others]] of copies as Map<
    string,
    [[Written, Side], ...[Written, Side][]]
  >) {
    const { ordinal, label, round, leaf } = one;
    if (others.every(([, { placement }]) => placement === side.placement)) alone.add(`${ordinal} ${label}`);
    else {
      labels.add(`${ordinal} ${label}`);
      count++;
    }
    const other = others.find(([{ hash }]) => hash !== one.hash);
    if (other !== undefined) differences.push({ key, ordinal, label, round, leaf, sides: [side, other[1]] });
  }
  differences.sort((a, b) => a.ordinal - b.ordinal || a.round - b.round || (a.leaf ?? -1) - (b.leaf ?? -1));
  for (const label of labels) alone.delete(label);
  return { differences, tensors: labels.size, copies: count, alone: alone.size };
}
