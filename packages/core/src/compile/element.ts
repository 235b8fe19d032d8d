import { elementCount } from '../host-tensor.ts';
import { literal } from '../literal.ts';
import type { Spec, Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { isFloat } from './fuse.ts';

/**
 * Where a value is needed, relative to the flat index i of the output element: at i itself (period 0), at
 * `i % period + offset`, or, with period 1, always at `offset`.
 */
interface Place {
  readonly period: number;
  readonly offset: number;
}

const EVERY: Place = { period: 0, offset: 0 };

/** A stored tensor that elements are computed from: binding `binding` at a place. */
interface Operand {
  readonly binding: number;
  readonly place: Place;
  readonly wide: boolean;
}

/** What the text of an element needs from the kernel around it. */
export interface ElementContext {
  /** Whether the kernel computes this node itself. */
  computes(node: Tensor): boolean;
  /** WGSL of the value of `source`, an inlined or stored tensor, at any index. */
  read(source: Tensor, index: string): string;
  /** WGSL of a per-step number. */
  scalar(name: string): string;
  /** The binding of a stored tensor. */
  bind(source: Tensor): number;
  /** Notes that a binding is read at an index in terms of `i`. */
  access(binding: number, index: string): void;
  /** WGSL of element `index` of a binding. */
  element(binding: number, index: string): string;
  /** WGSL of word `index` of a binding. */
  word(binding: number, index: string): string;
  /** WGSL statement that stores word `index` of the output. */
  put(root: Tensor, index: string, value: string, wide: boolean): string;
  /** WGSL of whether word `index` of the output is computed here. */
  isUnit(index: string): string;
  /** Adds WGSL functions that the text calls. */
  help(declarations: string): void;
  /** A constant of this use, as an immediate. */
  key(value: number): string;
  /** As `key`, for a size. */
  extent(size: number): string;
}

/** Invocations a map has at least, if it has that many vectors: enough to keep cores busy. */
const MIN_INVOCATIONS = 1024;
/** Vectors an invocation computes at most: by then its own cost, and what it loads once, no longer count. */
const MAX_STEPS = 32;
/** Vectors between those of one invocation: 128 bytes, so that neighbouring lanes share cache lines and steps share pages. */
const STRIDE = 8;

/** The body of a map kernel, and how it is dispatched. */
export interface ElementBody {
  readonly declarations: readonly string[];
  readonly body: string;
  readonly workgroups: number;
  /** An invocation computes `steps` vectors, `stride` apart. */
  readonly stride: number;
  readonly steps: number;
  /** Elements in a vector: `y` is an array of vec4f if 4. */
  readonly width: 1 | 4;
  /** Bindings that are read as vec4f. */
  readonly wideBindings: readonly number[];
}

/**
 * A kernel that computes every element of `root`. An invocation computes vectors of four elements, `stride` vectors
 * apart. The stride is a multiple of the period of operands that repeat (a value for each channel), so those are loaded
 * once: on software drivers a load costs as much as 25 instructions, whether of one value or of four.
 */
export function elementBody(root: Tensor, context: ElementContext, workgroupSize: number): ElementBody {
  const count = elementCount(root.shape);
  const width = count % 4 === 0 ? 4 : 1;
  const { lets, value, operands } = new Element(root, context, width);
  const period = operands.find(({ place }) => place.period > 1)?.place.period ?? 1;
  const stride = period === 1 ? STRIDE : leastCommonMultiple(period, width) / width;
  const vectors = count / width;
  const steps = Math.max(1, Math.min(MAX_STEPS, Math.floor(vectors / Math.max(MIN_INVOCATIONS, stride))));
  const [strideText, stepsText] = [context.extent(stride), context.extent(steps)];
  const columns = period === 1 ? [] : periodColumns(width, context.extent(period));
  const once = operands.flatMap((operand, k) => loadOnce(operand, k, width, context));
  const each = operands.flatMap((operand, k) => loadEach(operand, k, width, context));
  const element = (lane: number): string =>
    `element(v * ${width}u + ${lane}u${operands.map((operand, k) => `, ${argument(operand, k, lane)}`).join('')})`;
  const body = wgsl`
    let t = wg * ${workgroupSize}u + lane;
    let first = t / ${strideText} * (${strideText} * ${stepsText}) + t % ${strideText};
    ${columns}
    ${once}
    for (var k = 0u; k < ${stepsText}; k++) {
      let v = first + k * ${strideText};
      if (${context.isUnit('v')}) {
        ${each}
        ${context.put(root, 'v', width === 1 ? element(0) : `vec4f(${lanes(width).map(element).join(', ')})`, width === 4)}
      }
    }`;
  const parameters = operands.map((_, k) => `, p${k}: f32`).join('');
  return {
    declarations: [`fn element(i: u32${parameters}) -> f32 {\n${lets.join('\n')}\nreturn ${value};\n}`],
    body,
    workgroups: Math.ceil((Math.ceil(vectors / (stride * steps)) * stride) / workgroupSize),
    stride,
    steps,
    width,
    wideBindings: operands.filter(({ wide }) => wide).map(({ binding }) => binding),
  };
}

const lanes = (width: 1 | 4): readonly number[] => [0, 1, 2, 3].slice(0, width);

/** `let c0 = …`: where the elements of a vector lie in the period; the same for all vectors of an invocation. */
function periodColumns(width: 1 | 4, period: string): string[] {
  return lanes(width).map((lane) => `let c${lane} = (first * ${width}u + ${lane}u) % ${period};`);
}

/** Statements that load an operand which is the same for all vectors of an invocation. */
function loadOnce({ binding, place }: Operand, k: number, width: 1 | 4, context: ElementContext): string[] {
  const { period, offset } = place;
  if (period === 0) return [];
  if (period === 1) return [`let p${k} = load${binding}(${offset}u);`];
  const extra = offset === 0 ? '' : ` + ${context.key(offset)}`;
  return [
    lanes(width)
      .map((lane) => `let p${k}_${lane} = load${binding}(c${lane}${extra});`)
      .join(' '),
  ];
}

/** Statements that load an operand for vector `v`. */
function loadEach(
  { binding, place, wide }: Operand,
  k: number,
  width: 1 | 4,
  context: ElementContext,
): string[] {
  if (place.period > 0) return [];
  if (wide) return [`let p${k} = ${context.word(binding, 'v')};`];
  return [
    lanes(width)
      .map((lane) => `let p${k}_${lane} = ${context.element(binding, `v * ${width}u + ${lane}u`)};`)
      .join(' '),
  ];
}

/** The value of an operand for one element of vector `v`. */
function argument({ place, wide }: Operand, k: number, lane: number): string {
  if (place.period === 1) return `p${k}`;
  return wide ? `p${k}.${'xyzw'[lane]}` : `p${k}_${lane}`;
}

/** One element as straight-line WGSL in `i` and the operands p0, p1, …: each node is computed once. */
class Element {
  readonly lets: string[] = [];
  readonly value: string;
  private readonly context: ElementContext;
  private readonly root: Tensor;
  private readonly width: 1 | 4;
  private readonly names = new Map<Tensor, Map<string, string>>();
  private readonly found = new Map<string, Operand>();
  private period: number | undefined;

  constructor(root: Tensor, context: ElementContext, width: 1 | 4) {
    this.root = root;
    this.context = context;
    this.width = width;
    this.value = this.at(root, EVERY);
  }

  get operands(): readonly Operand[] {
    return [...this.found.values()];
  }

  private at(node: Tensor, place: Place): string {
    if (node.op.name === 'constant') return literal((node.attrs as { value: number }).value);
    if (node.op.name === 'scalar') return this.context.scalar((node.attrs as { name: string }).name);
    if (node !== this.root && !this.context.computes(node)) return this.operand(node, place);
    const names = this.names.get(node) ?? new Map<string, string>();
    this.names.set(node, names);
    const key = `${place.period} ${place.offset}`;
    const known = names.get(key);
    if (known !== undefined) return known;
    const text = this.text(node, place);
    const name = `t${this.lets.length}`;
    this.lets.push(`let ${name} = ${text};`);
    names.set(key, name);
    return name;
  }

  private operand(source: Tensor, place: Place): string {
    const binding = this.context.bind(source);
    const key = `${binding} ${place.period} ${place.offset}`;
    const wide = this.width === 4 && place.period === 0 && isFloat(source);
    const { period, offset } = place;
    const index = period === 0 ? 'i' : period === 1 ? `${offset}u` : `i % ${period}u + ${offset}u`;
    this.context.access(binding, index);
    if (!this.found.has(key)) this.found.set(key, { binding, place, wide });
    return `p${[...this.found.keys()].indexOf(key)}`;
  }

  private text(node: Tensor, place: Place): string {
    const { kernel } = node.op;
    const i = this.index(place);
    if (kernel.kind === 'view') {
      const x = node.inputs[node.op.inputs[0]!]!;
      return this.source(x, kernel.index(i, x, node, node.attrs), i, place);
    }
    if (kernel.kind !== 'map') throw new Error(`${node} cannot be computed inside another kernel`);
    const site = { i, y: node, specs: node.inputs, key: (value: number) => this.context.key(value) };
    const values = Object.entries(node.inputs).map(([name, source]): [string, string] => {
      const index = kernel.index?.(name, node.attrs, site) ?? broadcastIndexText(source, node, i);
      return [name, this.source(source, index, i, place)];
    });
    const helper = kernel.declarations?.(node.attrs);
    if (helper !== undefined) this.context.help(helper);
    return kernel.expression(Object.fromEntries(values), node.attrs, site);
  }

  /** WGSL of the flat index into a value that is needed at `place`. */
  private index({ period, offset }: Place): string {
    if (period === 0) return 'i';
    return period === 1 ? `${offset}u` : `(i % ${this.context.key(period)} + ${offset}u)`;
  }

  /** A source at an index that was written in terms of `i`, the index of a value at `place`. */
  private source(source: Tensor, index: string, i: string, place: Place): string {
    const inner = placeOf(index, i, place);
    if (inner === undefined) return this.context.read(source, index);
    if (inner.period > 1) this.period ??= inner.period;
    if (inner.period > 1 && inner.period !== this.period) return this.context.read(source, index);
    return this.at(source, inner);
  }
}

/** The place that an index text, written for a value at `place` with index text `i`, stands for, if it is one. */
function placeOf(index: string, i: string, place: Place): Place | undefined {
  if (index === i) return place;
  const match = /^(?:(?<base>.+) % (?<period>\d+)u|(?<fixed>\d+)u)(?: \+ (?<offset>\d+)u)?$/.exec(index);
  const { base, period, fixed, offset = '0' } = match?.groups ?? {};
  if (fixed !== undefined) return { period: 1, offset: Number(fixed) + Number(offset) };
  if (base !== i) return undefined;
  const inner = { period: Number(period), offset: Number(offset) };
  if (place.period === 0) return inner;
  if (place.period === 1) return { period: 1, offset: (place.offset % inner.period) + inner.offset };
  return place.offset === 0 && place.period % inner.period === 0 ? inner : undefined;
}

/** WGSL of the flat index into x, broadcast to y, for flat output index `i`. */
export function broadcastIndexText(x: Spec, y: Spec, i: string): string {
  const count = elementCount(x.shape);
  if (count === elementCount(y.shape)) return i;
  if (count === 1) return '0u';
  const extra = y.shape.length - x.shape.length;
  if (x.shape.every((size, axis) => size === y.shape[axis + extra])) return `${i} % ${count}u`;
  const terms: string[] = [];
  let inner = 1;
  let stride = 1;
  for (let axis = y.shape.length - 1; axis >= 0; axis--) {
    const size = x.shape[axis - extra] ?? 1;
    if (size > 1) terms.push(`${i} / ${inner}u % ${y.shape[axis]}u * ${stride}u`);
    inner *= y.shape[axis]!;
    stride *= size;
  }
  return terms.join(' + ');
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return (a / x) * b;
}
