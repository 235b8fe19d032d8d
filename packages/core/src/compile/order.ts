import { touched } from './lives.ts';
import type { Stages, Work } from './split.ts';

/**
 * The same work with shorter lives: a leaf's gradient is added to its sum as soon as it is known, and a sum is finished
 * when it is first read.
 */
export function shortenLives(stages: Stages): Stages {
  return {
    ...stages,
    stages: stages.stages.map((stage) => ({
      ...stage,
      once: late(stage.once),
      leaf: early(stage.leaf),
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
