import { type Axes, type Axis, axesOf } from '../axes.ts';
import { type Graph, rewrite, roots, topologicalOrder } from '../graph.ts';
import type { Range, Rows } from '../op.ts';
import { gatherLeaves } from '../ops/leaf-sum.ts';
import { sum } from '../ops/reduce.ts';
import {
  extendRows,
  gatherSequences,
  joinRows,
  joinTiles,
  type Margins,
  marginsNeeded,
  maskRows,
  ownRows,
  tileRows,
} from '../ops/rows.ts';
import { reshape } from '../ops/shape.ts';
import { Parameter } from '../parameter.ts';
import { currentScope, withScope } from '../scope.ts';
import { Tensor } from '../tensor.ts';
import { EarlyEdges } from './edges.ts';
import { checkAddends, type Layout, onInputs, type Sharded } from './layout.ts';
import { windowsOf } from './windows.ts';

type Inputs = Readonly<Record<string, Tensor>>;

/**
 * Cuts every sequence into `parts` equal ranges of rows and rebuilds the graph for one of them. Cutting begins at the
 * first op that slides a window along an axis, or multiplies rows by weights; what had to be gathered is cut again there.
 * From the axes that ops declare, and the rows their windows read, exchanges are inserted: margins from the parts around,
 * the whole axis where an op needs all of it, sums and merged statistics where an op folds the axis. What depends on all
 * rows at once is computed once a sequence, on every rank.
 *
 * @throws when rows cannot be cut so: with the op, both sizes, and what would fit.
 */
export function shardRows(graph: Graph, parts: number): Sharded {
  const sharding = new RowSharding(sequencesOf(graph), parts);
  const sharded = rewrite(graph, (node, inputs) => withScope(node, () => sharding.place(node, inputs)));
  sharding.checkCut();
  const outputs = Object.entries(sharded.outputs).map(([name, value]) => [name, sharding.whole(value)]);
  const { layouts, parts: held, rounds } = sharding;
  return { graph: { ...sharded, outputs: Object.fromEntries(outputs) }, layouts, parts: held, rounds };
}

/** Sequences of the step. @throws when inputs differ in them. */
function sequencesOf(graph: Graph): number {
  const seen = new Map<number, string>();
  for (const { op, shape, attrs } of topologicalOrder(roots(graph)))
    if (op.name === 'input') seen.set(shape[0] ?? 1, (attrs as { name: string }).name);
  if (seen.size <= 1) return seen.keys().next().value ?? 1;
  const each = [...seen].map(([count, name]) => `${name} has ${count}`);
  throw new Error(`inputs of one step must hold as many sequences each, but ${each.join(', ')}`);
}

class RowSharding {
  readonly layouts = new Map<Tensor, Layout>();
  readonly parts = new Map<Tensor, Range>();
  private readonly rows = new Map<Tensor, Rows>();
  private readonly made = new Map<string, Tensor>();
  private readonly edges = new EarlyEdges({
    layouts: this.layouts,
    rows: this.rows,
    partsOf: (x) => this.partsOf(x),
    note: (x, layout, parts) => this.note(x, layout, parts),
    gathered: (x, reach) => this.gathered(x, reach),
  });
  /** Of sums over all parts: what a part adds to them. */
  private readonly summands = new Map<Tensor, Tensor>();
  /** The first op that could not be cut for its number of rows. */
  private uneven: string | undefined;
  private readonly sequences: number;
  private readonly count: number;

  constructor(sequences: number, count: number) {
    this.sequences = sequences;
    this.count = count;
  }

  get rounds(): Sharded['rounds'] {
    return { count: this.sequences, leaves: this.count };
  }

  /** @throws when rows were to be cut and every part would do all of the work. */
  checkCut(): void {
    if (this.rows.size > 0 || this.uneven === undefined) return;
    throw new Error(
      `sequences cannot be cut into ${this.count} parts: ${this.uneven}; use another number of parts, or whole sequences`,
    );
  }

