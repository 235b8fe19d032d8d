import { elementCount } from '../host-tensor.ts';
import type { KernelBody } from '../kernel.ts';
import { literal } from '../literal.ts';
import type { Range, ReduceKernel } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { type Declared, declared } from './bindings.ts';
import { chunkRange, type Extent, neighboursOf, nextTerm } from './chunks.ts';
import { broadcastIndexText, type ElementContext, elementBody } from './element.ts';
import { type EntryPoint, entryPoint, type Mode } from './entry-point.ts';
import { dependsOn, isFloat, throughAliases } from './fuse.ts';
import { rangeOf } from './interval.ts';
import { Keys } from './keys.ts';
import type { Lowered } from './lower.ts';
import { type Partials, type Stored, stored } from './stored.ts';
import { type Space, WindowWord, windowWord } from './window.ts';

/** In place of a binding: the output. */
const OWN = -1;
const WORKGROUP = 64;

/** A kernel whose text waits for the pages of its tensors. */
export interface Draft extends Omit<Lowered, 'code' | 'cut' | 'main'> {
  readonly operands: readonly Declared[];
  space(): Space;
  readonly text: EntryPoint['text'];
}

/** Writes the text of one kernel. Names are numbered in order of first use, so equal kernels have equal texts. */
export class Writer implements ElementContext {
  private readonly inlined: ReadonlySet<Tensor>;
  private readonly scalars: readonly string[];
  private readonly core: Tensor | undefined;
  private readonly reads: Stored[] = [];
  private readonly functions: string[] = [];
  private readonly named = new Map<Tensor, { readonly name: string; readonly accesses: readonly Access[] }>();
  private readonly helpers = new Set<string>();
  /** WGSL extensions. */
  private readonly enables = new Set<string>();
  private readonly keys = new Keys();
  private readonly wide = new Set<number>();
  private readonly mode: Mode;
  /** What the function being written reads, for each index `i` it is called with. */
  private accesses: Access[] = [];
  /** What is overwritten: read from the output instead of from a binding of its own. */
  private readonly own: Tensor | undefined;
  /** Whether element i of the output needs no other element of `own` than i. */
  elementwise = true;

  constructor(
    inlined: ReadonlySet<Tensor>,
    scalars: readonly string[],
    core: Tensor | undefined,
    mode: Mode,
    own?: Tensor,
  ) {
    this.own = own;
    this.inlined = inlined;
    this.scalars = scalars;
    this.core = core;
    this.mode = mode;
  }

  map(root: Tensor): Draft {
    const { declarations, body, width, wideBindings, ...grid } = elementBody(root, this, WORKGROUP);
    for (const binding of wideBindings) this.wide.add(binding);
    this.functions.push(...declarations);
    return this.finish(root, body, grid.workgroups, WORKGROUP, width === 4, () => ({
      units: elementCount(root.shape) / width,
      touches: ({ units: [from, to] }) => this.touched([from * width, to * width]),
      workgroups: ([from, to]) => {
        const first = Math.floor(from / (grid.stride * grid.steps)) * grid.stride;
        const end = (Math.floor((to - 1) / (grid.stride * grid.steps)) + 1) * grid.stride;
        return [Math.floor(first / WORKGROUP), Math.min(Math.ceil(end / WORKGROUP), grid.workgroups)];
      },
    }));
  }

