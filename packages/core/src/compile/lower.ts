import { elementCount } from '../host-tensor.ts';
import type { KernelBody, KernelTarget } from '../kernel.ts';
import { literal } from '../literal.ts';
import type { ReduceKernel } from '../op.ts';
import type { DType, Tensor } from '../tensor.ts';
import { wgsl } from '../wgsl.ts';
import { broadcastIndexText, type ElementContext, elementBody } from './element.ts';
import { type Fused, type Group, isAlias } from './fuse.ts';

/** A kernel with the tensors it is bound to, in binding order: inputs, then the output. */
export interface Lowered {
  readonly label: string;
  readonly code: string;
  readonly reads: readonly Stored[];
  readonly writes: Stored;
  readonly workgroups: readonly [x: number, y: number];
  /** Immediates `frame.k` of this use; undefined when the kernel reads no frame. */
  readonly keys: readonly number[] | undefined;
}

/** A tensor that is stored, or the partial results of a reduction in two stages. */
export type Stored = Tensor | Partials;

export interface Partials {
  readonly of: Tensor;
  readonly shape: readonly number[];
  readonly dtype: 'f32';
}

const WORKGROUP = 64;
/** A reduction with fewer outputs than this and more addends than `CHUNK` is done in two stages, for parallelism. */
const FEW_OUTPUTS = 2048;
const CHUNK = 64;
const MAX_CHUNKS = 256;
/** Immediates for keys; further ones are written into the text. */
const MAX_KEYS = 4;
const MAX_WORKGROUPS_X = 65_535; // WebGPU's maxComputeWorkgroupsPerDimension

/** Values that change from run to run. 64 bytes, the guaranteed size of immediates. */
export const FRAME: string = wgsl`
  struct Frame { seed: u32, step: u32, leaf: u32, sequence: u32, k: vec4u, s0: vec4f, s1: vec4f }
  var<immediate> frame: Frame;`;

/** The kernels of one group: one, or two for a reduction that needs two stages. */
export function lower(
  group: Group,
  { inlined }: Fused,
  scalars: readonly string[],
  target: KernelTarget,
): readonly Lowered[] {
  const { core, root } = group;
  if (core !== undefined && core.op.kernel.kind === 'reduce') return lowerReduce(group, inlined, scalars);
  const writer = new Writer(inlined, scalars, core);
  if (core !== undefined && core.op.kernel.kind === 'shader') {
    const body = core.op.kernel.body(core.inputs, core, core.attrs, target);
    return [writer.shader(root, core, body)];
  }
  return [writer.map(root)];
}

function lowerReduce(
  group: Group,
  inlined: ReadonlySet<Tensor>,
  scalars: readonly string[],
): readonly Lowered[] {
  const core = group.core!;
  const kernel = core.op.kernel as ReduceKernel<unknown>;
  const x = core.inputs[core.op.inputs[0]!]!;
  const [from, to] = kernel.axes(core.attrs, x);
  const extent = {
    outer: elementCount(x.shape.slice(0, from)),
    count: elementCount(x.shape.slice(from, to)),
    inner: elementCount(x.shape.slice(to)),
  };
  const outputs = extent.outer * extent.inner;
  if (outputs >= FEW_OUTPUTS || extent.count <= CHUNK) {
    return [new Writer(inlined, scalars, core).reduce(group.root, core, kernel, extent, x)];
  }
  const wanted = Math.min(
    MAX_CHUNKS,
    Math.ceil(extent.count / CHUNK),
    Math.ceil((FEW_OUTPUTS * 4) / outputs),
  );
  const neighbours = neighboursOf(extent);
  const chunks = Math.ceil(Math.max(2, wanted) / neighbours) * neighbours;
  const partials: Partials = { of: core, shape: [extent.outer, chunks, extent.inner], dtype: 'f32' };
  return [
    new Writer(inlined, scalars, undefined).partial(partials, kernel, extent, chunks, x),
    new Writer(inlined, scalars, core).reduce(
      group.root,
      core,
      kernel,
      { ...extent, count: chunks },
      partials,
    ),
  ];
}

interface Extent {
  readonly outer: number;
  readonly count: number;
  readonly inner: number;
}

/**
 * Chunks that share a range of values, taken in turn: where a value is not a row of channels, neighbouring lanes then
 * read neighbouring addresses, 32 bytes at a time, and each range is still read from end to end.
 */
function neighboursOf({ inner }: Extent): 1 | 8 {
  return inner < 8 ? 8 : 1;
}

/** Writes the text of one kernel. Names are numbered in order of first use, so equal kernels have equal texts. */
class Writer implements ElementContext {
  private readonly inlined: ReadonlySet<Tensor>;
  private readonly scalars: readonly string[];
  private readonly core: Tensor | undefined;
  private readonly reads: Stored[] = [];
  private readonly functions: string[] = [];
  private readonly named = new Map<Tensor, string>();
  private readonly helpers = new Set<string>();
  /** WGSL extensions. */
  private readonly enables = new Set<string>();
  private readonly keys: number[] = [];
  /** Positions of keys that are sizes. */
  private readonly extents = new Set<number>();
  private readonly wide = new Set<number>();