  place(node: Tensor, inputs: Inputs): Tensor {
    if (node.op.name === 'input') return this.input(node);
    if (node.op.kernel.kind === 'source' || node instanceof Parameter) return this.note(node, 'whole');
    const held = Object.entries(inputs).map(([name, x]) => [name, this.layouts.get(x)!] as const);
    if (held.every(([, layout]) => layout === 'whole') && node.op.name !== 'leafSum')
      return this.note(onInputs(node, inputs), 'whole');
    if (held.some(([, layout]) => layout === 'partial') || node.op.name === 'leafSum') {
      checkAddends(node, held);
      return this.addends(node, inputs);
    }
    return node.op.combine === true ? this.fold(node, inputs) : this.cut(node, inputs);
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

  private note(tensor: Tensor, layout: Layout, parts?: Range): Tensor {
    this.layouts.set(tensor, layout);
    if (parts !== undefined && (parts[0] > 0 || parts[1] < this.count)) this.parts.set(tensor, parts);
    return tensor;
  }

  private noteRows(tensor: Tensor, rows: Rows): Tensor {
    this.rows.set(tensor, rows);
    return this.note(tensor, 'rows', this.partsWith(tensor, rows));
  }

  private once(key: string, make: () => Tensor): Tensor {
    const made = this.made.get(key) ?? make();
    this.made.set(key, made);
    return made;
  }

  private partsOf(tensor: Tensor): Range {
    return this.parts.get(tensor) ?? [0, this.count];
  }

  /** Pieces of all parts that hold some: `[parts, …]`; with a reach, of those that a rank's own parts need alone. */
  private gathered(x: Tensor, reach = this.count): Tensor {
    const [from, to] = this.partsOf(x);
    const attrs = { leaves: to - from, ...(reach < this.count - 1 ? { reach } : {}) };
    return this.once(`${x.id} gathered ${attrs.reach}`, () =>
      this.note(gatherLeaves({ x }, attrs), 'sequence'),
    );
  }

  /** Every rank holds its sequences' inputs whole: they are small, and augmentation may need any row. */
  private input(node: Tensor): Tensor {
    const spec = { shape: [1, ...node.shape.slice(1)], dtype: node.dtype };
    return this.note(new Tensor(node.op, {}, { ...(node.attrs as object), spec }, spec, node), 'sequence');
  }

  private addends(node: Tensor, inputs: Inputs): Tensor {
    if (node.op.kernel.kind === 'exchange') return this.note(onInputs(node, inputs), 'whole');
    const partial = Object.values(inputs).filter((x) => this.layouts.get(x) === 'partial');
    const ranges = new Set(partial.map((x) => this.partsOf(x).join('…')));
    if (ranges.size === 1) return this.note(onInputs(node, inputs), 'partial', this.partsOf(partial[0]!));
    const totals = mapInputs(inputs, (_, x) => (this.layouts.get(x) === 'partial' ? this.total(x) : x));
    return this.note(onInputs(node, totals), 'partial', [0, 1]);
  }

  /** The sum over the parts of a sequence, where it is added to one over others, such as all of a sequence at once. */
  private total(x: Tensor): Tensor {
    const [from, to] = this.partsOf(x);
    if (from === 0 && to === 1) return x;
    return this.once(`${x.id} total`, () => {
      const pieces = this.note(reshape(x, [1, ...x.shape]), 'partial', [from, to]);
      const gathered = this.gathered(pieces); // [parts, …]
      return this.note(sum(gathered, { from: 0, to: 1 }), 'sequence');
    });
  }

  /** A fold over all sequences of a step: with the update, when all have been seen. */
  private fold(node: Tensor, inputs: Inputs): Tensor {
    const isLate = node.phase === 'U';
    if (!isLate && this.sequences > 1) {
      throw new Error(
        `${node}: needs all ${this.sequences} sequences of the step at once, but sequences cut into rows are computed one after another; use batch norm over each sequence, or a batch of 1`,
      );
    }
    const all = Object.entries(inputs).map(([name, x]): [string, Tensor] => {
      if (this.layouts.get(x) === 'whole' || !isLate) return [name, this.whole(x)];
      return [name, this.note(gatherSequences({ x: this.whole(x) }, { sequences: this.sequences }), 'whole')];
    });
    return this.note(onInputs(node, Object.fromEntries(all)), isLate ? 'whole' : 'sequence');
  }

  /** An op on tensors of one sequence: on a part's own rows of one axis, or on all of them. */
  private cut(node: Tensor, inputs: Inputs): Tensor {
    const axes = axesOf(node);
    const leading = Object.entries(inputs)
      .filter(([, x]) => this.layouts.get(x) !== 'whole')
      .map(([name]) => axes.inputs[name]?.[0]?.name);
    const keepsBatch = axes.output.some(({ name }) => name !== '_' && leading.includes(name));
    const axis = this.axisToCut(node, axes, inputs);
    const rows = axis === undefined ? undefined : this.rowsOf(node, axes, axis, inputs);
    // Rows are moved between parts by gathering them; only work on rows is worth refusing to do more than once.
    const isMove = node.op.kernel.kind === 'view' || node.op.kernel.kind === 'map';
    if (axis === undefined || rows === undefined || (isMove && this.fullParts(rows) === undefined)) {
      const whole = onInputs(
        node,
        mapInputs(inputs, (_, x) => this.whole(x)),
      );
      return keepsBatch ? this.note(whole, 'sequence') : this.note(whole, 'partial', [0, 1]);
    }
    const tensor = this.onRows(node, axes, axis, rows, inputs);
    const position = axes.output.findIndex(({ name }) => name === axis);
    if (position >= 0) return this.noteRows(tensor, scaledRows(rows, position, node, tensor));
    this.note(tensor, keepsBatch ? 'rows' : 'partial', this.partsWith(node, rows));
    return keepsBatch ? this.merged(node, tensor) : tensor;
  }

  /** Parts that hold rows, if each has all of its rows or none. */
  private fullParts({ start, size, length }: Rows): Range | undefined {
    const from = Math.max(0, Math.ceil(-start / size));
    const to = Math.min(this.count, Math.floor((length - start) / size));
    return start + from * size === 0 && start + to * size === length && from < to ? [from, to] : undefined;
  }

  private partsWith(node: Tensor, rows: Rows): Range {
    const parts = this.fullParts(rows);
    if (parts !== undefined) return parts;
    const { start, size, length } = rows;
    throw new Error(
      `${node}: ${length} rows do not fill whole parts of ${size} rows, the first of which begins at row ${start}; cut sequences into another number of parts than ${this.count}, so that the ends lie between two`,
    );
  }

  /** What parts computed on their own rows, made one for the sequence, on every rank. */
  private merged(node: Tensor, tensor: Tensor): Tensor {
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
      const tiles = this.note(tileRows(summands, { axis, parts }), 'rows');
      const gathered = this.note(gatherLeaves({ x: tiles }, { leaves: parts, addressed: true }), 'sequence');
      const joined = this.note(joinTiles(gathered, { axis: 1, parts }), 'rows');
      const own = this.note(reshape(joined, [parts, ...tiles.shape.slice(1)]), 'rows');
      return this.note(this.added(own, 'rows'), 'rows');
    };
    return this.once(`${summands.id} own sum ${axis}`, () => withScope(summands, exchange));
  }

