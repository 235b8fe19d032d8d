import type { Axes } from '../axes.ts';
import type { Range, Rows } from '../op.ts';
import type { Spec, Tensor } from '../tensor.ts';

/** Where the windows of an op lie along one axis, as if its inputs had no ends. */
export interface Windows {
  /** Rows of an input from one row of the output to the next. */
  stride(input: string): number;
  /** The rows that rows of the output read, and the attributes of that piece of the work. */
  at(range: Range): { readonly rows: Readonly<Record<string, Range>>; readonly attrs: unknown };
  /** The rows of the output whose windows lie over a part's rows of an input; not always whole numbers. */
  rowsOver(input: string, rows: Rows): { readonly start: number; readonly size: number };
}

/** Rows to which windows are moved so that none meets an end: a multiple of 4,096 and of all numbers to 15. */
const FAR = 4_096 * 45_045;
const ENDLESS = 2 ** 50;

/** Whether a window slides along an axis of some input. */
export function hasWindow({ inputs }: Axes, name: string): boolean {
  return Object.values(inputs).some((own) => own.some((axis) => axis.window && axis.name === name));
}

export function windowsOf(node: Tensor, axes: Axes, name: string): Windows {
  const { reads } = node.op;
  if (reads === undefined) throw new Error(`op '${node.op.name}' marks ${name} with ~ but has no 'reads'`);
  const inputs = Object.entries(node.inputs).map(([input, { shape, dtype }]): [string, Spec] => {
    const at = axes.inputs[input]!.findIndex((axis) => axis.name === name);
    return [input, { shape: at < 0 ? shape : shape.with(at, ENDLESS), dtype }];
  });
  const endless = Object.fromEntries(inputs);
  const far = (times: number, [from, to]: Range): ReturnType<typeof reads> =>
    reads(endless, node.attrs, [from + times * FAR, to + times * FAR]);
  const stride = (input: string): number => {
    const [near, next] = [far(1, [0, 1]).rows[input], far(2, [0, 1]).rows[input]];
    return near === undefined ? 1 : (next![0] - near[0]) / FAR;
  };
  const at = (range: Range): ReturnType<Windows['at']> => {
    const { rows, attrs } = far(1, range);
    const moved = Object.entries(rows).map(([input, read]): [string, Range] => {
      const shift = stride(input) * FAR;
      return [input, [read![0] - shift, read![1] - shift]];
    });
    return { rows: Object.fromEntries(moved), attrs };
  };
  const rowsOver = (input: string, { start, size }: Rows): { start: number; size: number } => {
    const [from, to] = at([0, 1]).rows[input]!;
    // A first window that covers row 0 belongs to it; another one, as of a slice, says where row 0 is.
    const centre = from <= 0 && to > 0 ? 0 : (from + to - 1) / 2;
    return { start: (start - centre) / stride(input), size: size / stride(input) };
  };
  return { stride, at, rowsOver };
}