  constructor(inlined: ReadonlySet<Tensor>, scalars: readonly string[], core: Tensor | undefined) {
    this.inlined = inlined;
    this.scalars = scalars;
    this.core = core;
  }

  map(root: Tensor): Lowered {
    const { declarations, body, workgroups, width, wideBindings } = elementBody(root, this, WORKGROUP);
    for (const binding of wideBindings) this.wide.add(binding);
    this.functions.push(...declarations);
    return this.finish(root, body, workgroups, WORKGROUP, width === 4);
  }

  shader(root: Tensor, core: Tensor, kernel: KernelBody): Lowered {
    for (const [name, source] of Object.entries(core.inputs)) {
      const binding = this.bind(stored(source));
      if (kernel.vec4?.includes(name)) {
        this.wide.add(binding);
        this.functions.push(`fn load4_${name}(i: u32) -> vec4f { return b${binding}[i]; }`);
      } else this.functions.push(`fn load_${name}(i: u32) -> f32 { return load${binding}(i); }`);
    }
    const epilogue = root === core ? undefined : this.compute(root);
    const after = (value: string, i: string): string =>
      epilogue === undefined ? value : `${epilogue}(${i}, ${value})`;
    const wide = kernel.vec4?.includes('y') === true;
    this.functions.push(
      wide
        ? `fn store4(i: u32, v: vec4f) { y[i] = vec4f(${['x', 'y', 'z', 'w'].map((c, k) => after(`v.${c}`, `i * 4u + ${k}u`)).join(', ')}); }`
        : `fn store(i: u32, v: f32) { y[i] = ${after('v', 'i')}; }`,
    );
    if (kernel.declarations !== undefined) this.helpers.add(kernel.declarations);
    for (const extension of kernel.enables ?? []) this.enables.add(extension);
    return this.finish(root, kernel.body, kernel.workgroups, kernel.workgroupSize, wide);
  }

  /** The reduction itself: an invocation folds `count` values for one output, or for four neighbouring ones. */
  reduce(root: Tensor, core: Tensor, kernel: ReduceKernel<unknown>, extent: Extent, x: Stored): Lowered {
    const epilogue = root === core ? undefined : this.compute(root);
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
  ): Lowered {
    return this.fold(partials, kernel, extent, x, chunks, (value) => value);
  }

  private fold(
    root: Stored,
    kernel: ReduceKernel<unknown>,
    extent: Extent,
    x: Stored,
    chunks: number | undefined,
    finish: (value: string, o: string) => string,
  ): Lowered {
    const { outer, count, inner } = extent;
    const load = this.loader(x);
    const wide = inner % 4 === 0 && load.startsWith('load') && x.dtype === 'f32';
    const width = wide ? 4 : 1;
    if (wide) this.wide.add(Number(load.slice('load'.length)));
    const [n, m] = [this.extent(count), this.extent(inner / width)];
    const parts = chunks === undefined ? undefined : this.extent(chunks);
    const length = chunks === undefined ? n : this.extent(Math.ceil(count / chunks) * neighboursOf(extent));
    const [first, end, step] = chunkRange(parts, length, n, neighboursOf(extent));
    const value = wide ? `b${load.slice('load'.length)}[base + r * ${m}]` : `${load}(base + r * ${m})`;
    const lanes = wide ? ['x', 'y', 'z', 'w'] : [''];
    const each = (text: (lane: string, k: number) => string): string =>
      wide ? `vec4f(${lanes.map((lane, k) => text(`.${lane}`, k)).join(', ')})` : text('', 0);
    const body = wgsl`
      let o = wg * ${WORKGROUP}u + lane;
      if (o < arrayLength(&y)) {
        let row = o / ${m};
        let base = ${parts === undefined ? 'row' : `row / ${parts}`} * ${n} * ${m} + o % ${m};
        var acc = ${each(() => kernel.initial)};
        for (var r = ${first}; r < ${end}; r += ${step}) {
          let value = ${value};
          acc = ${each((lane) => kernel.combine(`acc${lane}`, `value${lane}`))};
        }
        y[o] = ${each((lane, k) => finish(`acc${lane}`, wide ? `o * 4u + ${k}u` : 'o'))};
      }`;
    const outputs = (outer * (chunks ?? 1) * inner) / width;
    return this.finish(root, body, Math.ceil(outputs / WORKGROUP), WORKGROUP, wide);
  }

  /** Name of a function `(i: u32) -> f32` that gives element i of a stored or inlined value. */
  private loader(x: Stored): string {
    if ('of' in x) return `load${this.bind(x)}`;
    const source = throughAliases(x, this.inlined);
    return this.inlined.has(source) ? this.compute(source) : `load${this.bind(stored(source))}`;
  }

