/** Which values of a reduction an invocation folds. */

/** Of a reduction: outputs before and after the folded axes, and values for each. */
export interface Extent {
  readonly outer: number;
  readonly count: number;
  readonly inner: number;
}

/**
 * Chunks that share a range of values, taken in turn: where a value is not a row of channels, neighbouring lanes then
 * read neighbouring addresses, 32 bytes at a time, and each range is still read from end to end.
 */
export function neighboursOf({ inner }: Extent): 1 | 8 {
  return inner < 8 ? 8 : 1;
}

/** WGSL of the values an invocation folds: from, to and step; those of chunk `row % parts` if there are chunks. */
export function chunkRange(
  parts: string | undefined,
  length: string,
  n: string,
  neighbours: 1 | 8,
): readonly [first: string, end: string, step: string] {
  if (parts === undefined) return ['0u', n, '1u'];
  const block = neighbours === 1 ? `(row % ${parts})` : `(row % ${parts} / ${neighbours}u)`;
  const within = neighbours === 1 ? '' : ` + row % ${neighbours}u`;
  return [`${block} * ${length}${within}`, `min((${block} + 1u) * ${length}, ${n})`, `${neighbours}u`];
}

/** The first of a chunk's values that lies in the window. */
export function nextTerm(first: string, step: string): string {
  return `${first} + (max(${first}, termFrom) - (${first}) + ${step} - 1u) / ${step} * ${step}`;
}
