/** The same training steps under two placements, every tensor that a kernel stores compared bit by bit. */
import type { HostTensor, TypedArray } from '@cohesin/core';
import { compareWritten, type Difference, type HostState, type Written } from '@cohesin/distributed';
import { compareStates, type TensorDifference } from './compare-runs.ts';
import { compareValues, type Differing } from './compare-values.ts';
import type { Output } from './progress.ts';
import type { Training } from './training.ts';

export interface Replayed {
  /** Steps that were run, the last of them with what differs. */
  readonly steps: number;
  /** Tensors of a step, and copies of them over leaves, that were compared. */
  readonly tensors: number;
  readonly copies: number;
  /** Tensors of a step that only one placement stores. */
  readonly alone: number;
  readonly first?: FirstDifference;
  /** Of the state before the first step or after the last. */
  readonly state: readonly TensorDifference[];
}

export interface FirstDifference extends Difference {
  /** From 0, of the run. */
  readonly step: number;
  /** Further copies that differ in this step. */
  readonly others: number;
  /** Undefined where the step, run again, gave equal bits: then the fault comes and goes. */
  readonly values: Differing | undefined;
}

/**
 * Runs steps on both, to the first that differs.
 *
 * @throws when the ranks of one placement hold different state, naming the tensor.
 */
export async function replay(
  pair: readonly [Training, Training],
  steps: number,
  output: Output,
): Promise<Replayed> {
  const totals = { steps: 0, tensors: 0, copies: 0, alone: 0 };
  const state = await differingState(pair);
  if (state.length > 0) return { ...totals, state };
  for await (const batch of pair[0].batches()) {
    const before = await Promise.all(pair.map(snapshot));
    const written: (readonly (readonly Written[])[])[] = [];
    for (const training of pair) written.push(await training.inspect(batch));
    const { differences, tensors, copies, alone } = compareWritten(written[0]!, written[1]!);
    Object.assign(totals, { tensors, alone, steps: totals.steps + 1, copies: totals.copies + copies });
    const [first] = differences;
    if (first !== undefined) {
      for (const [i, training] of pair.entries()) await training.restore(before[i]!.state, before[i]!.host);
      const again: (readonly (readonly Written[])[])[] = [];
      for (const training of pair) again.push(await training.inspect(batch, { values: first.key }));
      const step = before[0]!.host.step;
      const values = valuesOf(first, again);
      return { ...totals, state, first: { ...first, step, others: differences.length - 1, values } };
    }
    output.progress(`step ${totals.steps} of ${steps}: ${copies} tensors with the same bits`);
    if (totals.steps === steps) break;
  }
  output.endProgress();
  return { ...totals, state: await differingState(pair) };
}

interface Snapshot {
  readonly state: ReadonlyMap<string, HostTensor>;
  readonly host: HostState;
}

async function snapshot(training: Training): Promise<Snapshot> {
  await training.weights.checkEqual();
  return { state: await training.state(), host: training.host };
}

async function differingState([a, b]: readonly [Training, Training]): Promise<TensorDifference[]> {
  return compareStates((await snapshot(a)).state, (await snapshot(b)).state);
}

function valuesOf(
  { key, sides }: Difference,
  written: readonly (readonly (readonly Written[])[])[],
): Differing | undefined {
  const [a, b] = sides.map(({ placement, rank }) => {
    const { bytes, half } = written[placement]![rank]!.find((one) => one.key === key)!;
    return numbersOf(bytes!, half);
  });
  return compareValues(a!, b!);
}

/** What a kernel wrote, f32 or f16, in memory of its own. */
function numbersOf(bytes: Uint8Array, half: boolean): TypedArray {
  const { buffer } = bytes.slice();
  return half ? new Uint16Array(buffer) : new Float32Array(buffer);
}