  shader(root: Tensor, core: Tensor, kernel: KernelBody): Draft {
    const bound = new Map<string, number>();
    for (const [name, source] of Object.entries(core.inputs)) {
      const binding = this.bind(stored(source));
      bound.set(name, binding);
      if (kernel.vec4?.includes(name)) {
        this.wide.add(binding);
        this.functions.push(`fn load4_${name}(i: u32) -> vec4f { return ${this.word(binding, 'i')}; }`);
      } else this.functions.push(`fn load_${name}(i: u32) -> f32 { return load${binding}(i); }`);
    }
    const epilogue = root === core ? undefined : this.epilogue(root);
    const after = (value: string, i: string): string =>
      epilogue === undefined ? value : `${epilogue}(${i}, ${value})`;
    const wide = kernel.vec4?.includes('y') === true;
    const fold = root.dtype === 'f32' ? kernel.fold : undefined; // unfinished sums are stored
    const folds = this.mode === 'fold' && fold !== undefined;
    this.functions.push(
      folds
        ? `fn store(i: u32, v: f32) {
  if ((${windowWord(WindowWord.progress)} & 2u) == 0u) { putY(i, v); } else { putY(i, ${after('v', 'i')}); }
}
fn resumed(inside: bool, i: u32) -> f32 {
  if (inside && (${windowWord(WindowWord.progress)} & 1u) != 0u) { return getY(i); }
  return 0.0;
}`
        : wide
          ? `fn store4(i: u32, v: vec4f) { ${this.put(root, 'i', `vec4f(${['x', 'y', 'z', 'w'].map((c, k) => after(`v.${c}`, `i * 4u + ${k}u`)).join(', ')})`, true)} }`
          : `fn store(i: u32, v: f32) { ${this.put(root, 'i', after('v', 'i'), false)} }`,
    );
    if (kernel.declarations !== undefined) this.helpers.add(kernel.declarations);
    for (const extension of kernel.enables ?? []) this.enables.add(extension);
    const body = folds ? fold.body : kernel.body;
    return this.finish(root, body, kernel.workgroups, kernel.workgroupSize, wide, () => ({
      units: kernel.workgroups,
      ...(fold === undefined ? {} : { fold }),
      touches: ({ units, terms }) => {
        const own = (terms === undefined ? kernel.touches?.(...units) : fold?.touches(units, terms)) ?? {};
        const touched = this.touched(own.y ?? [0, elementCount(root.shape)]);
        for (const [name, binding] of bound) {
          const all: Range = [0, elementCount(this.reads[binding]!.shape)];
          touched[binding] = hull(touched[binding], own[name] ?? all);
        }
        return touched;
      },
      workgroups: (units) => units,
    }));
  }

  /** The reduction itself: an invocation folds `count` values for one output, or for four neighbouring ones. */
  reduce(root: Tensor, core: Tensor, kernel: ReduceKernel<unknown>, extent: Extent, x: Stored): Draft {
    const epilogue = root === core ? undefined : this.epilogue(root);
    const finish = (value: string, o: string): string =>
      epilogue === undefined ? value : `${epilogue}(${o}, ${value})`;
    return this.fold(root, kernel, extent, x, undefined, finish);
  }

  /** The first of two stages: every chunk of the values is folded by itself. */
  partial(
    partials: Partials,
    kernel: ReduceKernel<unknown>,
    extent: Extent,
    chunks: number,
    x: Stored,
  ): Draft {
    return this.fold(partials, kernel, extent, x, chunks, (value) => value);
  }

  private fold(
    root: Stored,
    kernel: ReduceKernel<unknown>,
    extent: Extent,
    x: Stored,
    chunks: number | undefined,
    finish: (value: string, o: string) => string,
  ): Draft {
    const { outer, count, inner } = extent;
    const load = this.loader(x);
    const addends: Access[] = [{ target: this.target(x), index: 'i' }];
    const binding = load.startsWith('load') ? Number(load.slice('load'.length)) : undefined;
    const wide = inner % 4 === 0 && binding !== undefined && isFloat(this.reads[binding]!);
    const width = wide ? 4 : 1;
    if (wide) this.wide.add(binding);
    const [n, m] = [this.extent(count), this.extent(inner / width)];
    const parts = chunks === undefined ? undefined : this.extent(chunks);
    const length = chunks === undefined ? n : this.extent(Math.ceil(count / chunks) * neighboursOf(extent));
    const [first, end, step] = chunkRange(parts, length, n, neighboursOf(extent));
    const value = wide ? this.word(binding, `base + r * ${m}`) : `${load}(base + r * ${m})`;
    const lanes = wide ? ['x', 'y', 'z', 'w'] : [''];
    const each = (text: (lane: string, k: number) => string): string =>
      wide ? `vec4f(${lanes.map((lane, k) => text(`.${lane}`, k)).join(', ')})` : text('', 0);
    const finished = each((lane, k) => finish(`acc${lane}`, wide ? `o * 4u + ${k}u` : 'o'));
    const part = this.mode === 'fold';
    const from = !part ? first : step === '1u' ? `max(${first}, termFrom)` : nextTerm(first, step);
    const body = wgsl`
      let o = wg * ${WORKGROUP}u + lane;
      if (${this.isUnit('o')}) {
        let row = o / ${m};
        let base = ${parts === undefined ? 'row' : `row / ${parts}`} * ${n} * ${m} + o % ${m};
        var acc = ${each(() => kernel.initial)};${part ? ' if ((progress & 1u) != 0u) { acc = getY(o); }' : ''}
        for (var r = ${from}; r < ${part ? `min(${end}, termTo)` : end}; r += ${step}) {
          let value = ${value};
          acc = ${each((lane) => kernel.combine(`acc${lane}`, `value${lane}`))};
        }
        ${part ? `if ((progress & 2u) == 0u) { putY(o, acc); } else { ${this.put(root, 'o', finished, wide)} }` : this.put(root, 'o', finished, wide)}
      }`;
    const outputs = (outer * (chunks ?? 1) * inner) / width;
    const block = chunks === undefined ? count : Math.ceil(count / chunks) * neighboursOf(extent);
    const terms = (row: number): Range => {
      const at = Math.floor((row % (chunks ?? 1)) / neighboursOf(extent)) * block;
      return chunks === undefined ? [0, count] : [Math.min(at, count), Math.min(at + block, count)];
    };
    return this.finish(root, body, Math.ceil(outputs / WORKGROUP), WORKGROUP, wide, () => ({
      units: outputs,
      ...(root.dtype === 'f32' ? { fold: { row: inner / width, count, terms } } : {}), // unfinished sums are stored
      touches: ({ units, terms: own }) => {
        const row = (unit: number): number => Math.floor((unit * width) / inner);
        const rows = [row(units[0]), row(units[1] - 1)] as const;
        const start = (of: number): number => Math.floor(of / (chunks ?? 1)) * count * inner;
        const [low, high] = own ?? [terms(rows[0])[0], terms(rows[1])[1]];
        const oneRow = rows[0] === rows[1];
        const columns = oneRow ? units.map((unit) => unit * width - rows[0] * inner) : [0, inner];
        const all = chunks !== undefined && start(rows[0]) !== start(rows[1]);
        const touched = this.touched([units[0] * width, units[1] * width]);
        const x: Range = all
          ? [start(rows[0]), start(rows[1]) + count * inner]
          : [start(rows[0]) + low * inner + columns[0]!, start(rows[1]) + (high - 1) * inner + columns[1]!];
        this.reach(addends, x, touched);
        return touched;
      },
      workgroups: ([from, to]) => [Math.floor(from / WORKGROUP), Math.ceil(to / WORKGROUP)],
    }));
  }

