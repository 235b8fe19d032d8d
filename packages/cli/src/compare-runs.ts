/** Two runs side by side: the first checkpoint in which they differ, and the tensors that do. */
import type { HostTensor } from '@cohesin/core';
import { type Checkpoint, checkpointPaths, hostTensors, loadCheckpoint } from '@cohesin/distributed';
import { UsageError } from './command-line.ts';
import { compareValues, type Differing } from './compare-values.ts';

export interface TensorDifference {
  readonly name: string;
  /** Undefined where only one run has it, or the shapes differ: then `reason` says so. */
  readonly values?: Differing;
  readonly reason?: string;
}

export interface ComparedRuns {
  /** Steps that both have a checkpoint of and that were compared, up to the first that differs. */
  readonly steps: readonly number[];
  readonly tensors: number;
  /** Of the last of these steps; none where all are equal. */
  readonly differences: readonly TensorDifference[];
  /** What the runs say of themselves that differs. */
  readonly plans: readonly string[];
}

/**
 * Compares the checkpoints of two runs, or two checkpoints, step by step.
 *
 * @throws UsageError when there is no step of which both have one
 */
export async function compareRuns(first: string, second: string): Promise<ComparedRuns> {
  const [a, b] = [await stepsOf(first), await stepsOf(second)];
  const common = [...a.keys()].filter((step) => b.has(step));
  if (common.length === 0)
    throw new UsageError(
      `${first} has checkpoints of step ${[...a.keys()].join(', ')} and ${second} of ${[...b.keys()].join(', ')}: none of the same step; train both with the same --steps and --checkpoint-every`,
    );
  let compared: ComparedRuns | undefined;
  for (const step of common) {
    const [one, other] = [await loadCheckpoint(a.get(step)!), await loadCheckpoint(b.get(step)!)];
    const [x, y] = [stateOf(one), stateOf(other)];
    const steps: number[] = [...(compared?.steps ?? []), step];
    const differences = compareStates(x, y);
    compared = { steps, tensors: x.size, differences, plans: planDifferences(one, other) };
    if (differences.length > 0) break;
  }
  return compared!;
}

/** Checkpoints by step, oldest first. */
async function stepsOf(path: string): Promise<Map<number, string>> {
  const paths = await checkpointPaths(path);
  const steps = new Map<number, string>();
  for (const one of paths) {
    const named = /step-(\d+)$/.exec(one)?.[1]; // others, as a run's best, say it inside
    steps.set(Number(named ?? (await loadCheckpoint(one)).host.step), one);
  }
  return steps;
}

/** Tensors and the host's numbers: all that training goes on from. */
const stateOf = ({ state, host }: Checkpoint): Map<string, HostTensor> =>
  new Map([...state, ...hostTensors(host)]);

/** Tensors of two states that differ in name, shape or any bit, in name order. */
export function compareStates(
  a: ReadonlyMap<string, HostTensor>,
  b: ReadonlyMap<string, HostTensor>,
): TensorDifference[] {
  const names = [...new Set([...a.keys(), ...b.keys()])].sort();
  return names.flatMap((name): TensorDifference[] => {
    const [x, y] = [a.get(name), b.get(name)];
    if (x === undefined || y === undefined)
      return [{ name, reason: `only ${x === undefined ? 'the second' : 'the first'} has it` }];
    if (`${x.shape}` !== `${y.shape}`)
      return [{ name, reason: `shapes [${x.shape.join(', ')}] and [${y.shape.join(', ')}]` }];
    if (x.data instanceof Float64Array) return numbersOfHost(name, x.data[0]!, y.data[0] as number);
    const values = compareValues(x.data, y.data);
    return values === undefined ? [] : [{ name, values }];
  });
}

const numbersOfHost = (name: string, a: number, b: number): TensorDifference[] =>
  Object.is(a, b) ? [] : [{ name, reason: `${a} and ${b}` }];

function planDifferences(a: Checkpoint, b: Checkpoint): string[] {
  const flat = ({ plan, seed, model, bitsId, device, position }: Checkpoint): Record<string, unknown> => ({
    ...plan,
    seed,
    model: model.id,
    bitsId,
    position,
    ...device,
  });
  const [x, y] = [flat(a), flat(b)];
  return Object.keys({ ...x, ...y })
    .map((name) => [name, shown(x[name]), shown(y[name])] as const)
    .filter(([, one, other]) => one !== other)
    .map(([name, one, other]) => `${name}: ${one} and ${other}`);
}

const shown = (value: unknown): string =>
  typeof value === 'string' ? value : (JSON.stringify(value) ?? 'none');
