/** Numbers in [0, 1), the same on every machine: the linear congruential generator of Press et al., Numerical Recipes in C, 1992, section 7.1. */
export function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