  /**
   * The axis to cut: the output's first that is cut already, else one that is summed over, else a window's, else that of
   * rows that are multiplied by weights.
   */
  private axisToCut(node: Tensor, axes: Axes, inputs: Inputs): string | undefined {
    const cut = Object.entries(inputs).flatMap(([name, x]) => {
      const rows = this.rows.get(x);
      const axis = rows === undefined ? undefined : axes.inputs[name]?.[rows.axis]?.name;
      return axis === undefined || axis === '_' ? [] : [axis];
    });
    const found = axes.output.find(({ name }) => cut.includes(name))?.name ?? cut[0];
    if (found !== undefined || Object.values(inputs).some((x) => this.rows.has(x))) return found;
    if (node.op.kernel.kind !== 'shader') return undefined;
    const windows = Object.values(axes.inputs).flatMap((own) => own.filter(({ window }) => window));
    const worth = [...windows, ...this.multipliedRows(node, axes, inputs)];
    const position = axes.output.findIndex(({ name }) => worth.some((axis) => axis.name === name));
    if (position < 0) return undefined;
    if (node.shape[position]! % this.count === 0) return axes.output[position]!.name;
    this.uneven ??= `${node}: ${node.shape[position]} rows do not divide by ${this.count}`;
    return undefined;
  }

