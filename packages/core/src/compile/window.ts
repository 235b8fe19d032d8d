/**
 * Tensors larger than what a device binds at once. A kernel that touches one is dispatched in *windows*: parts of its work,
 * each bound to the range of every tensor that it touches. What even the smallest part touches of a tensor is bound as
 * several *pages*. Both change addresses only, never what is computed, so the bits stay the same.
 */
import type { Range } from '../op.ts';
import { type DType, shapeText } from '../tensor.ts';

/** A tensor that a kernel is bound to. */
export interface Operand {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly elements: number;
  readonly bytesPerElement: number;
  /** Bytes of what the kernel's text indexes: 16 for vectors, else 4. */
  readonly wordBytes: number;
}

/** Part of a kernel's work: all of it for some units, or some of the addends of one row of units. */
export interface Part {
  readonly units: Range;
  /** Addends of a reduction; all of them unless given. */
  readonly terms?: Range;
}

/** How the work of a kernel can be divided. */
export interface Space {
  /** What is computed independently: workgroups, or vectors of the output. */
  readonly units: number;
  /** A reduction: units in a row of the result, and the range of addends of a row. */
  readonly fold?: { readonly row: number; readonly count: number; terms(row: number): Range };
  /** The elements that a part touches of every operand; undefined stands for all. */
  touches(part: Part): readonly (Range | undefined)[];
  workgroups(units: Range): Range;
}

export interface Window {
  readonly workgroups: readonly [x: number, y: number];
  /** What the text reads as `window`: see `WindowWord`, then where each operand's range starts, in words. */
  readonly constants: readonly number[];
  /** Pages of all operands, in order. */
  readonly bindings: readonly { readonly operand: number; readonly offset: number; readonly bytes: number }[];
}

export interface WindowPlan {
  /** Pages of every operand; they are part of the text. */
  readonly pages: readonly number[];
  readonly pageBytes: number;
  /** Whether some window holds only some of the addends of its results. */
  readonly folds: boolean;
  readonly windows: readonly Window[];
}

/** Positions in a window's constants. */
export const WindowWord = {
  firstWorkgroup: 0,
  endWorkgroup: 1,
  workgroupsX: 2,
  firstUnit: 3,
  endUnit: 4,
  firstTerm: 5,
  endTerm: 6,
  /** Bit 0: the results so far are continued. Bit 1: they are finished. */
  progress: 7,
  starts: 8,
} as const;

/** The expression of a window's constant. They are a uniform, which leaves the storage bindings to tensors. */
export function windowWord(position: number): string {
  return `window[${position >> 2}].${'xyzw'[position & 3]}`;
}

/** WebGPU's default for minStorageBufferOffsetAlignment, which every device grants. */
const ALIGNMENT = 256;
/** Storage buffers of a kernel that Dawn grants on Vulkan. */
const MAX_BINDINGS = 16;
/** More windows than this are slower than pages. */
const MANY_WINDOWS = 256;
const MAX_WORKGROUPS_X = 65_535; // WebGPU's maxComputeWorkgroupsPerDimension

/**
 * Divides a kernel's work so that no binding exceeds `limit` bytes.
 *
 * @throws when that takes more bindings than there are, with sizes and what to change.
 */
export function planWindows(
  space: Space,
  operands: readonly Operand[],
  { limit, label }: { readonly limit: number; readonly label: string },
): WindowPlan {
  const pageBytes = Math.floor(limit / ALIGNMENT) * ALIGNMENT;
  if (pageBytes === 0) throw new Error(`a binding of ${limit} bytes is too small; it must hold ${ALIGNMENT}`);
  const sizes = operands.map((operand) => spanOf(operand, undefined)[1]);
  let pages = operands.map(() => 1);
  let parts = divide(space, operands, pages, pageBytes);
  while (!Array.isArray(parts)) {
    const more = pages.map((count, k) => Math.max(count, Math.ceil((parts as Stuck).bytes[k]! / pageBytes)));
    if (more.every((count, k) => count === pages[k]))
      throw new Error(`${label}: no window fits ${limit} bytes`);
    pages = more;
    parts = divide(space, operands, pages, pageBytes);
  }
  const whole = sizes.map((bytes) => Math.ceil(bytes / pageBytes));
  if (parts.length > MANY_WINDOWS && bindingCount(whole) <= MAX_BINDINGS)
    [pages, parts] = [whole, [{ units: [0, space.units] }]];
  if (bindingCount(pages) > MAX_BINDINGS) throw tooManyBindings(label, operands, sizes, pages, limit);
  return {
    pages,
    pageBytes,
    folds: parts.some(({ terms }) => terms !== undefined),
    windows: parts.map((part) => windowOf(part, space, operands, pages, pageBytes)),
  };
}

const bindingCount = (pages: readonly number[]): number => pages.reduce((a, b) => a + b, 0);

