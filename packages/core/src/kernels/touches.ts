/** Which elements of its tensors a range of a kernel's workgroups touches: see `KernelBody.touches`. */
import type { Range } from '../op.ts';

/**
 * Numbers in a range taken apart as `n % r0`, `n / r0 % r1`, …, and what is left: for each the smallest range that holds
 * it for all of them.
 */
export function digits([from, to]: Range, radices: readonly number[]): Range[] {
  let [first, last] = [from, to - 1];
  const ranges = radices.map((radix): Range => {
    const low = first % radix;
    const high = last % radix;
    const turns = Math.floor(last / radix) - Math.floor(first / radix);
    [first, last] = [Math.floor(first / radix), Math.floor(last / radix)];
    return turns === 0 ? [low, high + 1] : [0, radix];
  });
  return [...ranges, [first, last + 1]];
}

/** The range of `n · size … n · size + size − 1` for n in a range, cut at `count`. */
export function spans([from, to]: Range, size: number, count: number = Number.POSITIVE_INFINITY): Range {
  return [Math.min(from * size, count), Math.min(to * size, count)];
}

/** A range cut to `[0, count)`. */
export function within([from, to]: Range, count: number): Range {
  const first = Math.min(Math.max(from, 0), count);
  return [first, Math.min(Math.max(to, first), count)];
}

/** Elements from the first to the last of a box in a tensor `[…, rows, columns]`. */
export function box(
  { outer, row, column = [0, 1] }: { readonly outer: Range; readonly row: Range; readonly column?: Range },
  rows: number,
  columns: number,
): Range {
  if (row[1] <= row[0]) return [0, 0];
  return [
    (outer[0] * rows + row[0]) * columns + column[0],
    ((outer[1] - 1) * rows + row[1] - 1) * columns + column[1],
  ];
}

/**
 * Elements of a tensor `[outer, rows, columns]` behind numbers `outer · count + n`. `reach(n)` gives the rows behind one n;
 * both its ends grow with n.
 */
export function rowsBehind(
  [from, to]: Range,
  count: number,
  reach: (n: number) => Range,
  [rows, columns]: readonly [rows: number, columns: number],
): Range {
  if (to <= from) return [0, 0];
  const last = to - 1;
  const [low] = within(reach(from % count), rows);
  const [, high] = within(reach(last % count), rows);
  return [
    (Math.floor(from / count) * rows + low) * columns,
    (Math.floor(last / count) * rows + high) * columns,
  ];
}