  /** Axes of a sequence's tensor, but the leading one, along which each row is multiplied by the same weights. */
  private multipliedRows({ op }: Tensor, axes: Axes, inputs: Inputs): Axis[] {
    const own = Object.entries(inputs).filter(([, x]) => this.layouts.get(x) !== 'whole');
    const [[name] = ['']] = own;
    return op.product === true && own.length === 1 ? axes.inputs[name]!.slice(1) : [];
  }

  /** Which rows a part computes, of the axis as it is in the output and in inputs without a window. */
  private rowsOf(node: Tensor, axes: Axes, name: string, inputs: Inputs): Rows {
    const position = axes.output.findIndex((axis) => axis.name === name);
    const uses = Object.entries(inputs).flatMap(([input, x]) => {
      const at = axes.inputs[input]!.findIndex((axis) => axis.name === name);
      return at < 0 ? [] : [{ input, x, at, window: axes.inputs[input]![at]!.window }];
    });
    const cut = uses.filter(({ x, at }) => this.rows.get(x)?.axis === at);
    const plain = cut.find(({ window }) => !window);
    if (plain !== undefined) return this.rows.get(plain.x)!;
    const whole = uses.find(({ window }) => !window);
    const length = position >= 0 ? node.shape[position]! : node.inputs[whole!.input]!.shape[whole!.at]!;
    const [windowed] = cut;
    if (windowed === undefined) return { axis: position, start: 0, size: length / this.count, length };
    const over = this.rows.get(windowed.x)!;
    const rows = windowsOf(node, axes, name).rowsOver(windowed.input, over);
    if (Number.isInteger(rows.start) && Number.isInteger(rows.size))
      return { axis: position, ...rows, length };
    throw new Error(
      `${node}: parts of ${over.size} rows, the first of which begins at row ${over.start}, would give ${rows.size} rows from row ${rows.start} on; cut sequences into another number of parts than ${this.count}, so that parts are whole windows`,
    );
  }

  /** The node on a part's rows, with the margins its windows need. */
  private onRows(node: Tensor, axes: Axes, name: string, rows: Rows, inputs: Inputs): Tensor {
    const hasWindow = Object.values(axes.inputs).some((own) =>
      own.some((axis) => axis.name === name && axis.window),
    );
    const range: Range = [rows.start, rows.start + rows.size];
    const windows = hasWindow ? windowsOf(node, axes, name) : undefined;
    const read = windows?.at(range);
    const own = mapInputs(inputs, (input, x) => {
      const at = axes.inputs[input]!.findIndex((axis) => axis.name === name);
      if (at < 0) return this.whole(x);
      const length = node.inputs[input]!.shape[at]!;
      if (length === 1 && rows.length > 1 && this.layouts.get(x) !== 'rows') return x; // the same for all rows
      if (axes.inputs[input]![at]!.window) {
        const own = { axis: at, length, size: rows.size * windows!.stride(input), range: read!.rows[input]! };
        this.checkEnds(node, own, rows);
        return this.rowsFor(x, own);
      }
      const held = this.rows.get(x);
      if (held?.axis === at && isSameShare(held, rows)) return x;
      const scale = length / rows.length;
      const own: Range = [range[0] * scale, range[1] * scale];
      return this.rowsFor(x, { axis: at, length, size: rows.size * scale, range: own });
    });
    const attrs = read?.attrs ?? node.attrs;
    const axis = axes.output.findIndex((other) => other.name === name);
    return onInputs(node, own, node.op.atRows?.(attrs, { ...rows, axis }) ?? attrs);
  }