function tooManyBindings(
  label: string,
  operands: readonly Operand[],
  sizes: readonly number[],
  pages: readonly number[],
  limit: number,
): Error {
  const each = operands.map(
    ({ shape }, k) => `${shapeText(shape)} ${mebibytes(sizes[k]!)} in ${pages[k]} pages`,
  );
  return new Error(
    `${label}: needs ${bindingCount(pages)} bindings of at most ${mebibytes(limit)}, but a kernel has ${MAX_BINDINGS} (${each.join(', ')}); use smaller leaves or a device with a higher limit`,
  );
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toPrecision(4)} MiB`;

/** The smallest part does not fit: bytes it needs of every operand. */
interface Stuck {
  readonly bytes: readonly number[];
}

/** Greedy parts, each as large as fits, in order. */
function divide(
  space: Space,
  operands: readonly Operand[],
  pages: readonly number[],
  pageBytes: number,
): Part[] | Stuck {
  const spans = (part: Part): number[] => {
    const touched = space.touches(part);
    return operands.map((operand, k) => {
      const [from, to] = spanOf(operand, touched[k]);
      return to - from;
    });
  };
  const fits = (part: Part): boolean => spans(part).every((bytes, k) => bytes <= pages[k]! * pageBytes);
  const parts: Part[] = [];
  const stuck = (part: Part): Stuck => ({ bytes: spans(part) });
  const { fold } = space;
  const step = fold?.row ?? 1;
  for (let from = 0; from < space.units; ) {
    const count = (space.units - from) / step;
    const n = largest(count, (k) => fits({ units: [from, from + k * step] }));
    if (n > 0) parts.push({ units: [from, from + n * step] });
    else if (fold === undefined) return stuck({ units: [from, from + 1] });
    else {
      const failed = divideRow([from, from + step], fold.terms(from / step), fits, parts);
      if (failed !== undefined) return stuck(failed);
    }
    from += Math.max(n, 1) * step;
  }
  return parts;
}

/** Parts of one row of a reduction: ranges of addends, and ranges of units where one addend of all is too much. */
function divideRow(
  [first, end]: Range,
  terms: Range,
  fits: (part: Part) => boolean,
  parts: Part[],
): Part | undefined {
  for (let from = first; from < end; ) {
    const one: Range = [terms[0], terms[0] + 1];
    const n = largest(end - from, (k) => fits({ units: [from, from + k], terms: one }));
    if (n === 0) return { units: [from, from + 1], terms: one };
    const units: Range = [from, from + n];
    for (let term = terms[0]; term < terms[1]; ) {
      const m = largest(terms[1] - term, (k) => fits({ units, terms: [term, term + k] }));
      if (m === 0) return { units, terms: [term, term + 1] };
      parts.push({ units, terms: [term, term + m] });
      term += m;
    }
    from += n;
  }
  return undefined;
}

/** The largest k of 1…most with `ok(k)`, which holds up to some k and not after; 0 if it never holds. */
function largest(most: number, ok: (k: number) => boolean): number {
  if (ok(most)) return most;
  let [low, high] = [0, most]; // ok(low), not ok(high)
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (ok(middle)) low = middle;
    else high = middle;
  }
  return low;
}

/** Bytes behind elements of an operand, from an aligned offset. */
function spanOf({ elements, bytesPerElement }: Operand, range: Range | undefined): Range {
  const [from, to] = range ?? [0, elements];
  const first = Math.floor((Math.max(from, 0) * bytesPerElement) / ALIGNMENT) * ALIGNMENT;
  const all = Math.ceil((elements * bytesPerElement) / 4) * 4;
  return [first, Math.min(Math.ceil((to * bytesPerElement) / 16) * 16, all)]; // whole vectors
}

function windowOf(
  part: Part,
  space: Space,
  operands: readonly Operand[],
  pages: readonly number[],
  pageBytes: number,
): Window {
  const [firstWorkgroup, endWorkgroup] = space.workgroups(part.units);
  const x = Math.min(endWorkgroup - firstWorkgroup, MAX_WORKGROUPS_X);
  const y = Math.ceil((endWorkgroup - firstWorkgroup) / x);
  const touched = space.touches(part);
  const starts: number[] = [];
  const bindings = operands.flatMap((operand, k) => {
    const bytes = spanOf(operand, undefined)[1];
    const [from, to] = spanOf(operand, touched[k]);
    // Every page is bound, so a range near the end of the tensor begins earlier.
    const latest = Math.floor((bytes - (pages[k]! - 1) * pageBytes - 4) / ALIGNMENT) * ALIGNMENT;
    const start = Math.max(0, Math.min(from, latest));
    const end = pages[k]! > 1 ? Math.min(bytes, start + pages[k]! * pageBytes) : to;
    starts.push(start / operand.wordBytes);
    return Array.from({ length: pages[k]! }, (_, page) => {
      const offset = start + page * pageBytes;
      return { operand: k, offset, bytes: Math.min(pageBytes, end - offset) };
    });
  });
  const all = space.fold?.terms(Math.floor(part.units[0] / space.fold.row)) ?? [0, 0];
  const terms = part.terms ?? [0, space.fold?.count ?? 0];
  const continued = part.terms !== undefined && terms[0] > all[0];
  const finished = part.terms === undefined || terms[1] >= all[1];
  const progress = (continued ? 1 : 0) + (finished ? 2 : 0);
  const constants = [firstWorkgroup, endWorkgroup, x, ...part.units, ...terms, progress, ...starts];
  return { workgroups: [x, y], constants, bindings };
}
