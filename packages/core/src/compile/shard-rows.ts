import { type Axes, type Axis, axesOf } from '../axes.ts';
import { type Graph, rewrite, roots, topologicalOrder } from '../graph.ts';
import type { Range, Rows } from '../op.ts';
import { gatherSequences } from '../ops/rows.ts';
import { Parameter } from '../parameter.ts';
import { withScope } from '../scope.ts';
import { Tensor } from '../tensor.ts';
import { checkAddends, onInputs, type Sharded } from './layout.ts';
import { type OwnRows, PartExchanges } from './part-exchanges.ts';
import { hasWindow, windowsOf } from './windows.ts';

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
  const outputs = Object.entries(sharded.outputs).map(([name, value]) => [name, sharding.held.whole(value)]);
  const { held, rounds } = sharding;
  const { layouts, parts: partsOf } = held;
  return { graph: { ...sharded, outputs: Object.fromEntries(outputs) }, layouts, parts: partsOf, rounds };
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
  readonly held: PartExchanges;
  /** The first op that could not be cut for its number of rows. */
  private uneven: string | undefined;
  private readonly sequences: number;
  private readonly count: number;

  constructor(sequences: number, count: number) {
    this.sequences = sequences;
    this.count = count;
    this.held = new PartExchanges(count);
  }

  get rounds(): Sharded['rounds'] {
    return { count: this.sequences, leaves: this.count };
  }

  /** @throws when rows were to be cut and every part would do all of the work. */
  checkCut(): void {
    if (this.held.rows.size > 0 || this.uneven === undefined) return;
    throw new Error(
      `sequences cannot be cut into ${this.count} parts: ${this.uneven}; use another number of parts, or whole sequences`,
    );
  }

  place(node: Tensor, inputs: Inputs): Tensor {
    if (node.op.name === 'input') return this.input(node);
    if (node.op.kernel.kind === 'source' || node instanceof Parameter) return this.held.note(node, 'whole');
    const held = Object.entries(inputs).map(([name, x]) => [name, this.held.layouts.get(x)!] as const);
    if (held.every(([, layout]) => layout === 'whole') && node.op.name !== 'leafSum')
      return this.held.note(onInputs(node, inputs), 'whole');
    if (held.some(([, layout]) => layout === 'partial') || node.op.name === 'leafSum') {
      checkAddends(node, held);
      return this.addends(node, inputs);
    }
    return node.op.combine === true ? this.fold(node, inputs) : this.cut(node, inputs);
  }

  /** Every rank holds its sequences' inputs whole: they are small, and augmentation may need any row. */
  private input(node: Tensor): Tensor {
    const spec = { shape: [1, ...node.shape.slice(1)], dtype: node.dtype };
    return this.held.note(
      new Tensor(node.op, {}, { ...(node.attrs as object), spec }, spec, node),
      'sequence',
    );
  }

  private addends(node: Tensor, inputs: Inputs): Tensor {
    if (node.op.kernel.kind === 'exchange') return this.held.note(onInputs(node, inputs), 'whole');
    const partial = Object.values(inputs).filter((x) => this.held.layouts.get(x) === 'partial');
    const ranges = new Set(partial.map((x) => this.held.partsOf(x).join('…')));
    if (ranges.size === 1)
      return this.held.note(onInputs(node, inputs), 'partial', this.held.partsOf(partial[0]!));
    const totals = mapInputs(inputs, (_, x) =>
      this.held.layouts.get(x) === 'partial' ? this.held.total(x) : x,
    );
    return this.held.note(onInputs(node, totals), 'partial', [0, 1]);
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
      if (this.held.layouts.get(x) === 'whole' || !isLate) return [name, this.held.whole(x)];
      return [
        name,
        this.held.note(gatherSequences({ x: this.held.whole(x) }, { sequences: this.sequences }), 'whole'),
      ];
    });
    return this.held.note(onInputs(node, Object.fromEntries(all)), isLate ? 'whole' : 'sequence');
  }

  /** An op on tensors of one sequence: on a part's own rows of one axis, or on all of them. */
  private cut(node: Tensor, inputs: Inputs): Tensor {
    const axes = axesOf(node);
    const leading = Object.entries(inputs)
      .filter(([, x]) => this.held.layouts.get(x) !== 'whole')
      .map(([name]) => axes.inputs[name]?.[0]?.name);
    const keepsBatch = axes.output.some(({ name }) => name !== '_' && leading.includes(name));
    const axis = this.axisToCut(node, axes, inputs);
    const rows = axis === undefined ? undefined : this.rowsToCompute(node, axes, axis, inputs);
    if (axis === undefined || rows === undefined) {
      const whole = onInputs(
        node,
        mapInputs(inputs, (_, x) => this.held.whole(x)),
      );
      return keepsBatch ? this.held.note(whole, 'sequence') : this.held.note(whole, 'partial', [0, 1]);
    }
    const tensor = this.onRows(node, axes, axis, rows, inputs);
    const position = axes.output.findIndex(({ name }) => name === axis);
    if (position >= 0) return this.held.noteRows(tensor, scaledRows(rows, position, node, tensor));
    this.held.note(tensor, keepsBatch ? 'rows' : 'partial', this.held.partsWith(node, rows));
    return keepsBatch ? this.held.merged(node, tensor) : tensor;
  }

  /**
   * The axis to cut: the output's first that is cut already, else one that is summed over, else a window's, else that of
   * rows that are multiplied by weights.
   */
  private axisToCut(node: Tensor, axes: Axes, inputs: Inputs): string | undefined {
    const cut = Object.entries(inputs).flatMap(([name, x]) => {
      const rows = this.held.rows.get(x);
      const axis = rows === undefined ? undefined : axes.inputs[name]?.[rows.axis]?.name;
      return axis === undefined || axis === '_' ? [] : [axis];
    });
    const found = axes.output.find(({ name }) => cut.includes(name))?.name ?? cut[0];
    if (found !== undefined || Object.values(inputs).some((x) => this.held.rows.has(x))) return found;
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
    const own = Object.entries(inputs).filter(([, x]) => this.held.layouts.get(x) !== 'whole');
    const [[name] = ['']] = own;
    return op.product === true && own.length === 1 ? axes.inputs[name]!.slice(1) : [];
  }

  /** Which rows a part computes; undefined if every part is to have all of them. */
  private rowsToCompute(node: Tensor, axes: Axes, name: string, inputs: Inputs): Rows | undefined {
    const rows = this.rowsOf(node, axes, name, inputs);
    // Rows are moved between parts by gathering them; only work on rows is worth refusing to do more than once.
    const isMove = node.op.kernel.kind === 'view' || node.op.kernel.kind === 'map';
    if (!isMove || this.held.fullParts(rows) !== undefined) return rows;
    return this.evenRows(node, axes, name, inputs);
  }

  /** Equal parts of rows that move, as in a crop, if each part holds its own of them already. */
  private evenRows(node: Tensor, axes: Axes, name: string, inputs: Inputs): Rows | undefined {
    const axis = axes.output.findIndex((other) => other.name === name);
    const length = node.shape[axis] ?? 0;
    const rows: Rows = { axis, start: 0, size: length / this.count, length };
    if (axis < 0 || !Number.isInteger(rows.size) || !hasWindow(axes, name)) return undefined;
    const windows = windowsOf(node, axes, name);
    const read = windows.at([0, rows.size]).rows;
    const isHeld = Object.entries(inputs).every(([input, x]) => {
      const held = this.held.rows.get(x);
      const range = read[input];
      if (held === undefined || range === undefined || windows.stride(input) !== 1) return false;
      const own = { axis: held.axis, length: held.length, size: rows.size, range };
      return axes.inputs[input]![held.axis]!.name === name && this.held.holdsNeeded(held, own);
    });
    return isHeld ? rows : undefined;
  }

  /** Rows that follow those of the inputs, of the axis as it is in the output and in inputs without a window. */
  private rowsOf(node: Tensor, axes: Axes, name: string, inputs: Inputs): Rows {
    const position = axes.output.findIndex((axis) => axis.name === name);
    const uses = Object.entries(inputs).flatMap(([input, x]) => {
      const at = axes.inputs[input]!.findIndex((axis) => axis.name === name);
      return at < 0 ? [] : [{ input, x, at, window: axes.inputs[input]![at]!.window }];
    });
    const cut = uses.filter(({ x, at }) => this.held.rows.get(x)?.axis === at);
    const plain = cut.find(({ window }) => !window);
    if (plain !== undefined) return this.held.rows.get(plain.x)!;
    const whole = uses.find(({ window }) => !window);
    const length = position >= 0 ? node.shape[position]! : node.inputs[whole!.input]!.shape[whole!.at]!;
    const [windowed] = cut;
    if (windowed === undefined) return { axis: position, start: 0, size: length / this.count, length };
    const over = this.held.rows.get(windowed.x)!;
    const rows = windowsOf(node, axes, name).rowsOver(windowed.input, over);
    if (Number.isInteger(rows.start) && Number.isInteger(rows.size))
      return { axis: position, ...rows, length };
    throw new Error(
      `${node}: parts of ${over.size} rows, the first of which begins at row ${over.start}, would give ${rows.size} rows from row ${rows.start} on; cut sequences into another number of parts than ${this.count}, so that parts are whole windows`,
    );
  }

  /** The node on a part's rows, with the margins its windows need. */
  private onRows(node: Tensor, axes: Axes, name: string, rows: Rows, inputs: Inputs): Tensor {
    const range: Range = [rows.start, rows.start + rows.size];
    const windows = hasWindow(axes, name) ? windowsOf(node, axes, name) : undefined;
    const read = windows?.at(range);
    const own = mapInputs(inputs, (input, x) => {
      const at = axes.inputs[input]!.findIndex((axis) => axis.name === name);
      if (at < 0) return this.held.whole(x);
      const length = node.inputs[input]!.shape[at]!;
      if (length === 1 && rows.length > 1 && this.held.layouts.get(x) !== 'rows') return x; // the same for all rows
      if (axes.inputs[input]![at]!.window) {
        const own = { axis: at, length, size: rows.size * windows!.stride(input), range: read!.rows[input]! };
        this.checkEnds(node, own, rows);
        return this.held.rowsFor(x, own);
      }
      const held = this.held.rows.get(x);
      if (held?.axis === at && isSameShare(held, rows)) return x;
      const scale = length / rows.length;
      const own: Range = [range[0] * scale, range[1] * scale];
      return this.held.rowsFor(x, { axis: at, length, size: rows.size * scale, range: own });
    });
    const attrs = read?.attrs ?? node.attrs;
    const axis = axes.output.findIndex((other) => other.name === name);
    return onInputs(node, own, node.op.atRows?.(attrs, { ...rows, axis }) ?? attrs);
  }

  /** Rows outside the sequence are given as zeros, which are no padding for a maximum. */
  private checkEnds(node: Tensor, { length, size, range: [from, to] }: OwnRows, rows: Rows): void {
    const [first, last] = this.held.partsWith(node, rows);
    if (node.op.linear === true || (from + first * size >= 0 && to + (last - 1) * size <= length)) return;
    throw new Error(
      `${node}: its windows reach beyond the ends of a sequence of ${length} rows, which cannot be cut so; use windows that begin and end with the sequence`,
    );
  }
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
