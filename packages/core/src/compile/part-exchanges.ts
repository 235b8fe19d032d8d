import { axesOf } from '../axes.ts';
import type { Range, Rows } from '../op.ts';
import { gatherLeaves } from '../ops/leaf-sum.ts';
import { sum } from '../ops/reduce.ts';
import {
  extendRows,
  joinRows,
  joinTiles,
  type Margins,
  marginsNeeded,
  maskRows,
  ownRows,
  tileRows,
} from '../ops/rows.ts';
import { reshape } from '../ops/shape.ts';
import { currentScope, withScope } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { EarlyEdges } from './edges.ts';
import { type Layout, onInputs } from './layout.ts';

/** Rows of an input that part 0 needs; those of each next part are `size` rows further. */
export interface OwnRows {
  readonly axis: number;
  /** Of the whole axis. */
  readonly length: number;
  readonly size: number;
  readonly range: Range;
}

/** What parts of a sequence hold of its tensors, and how each learns of the others what it needs. */
export class PartExchanges {
  readonly layouts: Map<Tensor, Layout> = new Map();
  readonly parts: Map<Tensor, Range> = new Map();
  /** Of tensors that are cut: which rows a part holds. */
  readonly rows: Map<Tensor, Rows> = new Map();
  private readonly made = new Map<string, Tensor>();
  /** Of sums over all parts: what a part adds to them. */
  private readonly summands = new Map<Tensor, Tensor>();
  private readonly edges = new EarlyEdges(this);
  private readonly count: number;

  constructor(count: number) {
    this.count = count;
  }

  note(tensor: Tensor, layout: Layout, parts?: Range): Tensor {
    this.layouts.set(tensor, layout);
    if (parts !== undefined && (parts[0] > 0 || parts[1] < this.count)) this.parts.set(tensor, parts);
    return tensor;
  }

  noteRows(tensor: Tensor, rows: Rows): Tensor {
    this.rows.set(tensor, rows);
    return this.note(tensor, 'rows', this.partsWith(tensor, rows));
  }

  once(key: string, make: () => Tensor): Tensor {
    const made = this.made.get(key) ?? make();
    this.made.set(key, made);
    return made;
  }

  partsOf(tensor: Tensor): Range {
    return this.parts.get(tensor) ?? [0, this.count];
  }

  /** Pieces of all parts that hold some: `[parts, …]`; with a reach, of those that a rank's own parts need alone. */
  gathered(x: Tensor, reach: number = this.count): Tensor {
    const [from, to] = this.partsOf(x);
    const attrs = { leaves: to - from, ...(reach < this.count - 1 ? { reach } : {}) };
    return this.once(`${x.id} gathered ${attrs.reach}`, () =>
      this.note(gatherLeaves({ x }, attrs), 'sequence'),
    );
  }

  /** Parts that hold rows, if each has all of its rows or none. */
  fullParts({ start, size, length }: Rows): Range | undefined {
    const from = Math.max(0, Math.ceil(-start / size));
    const to = Math.min(this.count, Math.floor((length - start) / size));
    return start + from * size === 0 && start + to * size === length && from < to ? [from, to] : undefined;
  }

  partsWith(node: Tensor, rows: Rows): Range {
    const parts = this.fullParts(rows);
    if (parts !== undefined) return parts;
    const { start, size, length } = rows;
    throw new Error(
      `${node}: ${length} rows do not fill whole parts of ${size} rows, the first of which begins at row ${start}; cut sequences into another number of parts than ${this.count}, so that the ends lie between two`,
    );
  }

  /** The tensor with all rows, on every rank. */
  whole(x: Tensor): Tensor {
    if (this.layouts.get(x) !== 'rows') return x;
    return this.once(`${x.id} whole`, () => withScope(x, () => this.note(this.joined(x), 'sequence')));
  }

  /** What differs by the order of its axes alone is gathered once. */
  private joined(x: Tensor): Tensor {
    const [source] = Object.values(x.inputs);
    if (reordersAxes(x) && this.rows.has(source!)) return onInputs(x, { x: this.whole(source!) });
    return joinRows(this.gathered(x), this.rows.get(x)!.axis);
  }

  /** The sum over the parts of a sequence, where it is added to one over others, such as all of a sequence at once. */
  total(x: Tensor): Tensor {
    const [from, to] = this.partsOf(x);
    if (from === 0 && to === 1) return x;
    return this.once(`${x.id} total`, () => {
      const pieces = this.note(reshape(x, [1, ...x.shape]), 'partial', [from, to]);
      const gathered = this.gathered(pieces); // [parts, …]
      return this.note(sum(gathered, { from: 0, to: 1 }), 'sequence');
    });
  }

  /** What parts computed on their own rows, made one for the sequence, on every rank. */
  merged(node: Tensor, tensor: Tensor): Tensor {
    const { mergeParts, linear } = node.op;
    if (mergeParts === undefined && linear !== true)
      throw new Error(`${node}: folds rows that are cut; declare mergeParts for op '${node.op.name}'`);
    const pieces = this.gathered(tensor); // [parts, …]
    if (mergeParts !== undefined) return this.note(mergeParts(pieces), 'sequence');
    const total = this.note(this.added(pieces, 'sequence'), 'sequence');
    if (this.parts.get(tensor) === undefined) this.summands.set(total, tensor);
    return total;
  }