  /** Declares `fn nK(i) -> f32` for a node that this kernel computes itself; with the core's value `v` passed along. */
  private compute(node: Tensor): string {
    const known = this.named.get(node);
    if (known !== undefined) return known;
    const passes = this.core !== undefined && dependsOn(node, this.core, this.inlined);
    const expression = this.expression(node, passes);
    const name = `n${this.named.size}`;
    this.named.set(node, name);
    this.functions.push(`fn ${name}(i: u32${passes ? ', v: f32' : ''}) -> f32 { return ${expression}; }`);
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
      if (inner) return [name, `${this.compute(source)}(i, v)`];
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
    return `${this.loader(source)}(${index})`;
  }

  scalar(name: string): string {
    const index = this.scalars.indexOf(name);
    return `frame.s${index >> 2}.${'xyzw'[index & 3]}`;
  }

  /** An immediate for a constant of this use: the text stays the same for every layer and shape. */
  key(value: number): string {
    const known = this.keys.findIndex((key, position) => key === value && !this.extents.has(position));
    return known >= 0 ? this.keyName(known) : this.newKey(value);
  }

  /** As `key`, but never shared, so that sizes that happen to be equal do not change the text. */
  extent(size: number): string {
    this.extents.add(this.keys.length);
    return this.newKey(size);
  }

  private newKey(value: number): string {
    if (this.keys.length === MAX_KEYS) return `${value}u`;
    return this.keyName(this.keys.push(value) - 1);
  }

  private keyName(index: number): string {
    return `frame.k.${'xyzw'[index]}`;
  }

  bind(x: Stored): number {
    const known = this.reads.indexOf(x);
    return known >= 0 ? known : this.reads.push(x) - 1;
  }

  private finish(root: Stored, body: string, workgroups: number, size: number, wide = false): Lowered {
    const x = Math.min(workgroups, MAX_WORKGROUPS_X);
    const y = Math.ceil(workgroups / x);
    const bindings = this.reads.map((spec, k) => declare(spec.dtype, k, this.wide.has(k)));
    const output = `@group(0) @binding(${this.reads.length}) var<storage, read_write> y: array<${wide ? 'vec4f' : 'f32'}>;`;
    const usesFrame = [body, ...this.functions].some((text) => text.includes('frame.'));
    const guarded = x * y === workgroups ? body : `if (wg < ${workgroups}u) {\n${body}\n}`;
    const subgroup = this.enables.has('subgroups') ? ', @builtin(subgroup_id) subgroup: u32' : '';
    const enables = [...this.enables].map((extension) => `enable ${extension};`);
    const code = wgsl`
${[...enables, ...(usesFrame ? [FRAME] : []), ...bindings, output, ...this.helpers, ...this.functions]}
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32${subgroup}) {
let wg = ${y === 1 ? 'id.x' : `id.y * ${x}u + id.x`};
${guarded}
}`;
    const node = 'of' in root ? root.of : root;
    const label =
      this.core === undefined || this.core === node ? String(node) : `${this.core} + ${node.op.name}`;
    return {
      label,
      code,
      reads: this.reads,
      writes: root,
      workgroups: [x, y],
      keys: usesFrame ? this.keys : undefined,
    };
  }
}

/** The tensor whose storage holds these elements. */
export function stored(node: Tensor): Tensor {
  return isAlias(node) ? stored(node.inputs[node.op.inputs[0]!]!) : node;
}

function throughAliases(node: Tensor, inlined: ReadonlySet<Tensor>): Tensor {
  return isAlias(node) && inlined.has(node)
    ? throughAliases(node.inputs[node.op.inputs[0]!]!, inlined)
    : node;
}

function dependsOn(node: Tensor, core: Tensor, inlined: ReadonlySet<Tensor>): boolean {
  return Object.values(node.inputs).some(
    (source) => source === core || (inlined.has(source) && dependsOn(source, core, inlined)),
  );
}

/** Declares binding k and its scalar loader. */
function declare(dtype: DType, k: number, wide: boolean): string {
  const word = dtype === 'f32' ? (wide ? 'vec4f' : 'f32') : 'u32';
  const element = {
    f32: wide ? `b${k}[i >> 2u][i & 3u]` : `b${k}[i]`,
    u32: `f32(b${k}[i])`,
    i32: `f32(bitcast<i32>(b${k}[i]))`,
    f16: `unpack2x16float(b${k}[i >> 1u])[i & 1u]`,
    u8: `f32((b${k}[i >> 2u] >> ((i & 3u) * 8u)) & 0xffu)`,
  }[dtype];
  return `@group(0) @binding(${k}) var<storage, read> b${k}: array<${word}>;\nfn load${k}(i: u32) -> f32 { return ${element}; }`;
}

/** WGSL of the values an invocation folds: from, to and step; those of chunk `row % parts` if there are chunks. */
function chunkRange(
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
