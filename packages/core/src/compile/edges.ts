import { type Axis, axesOf } from '../axes.ts';
import type { Edges, Range, Rows } from '../op.ts';
import { edgeRows } from '../ops/rows.ts';
import { withScope } from '../scope.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { isShared, type Layout, onInputs } from './layout.ts';
import { hasWindow, windowsOf } from './windows.ts';

/** What is known of the tensors of a part, and how more are made. */
export interface Held {
  readonly layouts: ReadonlyMap<Tensor, Layout>;
  /** Of tensors that are cut: which rows a part holds. */
  readonly rows: ReadonlyMap<Tensor, Rows>;
  partsOf(x: Tensor): Range;
  note(x: Tensor, layout: Layout, parts?: Range): Tensor;
  gathered(x: Tensor, reach?: number): Tensor;
  /** What was made under this key before, or is made now. */
  once(key: string, make: () => Tensor): Tensor;
}

/** More bytes than these take longer than a meeting does: 1 ms at 0.5 GB/s between threads on one machine. */
const BYTES_OF_A_MEETING = 2 ** 19;

/**
 * The first and last rows of all parts, for the margins around them: `[parts, …, head + tail, …]`.
 *
 * What is normalised waits for statistics of the whole sequence, over which parts meet. So that they need not meet again
 * for margins of the result, they send the edges of what it is computed of together with the statistics, and every rank
 * computes the edges of the result from those: few numbers, the same on each.
 */
export class EarlyEdges {
  private readonly held: Held;
  private readonly levels = new Map<Tensor, number>();

  constructor(held: Held) {
    this.held = held;
  }

  /** Those that parts up to `reach` away read; of other parts, what is returned may hold anything. */
  of(x: Tensor, edges: Edges, reach: number): Tensor {
    const sources = new Map<Tensor, Edges>();
    if (!this.findSources(x, edges, this.level(x), sources)) return this.sent(x, edges, reach);
    const more = this.bytes(sources) - this.bytes(new Map([[x, edges]]));
    return more > BYTES_OF_A_MEETING ? this.sent(x, edges, reach) : this.computed(x, edges, sources);
  }

  /** What edges of x can be computed of that is known a meeting before x. @returns whether there is such. */
  private findSources(x: Tensor, edges: Edges, level: number, sources: Map<Tensor, Edges>): boolean {
    if (sources.has(x)) return true;
    if (!this.held.rows.has(x)) return false;
    if (this.level(x) === level) {
      const read = edgesRead(x, edges, this.held);
      return read?.every(([y, own]) => this.findSources(y, own, level, sources)) ?? false;
    }
    sources.set(x, edges);
    return true;
  }

  private sent(x: Tensor, edges: Edges, reach?: number): Tensor {
    const rows = this.held.rows.get(x)!;
    const { head, tail } = edges;
    return this.held.once(`${x.id} sent ${head} ${tail} ${reach}`, () => {
      const own = (): Tensor => this.held.note(edgeRows(x, rows, edges), 'rows', this.held.partsOf(x));
      return this.held.gathered(head === rows.size ? x : own(), reach);
    });
  }

  private computed(x: Tensor, edges: Edges, sources: ReadonlyMap<Tensor, Edges>): Tensor {
    if (sources.has(x)) return withScope(x, () => this.sent(x, edges));
    const { head, tail } = edges;
    return this.held.once(`${x.id} computed ${head} ${tail}`, () => {
      const read = new Map(edgesRead(x, edges, this.held));
      const inputs = Object.entries(x.inputs).map(([name, y]) => {
        const own = read.get(y);
        return [name, own === undefined ? y : this.computed(y, own, sources)] as const;
      });
      const first = this.held.partsOf(x)[0];
      const attrs = x.op.atEdges?.(x.attrs, { head, tail, first }) ?? this.attrsOf(x, head + tail);
      return this.held.note(onInputs(x, Object.fromEntries(inputs), attrs), 'sequence');
    });
  }

  /** Attributes of an op for so many rows of its output. */
  private attrsOf(x: Tensor, count: number): unknown {
    const axes = axesOf(x);
    const { name } = axes.output[this.held.rows.get(x)!.axis]!;
    return hasWindow(axes, name) ? windowsOf(x, axes, name).at([0, count]).attrs : x.attrs;
  }

  private bytes(all: ReadonlyMap<Tensor, Edges>): number {
    return [...all].reduce((sum, [x, { head, tail }]) => {
      const [from, to] = this.held.partsOf(x);
      const bytesPerRow = byteLength(x) / this.held.rows.get(x)!.size;
      return sum + bytesPerRow * (head + tail) * (to - from);
    }, 0);
  }

  /** How often parts have met before x is known. */
  private level(x: Tensor): number {
    const known = this.levels.get(x);
    if (known !== undefined) return known;
    const before = Object.values(x.inputs).map((y) => this.level(y));
    const level = Math.max(0, ...before) + (x.op.name === 'gatherLeaves' ? 1 : 0);
    this.levels.set(x, level);
    return level;
  }
}

/**
 * The inputs of an op that are cut, with the edges of each that those of its output are computed of. Undefined where these
 * are not all it reads of them, where the op depends on places, and of products, which take longer than a meeting.
 */
function edgesRead(
  x: Tensor,
  edges: Edges,
  { rows, layouts }: Held,
): (readonly [Tensor, Edges])[] | undefined {
  const { op } = x;
  const isLight = op.kernel.kind === 'map' || (op.kernel.kind === 'shader' && op.product !== true);
  if (!isLight || (op.atRows !== undefined && op.atEdges === undefined)) return undefined;
  const axes = axesOf(x);
  const { axis, start, size } = rows.get(x)!;
  const read: (readonly [Tensor, Edges])[] = [];
  for (const [input, y] of Object.entries(x.inputs)) {
    const own = axes.inputs[input]!;
    const at = own.findIndex(({ name }) => name === axes.output[axis]!.name);
    if (isShared(layouts.get(y))) {
      if (at >= 0 && y.shape[at]! > 1) return undefined;
      continue;
    }
    const held = rows.get(y);
    if (axis === 0 || at !== axis || held?.axis !== axis || !isSame(own[0]!, axes.output[0]!))
      return undefined;
    const stride = own[at]!.window ? strideOf(x, axes.output[axis]!.name, input, edges) : 1;
    if (held.size !== stride * size || held.start !== stride * start) return undefined;
    read.push([y, { head: edges.head * stride, tail: edges.tail * stride }]);
  }
  return read.length > 0 ? read : undefined;
}

const isSame = (input: Axis, output: Axis): boolean => input.name === output.name && input.name !== '_';

/** Rows of an input for each row of the output, where those for edges are whole rows one after another; else NaN. */
function strideOf(x: Tensor, name: string, input: string, { head, tail }: Edges): number {
  const windows = windowsOf(x, axesOf(x), name);
  const stride = windows.stride(input);
  const [from, to] = windows.at([0, head + tail]).rows[input]!;
  const isWhole = Number.isInteger(head * stride) && Number.isInteger(tail * stride);
  return isWhole && from === 0 && to === (head + tail) * stride ? stride : Number.NaN;
}
