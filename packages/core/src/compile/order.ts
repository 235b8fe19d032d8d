import type { Graph } from '../graph.ts';
import { byteLength } from '../tensor.ts';
import type { Sharded } from './layout.ts';
import { touched } from './lives.ts';
import { isBackward } from './recompute.ts';
import type { Stage, Stages, Work } from './split.ts';
import { nodeOf, type Stored, stored } from './stored.ts';

/**
 * The same work with shorter lives: a leaf's gradient is added to its sum as soon as it is known, a sum is finished when
 * it is first read, and what the backward pass makes of the forward pass alone waits for its first reader.
 */
export function shortenLives(stages: Stages, { graph }: Sharded): Stages {
  return {
    ...stages,
    stages: stages.stages.map(postpone(stages.stages, graph)).map((stage) => ({
      ...stage,
      once: late(stage.once),
      leaf: early(stage.leaf),
    })),
  };
}

/** The same work, numbered in this order: by its number a kernel is known in every placement. */
export function numbered(stages: Stages): Stages {
  let next = 0;
  const number = (work: Work): Work =>
    work.kind === 'kernel'
      ? { ...work, kernel: { ...work.kernel, ordinal: next++ } }
      : { ...work, ordinal: next++ };
  return {
    ...stages,
    stages: stages.stages.map((stage) => ({
      ...stage,
      once: stage.once.map(number),
      leaf: stage.leaf.map(number),
    })),
  };
}

/** Additions right after the last kernel that writes what they add. */
function early(list: readonly Work[]): Work[] {
  const additions = list.filter(({ kind }) => kind === 'accumulate');
  const result = list.filter(({ kind }) => kind !== 'accumulate');
  for (const work of additions) {
    const [[x]] = touched(work);
    result.splice(result.findLastIndex((other) => touched(other)[1] === x) + 1, 0, work);
  }
  return result;
}

/** Ends of sums right before the first kernel that reads them. */
function late(list: readonly Work[]): Work[] {
  const ends = list.filter(({ kind }) => kind === 'finish');
  const result = list.filter(({ kind }) => kind !== 'finish');
  for (const work of ends) {
    const sum = touched(work)[1]!;
    const first = result.findIndex((other) => touched(other)[0].includes(sum));
    result.splice(first < 0 ? result.length : first, 0, work);
  }
  return result;
}

/**
 * Moves a leaf's kernels to the later stage that first reads their results: the rows around its own that a weight gradient
 * needs of the forward pass, which would else be put together, and kept, before the backward pass begins.
 */
function postpone(stages: readonly Stage[], { outputs }: Graph): (stage: Stage) => Stage {
  const exchanges = stages.flatMap(({ gather, keep }) => [...gather, ...keep]);
  const handedOn = [...exchanges.map((node) => node.inputs.x!), ...Object.values(outputs)].map(stored);
  const fixed = new Set<Stored>(handedOn);
  const moved = new Map<Work, Work[]>();
  for (const [index, { leaf }] of stages.entries()) {
    for (const work of leaf) {
      const [reads, writes] = touched(work);
      if (writes === undefined || !isBackward(work) || fixed.has(writes)) continue;
      if (reads.some((x) => nodeOf(x).phase !== 'F' || wouldKeepMore(x, writes))) continue;
      const readsIt = (other: Work): boolean => touched(other)[0].includes(writes);
      if (stages.slice(0, index + 1).some(({ leaf }) => leaf.some(readsIt))) continue;
      const first = stages.flatMap(({ leaf }) => leaf).find(readsIt);
      if (first !== undefined) moved.set(first, [...(moved.get(first) ?? []), work]);
    }
  }
  const gone = new Set([...moved.values()].flat());
  return (stage) => ({
    ...stage,
    leaf: stage.leaf.filter((work) => !gone.has(work)).flatMap((work) => [...(moved.get(work) ?? []), work]),
  });
}

/** Whether waiting keeps more than it saves. */
const wouldKeepMore = (x: Stored, result: Stored): boolean =>
  nodeOf(x).op.kernel.kind !== 'source' && byteLength(x) > byteLength(result);