  /** Name of a function `(i: u32) -> f32` that gives element i of a stored or inlined value. */
  private loader(x: Stored): string {
    if ('of' in x) return `load${this.bind(x)}`;
    const source = throughAliases(x, this.inlined);
    if (stored(source) === this.own) this.elementwise = false;
    return this.inlined.has(source) ? this.compute(source) : `load${this.bind(stored(source))}`;
  }

  /** Declares `fn nK(i) -> f32` for a node that this kernel computes itself; with the core's value `v` passed along. */
  private compute(node: Tensor): string {
    const known = this.named.get(node);
    if (known !== undefined) return known.name;
    const passes = this.core !== undefined && dependsOn(node, this.core, this.inlined);
    const outer = this.accesses;
    this.accesses = [];
    const expression = this.expression(node, passes);
    const name = `n${this.named.size}`;
    this.named.set(node, { name, accesses: this.accesses });
    this.accesses = outer;
    this.functions.push(`fn ${name}(i: u32${passes ? ', v: f32' : ''}) -> f32 { return ${expression}; }`);
    return name;
  }

  /** As `compute`, called with the index of every element of the output. */
  private epilogue(root: Tensor): string {
    const name = this.compute(root);
    this.accesses.push({ target: root, index: 'i' });
    return name;
  }

  private expression(node: Tensor, passes: boolean): string {
    const { kernel } = node.op;
    if (kernel.kind === 'view') {
      const x = node.inputs[node.op.inputs[0]!]!;
      return this.read(x, kernel.index('i', x, node, node.attrs));
    }
    if (kernel.kind !== 'map') throw new Error(`${node} cannot be computed inside another kernel`);
    const site = { i: 'i', y: node, specs: node.inputs, key: (value: number) => this.key(value) };
    const values = Object.entries(node.inputs).map(([name, source]): [string, string] => {
      if (passes && source === this.core) return [name, 'v'];
      const inner =
        passes &&
        this.core !== undefined &&
        this.inlined.has(source) &&
        dependsOn(source, this.core, this.inlined);
      if (inner) {
        const text = `${this.compute(source)}(i, v)`;
        this.accesses.push({ target: source, index: 'i' });
        return [name, text];
      }
      const index = kernel.index?.(name, node.attrs, site) ?? broadcastIndexText(source, node, 'i');
      return [name, this.read(source, index)];
    });
    const helper = kernel.declarations?.(node.attrs);
    if (helper !== undefined) this.help(helper);
    return kernel.expression(Object.fromEntries(values), node.attrs, site);
  }

  computes(node: Tensor): boolean {
    return this.inlined.has(node);
  }

  help(declarations: string): void {
    this.helpers.add(declarations);
  }