  /** Rows outside the sequence are given as zeros, which are no padding for a maximum. */
  private checkEnds(node: Tensor, { length, size, range: [from, to] }: OwnRows, rows: Rows): void {
    const [first, last] = this.partsWith(node, rows);
    if (node.op.linear === true || (from + first * size >= 0 && to + (last - 1) * size <= length)) return;
    throw new Error(
      `${node}: its windows reach beyond the ends of a sequence of ${length} rows, which cannot be cut so; use windows that begin and end with the sequence`,
    );
  }

  /** Rows `range` for part 0, and for each part `size` rows further, of an input, whatever a part holds of it. */
  private rowsFor(x: Tensor, { axis, length, size, range: [from, to] }: OwnRows): Tensor {
    const held = this.rows.get(x);
    if (held === undefined || held.axis !== axis || held.size !== size) {
      const margins = { left: 0, right: to - from - size };
      const isDivided = from === 0 && to === size && size * this.count === length;
      if (isDivided && held !== undefined && held.axis !== axis && held.size * this.count === held.length)
        return this.turned(x, held.axis, axis);
      const summands = isDivided && held === undefined ? this.summandsOf(x) : undefined;
      if (summands !== undefined) return this.ownSum(summands, axis);
      return this.note(ownRows(this.whole(x), { axis, start: from, size, length }, margins), 'rows');
    }
    return this.extended(x, held, { left: held.start - from, right: to - held.start - held.size });
  }

  /** What is cut along one axis, cut along another: each part gives each other a tile. */
  private turned(x: Tensor, from: number, to: number): Tensor {
    const parts = this.count;
    return this.once(`${x.id} turned ${to} ${currentScope().phase}`, () => {
      const tiles = this.note(tileRows(x, { axis: to, parts }), 'rows');
      const gathered = this.note(gatherLeaves({ x: tiles }, { leaves: parts, addressed: true }), 'sequence');
      return this.note(joinTiles(gathered, { axis: from, parts }), 'rows');
    });
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

/** Rows of an input that part 0 needs; those of each next part are `size` rows further. */
interface OwnRows {
  readonly axis: number;
  /** Of the whole axis. */
  readonly length: number;
  readonly size: number;
  readonly range: Range;
}

/** Whether parts hold the same share of an axis, whatever it is counted in. */
function isSameShare(a: Rows, b: Rows): boolean {
  return a.start * b.length === b.start * a.length && a.size * b.length === b.size * a.length;
}

/** Rows of the output, whose axis may be counted otherwise than that of an input: pixels of a map for its rows. */
function scaledRows(rows: Rows, axis: number, node: Tensor, tensor: Tensor): Rows {
  const length = node.shape[axis]!;
  const scale = length / rows.length;
  // Partial results of rows, such as moments of chunks, follow their rows whatever their number.
  if (tensor.shape[axis] !== rows.size * scale || !Number.isInteger(rows.start * scale))
    return { ...rows, axis };
  return { axis, start: rows.start * scale, size: rows.size * scale, length };
}

function mapInputs(inputs: Inputs, change: (name: string, x: Tensor) => Tensor): Inputs {
  return Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, change(name, x)]));
}
