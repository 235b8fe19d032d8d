/** Metrics of the shape of a profile, whatever its total. */

/**
 * The Jensen–Shannon divergence in nats of each row of a and b `[rows, length]`, both normalised to sum to 1; its square
 * root is the distance SciPy calls `jensenshannon`. NaN where a row sums to 0.
 *
 * @throws when the two differ in size or rows of `length` do not fill them.
 */
export function jensenShannon(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  { length }: { readonly length: number },
): Float64Array {
  const rows = a.length / length;
  if (a.length !== b.length || !Number.isInteger(rows))
    throw new Error(`jensenShannon: ${a.length} and ${b.length} values; both must be [rows, ${length}]`);
  return Float64Array.from({ length: rows }, (_, row) => {
    const share = (values: ArrayLike<number>): Float64Array => {
      const own = Float64Array.from({ length }, (__, k) => values[row * length + k]!);
      const total = own.reduce((sum, value) => sum + value, 0);
      return own.map((value) => value / total);
    };
    const [p, q] = [share(a), share(b)];
    return p.reduce((sum, pk, k) => {
      const middle = (pk + q[k]!) / 2;
      return sum + (relativeEntropy(pk, middle) + relativeEntropy(q[k]!, middle)) / 2;
    }, 0);
  });
}

/** p · log(p / m), 0 where p is 0. */
function relativeEntropy(p: number, m: number): number {
  return p === 0 ? 0 : p * Math.log(p / m);
}