  /** `[parts, …]` → `[1, …]`, added in the order of parts. */
  private added(pieces: Tensor, layout: Layout): Tensor {
    const total = this.note(sum(pieces, { from: 0, to: 1 }), layout);
    return reshape(total, [1, ...pieces.shape.slice(1)]);
  }

  /** What each part has of a sum over all parts, or of what only orders its elements otherwise. */
  private summandsOf(x: Tensor): Tensor | undefined {
    const known = this.summands.get(x);
    if (known !== undefined || x.op.kernel.kind !== 'view') return known;
    const own = this.summandsOf(Object.values(x.inputs)[0]!);
    return own && this.once(`${x.id} summands`, () => this.note(onInputs(x, { x: own }), 'rows'));
  }

  /** A part's own rows of a sum over parts: each gives each other what it adds to those. */
  private ownSum(summands: Tensor, axis: number): Tensor {
    const parts = this.count;
    const exchange = (): Tensor => {
      const tiles = this.tiles(summands, axis);
      const joined = this.note(joinTiles(tiles, { axis: 1, parts }), 'rows');
      const own = this.note(reshape(joined, [parts, ...tiles.shape.slice(1)]), 'rows');
      return this.note(this.added(own, 'rows'), 'rows');
    };
    return this.once(`${summands.id} own sum ${axis}`, () => withScope(summands, exchange));
  }

  /** Whether every part holds all the rows that it needs of an axis that is cut otherwise. */
  holdsNeeded(held: Rows, { size, length, range: [from, to] }: OwnRows): boolean {
    const parts = this.fullParts(held);
    if (parts === undefined || parts[1] - parts[0] < this.count) return false;
    return Array.from({ length: this.count }, (_, part) => {
      const own = part * held.size;
      const [first, end] = [Math.max(0, from + part * size), Math.min(length, to + part * size)];
      return first >= end || (first >= own && end <= own + held.size);
    }).every(Boolean);
  }

  /** Rows of a part's own; from part to part, what it needs moves on by `size - held.size` over what it has. */
  private recut(x: Tensor, held: Rows, { axis, size, range: [from, to] }: OwnRows): Tensor {
    const step = size - held.size;
    const rows = { axis, start: from, size: step, length: held.size };
    return this.note(ownRows(x, rows, { left: 0, right: to - from - step }), 'rows');
  }

  /** Rows `range` for part 0, and for each part `size` rows further, of an input, whatever a part holds of it. */
  rowsFor(x: Tensor, own: OwnRows): Tensor {
    const { axis, length, size } = own;
    const [from, to] = own.range;
    const held = this.rows.get(x);
    if (held === undefined || held.axis !== axis || held.size !== size) {
      if (held?.axis === axis && this.holdsNeeded(held, own)) return this.recut(x, held, own);
      const margins = { left: 0, right: to - from - size };
      const isDivided = from === 0 && to === size && size * this.count === length;
      if (isDivided && held !== undefined && held.axis !== axis && held.size * this.count === held.length)
        return this.turned(x, held.axis, axis);
      const summands = isDivided && axis > 0 && held === undefined ? this.summandsOf(x) : undefined;
      if (summands?.shape[0] === 1) return this.ownSum(summands, axis);
      return this.note(ownRows(this.whole(x), { axis, start: from, size, length }, margins), 'rows');
    }
    return this.extended(x, held, { left: held.start - from, right: to - held.start - held.size });
  }

  /** What is cut along one axis, cut along another: each part gives each other a tile. */
  private turned(x: Tensor, from: number, to: number): Tensor {
    return this.once(`${x.id} turned ${to} ${currentScope().phase}`, () =>
      this.note(joinTiles(this.tiles(x, to), { axis: from, parts: this.count }), 'rows'),
    );
  }

  /** What each part gives each other, of those rows of another axis than its own: `[parts · parts, …]`. */
  private tiles(x: Tensor, axis: number): Tensor {
    const parts = this.count;
    const tiles = this.note(tileRows(x, { axis, parts }), 'rows');
    return this.note(gatherLeaves({ x: tiles }, { leaves: parts, addressed: true }), 'sequence');
  }

  private extended(x: Tensor, rows: Rows, margins: Margins): Tensor {
    const { left, right } = margins;
    const parts = this.partsOf(x);
    const all = parts[0] === 0 && parts[1] === this.count;
    if (left === 0 && right === 0 && all) return x;
    const { head, tail } = marginsNeeded(margins, rows);
    const make = (): Tensor => {
      if (head + tail === 0) return maskRows(x, rows, margins);
      const reach = Math.ceil(Math.max(left, right) / rows.size);
      const edges = this.edges.of(x, { head, tail }, reach);
      return extendRows(x, edges, rows, { ...margins, head, tail, first: parts[0] });
    };
    // One for each phase, so that margins are all that is kept from the forward to the backward pass.
    return this.once(`${x.id} ${left} ${right} ${currentScope().phase}`, () => this.note(make(), 'rows'));
  }
}

/** Whether an op gives its input with the same axes in another order. */
function reordersAxes(x: Tensor): boolean {
  const { kernel } = x.op;
  if (kernel.kind !== 'view' || kernel.alias === true) return false;
  const { inputs, output } = axesOf(x);
  const [input = []] = Object.values(inputs);
  const names = input.map(({ name, window }) => (window ? '_' : name));
  return (
    !names.includes('_') && input.length === output.length && output.every(({ name }) => names.includes(name))
  );
}