  /** A value at any index, by a function of its own. */
  read(source: Tensor, index: string): string {
    if (source.op.name === 'constant') return literal((source.attrs as { value: number }).value);
    if (source.op.name === 'scalar') return this.scalar((source.attrs as { name: string }).name);
    const text = `${this.loader(source)}(${index})`;
    this.accesses.push({ target: this.target(source), index });
    return text;
  }

  access(binding: number, index: string): void {
    if (binding !== OWN) this.accesses.push({ target: binding, index });
    else if (index !== 'i') this.elementwise = false;
  }

  element(binding: number, index: string): string {
    return binding === OWN ? this.word(binding, index) : `load${binding}(${index})`;
  }

  word(binding: number, index: string): string {
    if (binding === OWN) return this.mode === 'whole' ? `y[${index}]` : `getY(${index})`;
    const word = this.mode === 'whole' ? `b${binding}[${index}]` : `word${binding}(${index})`;
    if (this.reads[binding]!.dtype !== 'f16') return word;
    this.help(WIDEN);
    return `widen(${word})`;
  }

  put(root: Stored, index: string, value: string, wide: boolean): string {
    const half = root.dtype === 'f16';
    if (half) this.enables.add('f16');
    const word = half ? `${wide ? 'vec4h' : 'f16'}(${value})` : value;
    return this.mode === 'whole' ? `y[${index}] = ${word};` : `putY(${index}, ${word});`;
  }

  isUnit(index: string): string {
    return this.mode === 'whole' ? `${index} < arrayLength(&y)` : `${index} >= unitFrom && ${index} < unitTo`;
  }

  /** What `loader` gives the elements of. */
  private target(x: Stored): number | Tensor {
    if ('of' in x) return this.bind(x);
    const source = throughAliases(x, this.inlined);
    return this.inlined.has(source) ? source : this.bind(stored(source));
  }

  /** Elements of every operand behind elements of the output. */
  private touched(y: Range): (Range | undefined)[] {
    const touched: (Range | undefined)[] = this.reads.map(() => [0, 0]);
    this.reach(this.accesses, y, touched);
    return [...touched, y];
  }

  /** Adds the elements of operands that are read for indices `i`. */
  private reach(accesses: readonly Access[], i: Range, touched: (Range | undefined)[]): void {
    const known = this.keys.byName();
    for (const { target, index } of accesses) {
      const of = typeof target === 'number' ? this.reads[target]! : target;
      const [from, to] = rangeOf(index, i, known);
      const range: Range = [Math.max(from, 0), Math.min(to, elementCount(of.shape))];
      if (typeof target === 'number') touched[target] = hull(touched[target], range);
      else this.reach(this.named.get(target)!.accesses, range, touched);
    }
  }

  scalar(name: string): string {
    const index = this.scalars.indexOf(name);
    return `frame.s${index >> 2}.${'xyzw'[index & 3]}`;
  }

  key(value: number): string {
    return this.keys.key(value);
  }

  extent(size: number): string {
    return this.keys.extent(size);
  }

  bind(x: Stored): number {
    if (x === this.own) return OWN;
    const known = this.reads.indexOf(x);
    return known >= 0 ? known : this.reads.push(x) - 1;
  }

  private finish(
    root: Stored,
    body: string,
    workgroups: number,
    size: number,
    wide: boolean,
    space: () => Space,
  ): Draft {
    const inputs = this.reads.map((spec, k) => declared(spec, this.wide.has(k), false));
    const output = declared(root, wide, true);
    const { enables, helpers, functions, mode } = this;
    const { grid, usesFrame, text } = entryPoint({
      ...{ enables, helpers, functions, mode },
      ...{ body, workgroups, size, inputs, output },
    });
    const node = 'of' in root ? root.of : root;
    const label =
      this.core === undefined || this.core === node ? String(node) : `${this.core} + ${node.op.name}`;
    return {
      label,
      node,
      text,
      operands: [...inputs, output],
      space,
      reads: this.reads,
      writes: root,
      workgroups: grid,
      keys: usesFrame ? this.keys.values : undefined,
    };
  }
}

/** A read of a binding or of an inlined value, at an index in terms of `i`. */
interface Access {
  readonly target: number | Tensor;
  readonly index: string;
}

/** The smallest range that holds both; an empty one holds nothing. */
function hull(a: Range | undefined, b: Range): Range {
  if (a === undefined || a[1] <= a[0]) return b;
  return b[1] <= b[0] ? a : [Math.min(a[0], b[0]), Math.max(a[1], b[1])];
}

/** Four f16 as f32. */
const WIDEN = 'fn widen(h: vec2u) -> vec4f { return vec4f(unpack2x16float(h.x), unpack2x16float(h.y)); }';
