import type { KernelBody, KernelTarget } from './kernel.ts';
import { type Spec, Tensor } from './tensor.ts';

export type Named<N extends readonly string[], T> = { readonly [K in N[number]]: T };

/** Half-open range of rows `[from, to)`. */
export type Range = readonly [from: number, to: number];

/** Which rows of an axis each part of a sequence holds: part p those from `start + p · size`, as far as they exist. */
export interface Rows {
  readonly axis: number;
  /** First row of part 0; negative where the first parts hold nothing. */
  readonly start: number;
  /** Rows of one part. */
  readonly size: number;
  /** Rows of the whole axis. */
  readonly length: number;
}

/** Rows at the front of each part of a sequence, then at its back. */
export interface Edges {
  readonly head: number;
  readonly tail: number;
}

/** Those of all parts from `first` on: `[parts, …, head + tail, …]`. */
export interface PartEdges extends Edges {
  readonly first: number;
}

/** What a `map` expression may use besides the values of its inputs. */
export interface MapSite {
  /** WGSL of the flat output index, `u32`. */
  readonly i: string;
  /** WGSL of a per-use constant (`u32`) that is passed beside the kernel, so that the text stays the same. */
  key(value: number): string;
  readonly y: Spec;
  readonly specs: Readonly<Record<string, Spec>>;
}

/** One output element from one element of each input. Maps fuse into their readers and into the kernel before them. */
export interface MapKernel<N extends readonly string[], A> {
  readonly kind: 'map';
  /** WGSL of the value (of the output's dtype, f32 if that is a float). Also sees `frame.seed`, `.step`, `.sequence`. */
  expression(x: Named<N, string>, attrs: A, site: MapSite): string;
  /** Flat index into an input for output element `site.i`; without it inputs broadcast as in NumPy. */
  index?(input: N[number], attrs: A, site: MapSite): string | undefined;
  /** Inputs, far smaller than the output, that are stored before they are read: else each element would compute one anew. */
  readonly stored?: readonly N[number][];
  /** Worth recomputing in every reader instead of storing (default true); set false for transcendental functions. */
  readonly cheap?: boolean;
  /** Module-scope WGSL functions the expression calls. The same text is declared once a kernel. */
  declarations?(attrs: A): string;
}

/** Folds the axes `[from, to)` of `x` away: `finish(combine over elements, starting at initial)`. The first input is x. */
export interface ReduceKernel<A> {
  readonly kind: 'reduce';
  axes(attrs: A, x: Spec): Range;
  readonly initial: string;
  combine(accumulated: string, value: string): string;
}

/** The input re-indexed: no arithmetic. With `alias` the elements keep their order and nothing is copied. */
export interface ViewKernel<A> {
  readonly kind: 'view';
  readonly alias?: boolean;
  /** Flat index into the first input for flat output index `i`. */
  index(i: string, x: Spec, y: Spec, attrs: A): string;
}

/** A whole kernel body, which may depend on the kind of device. */
export interface ShaderKernel<N extends readonly string[], A> {
  readonly kind: 'shader';
  /** Costs about what a map costs, a few passes over its inputs: large results are computed again rather than kept. */
  readonly light?: true;
  body(specs: Named<N, Spec>, y: Spec, attrs: A, target: KernelTarget): KernelBody;
}

/** A value from outside the graph. */
export interface SourceKernel {
  readonly kind: 'source';
}

/** Data from other leaves; put in by the shard pass and by `leafSum`, carried out between segments. */
export interface ExchangeKernel {
  readonly kind: 'exchange';
  readonly exchange: 'combine' | 'sum';
}

export type Kernel<N extends readonly string[], A> =
  | MapKernel<N, A>
  | ReduceKernel<A>
  | ViewKernel<A>
  | ShaderKernel<N, A>
  | SourceKernel
  | ExchangeKernel;

/** Reference values: float64, row-major. */
export interface Reference {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** An example call on which an op is tested: shapes of the inputs, attributes, and how inputs are drawn. */
export interface Sample<N extends readonly string[], A> {
  readonly inputs: Named<N, readonly number[]>;
  readonly attrs: A;
  /** Range the random inputs are drawn from, `[-1, 1)` by default; `integers` draws whole numbers. */
  readonly range?: Partial<Named<N, readonly [number, number]>>;
  readonly integers?: readonly N[number][];
}

/** Everything cohesin needs to know about one operation. */
export interface Op<N extends readonly string[], A> {
  readonly name: string;
  readonly inputs: N;
  /**
   * Which axes of inputs and output belong together, as in einsum: `batch length in, size in out -> batch length out`.
   * An axis missing from the output is summed over; `~` marks a sliding window (see `reads`); `_` is an axis of its own;
   * `+` as the first axis of the output holds partial sums of which only the total is defined.
   * Maps need none: they are element by element. Data, tensor and sequence parallelism all split one of these axes.
   */
  readonly axes?: string | ((attrs: A) => string);
  /** Shape and dtype of the result; throws, with both sizes and the fix, when the inputs do not fit. */
  infer(inputs: Named<N, Spec>, attrs: A): Spec;
  readonly kernel: Kernel<N, A>;
  /** Gradients of the inputs, each built only if it is needed. */
  gradient?(dy: Tensor, inputs: Named<N, Tensor>, attrs: A, y: Tensor): Partial<Named<N, () => Tensor>>;
  /** For an axis marked `~`: the input rows behind output rows, and the attributes of that piece of the work. */
  reads?(
    inputs: Named<N, Spec>,
    attrs: A,
    rows: Range,
  ): { readonly rows: Partial<Named<N, Range>>; readonly attrs: A };
  /** The attributes for a part's own rows of the output, for ops whose values depend on where in the whole they are. */
  atRows?(attrs: A, rows: Rows): A;
  /** Those of a part's own rows made those for the edges of all parts. */
  atEdges?(attrs: A, edges: PartEdges): A;
  /** What parts of a sequence computed on their own rows, `[parts, …]`, made one `[1, …]`; a sum by default. */
  mergeParts?(pieces: Tensor): Tensor;
  /** Folds an axis of leaves in logical order: what the leaves hold is gathered first, the fold runs on every rank. */
  readonly combine?: boolean;
  /** Statistics that the backward pass shares with the forward pass: always kept, never computed again to save memory. */
  readonly saved?: boolean;
  /** Sums of products, as of matrices: in mixed precision what it reads and gives of a batch is stored as f16. */
  readonly product?: true;
  /** f(a + b) = f(a) + f(b) in the inputs that vary: may run on per-leaf addends of a sum. */
  readonly linear?: boolean;
  /** Inputs of which only the shape is used; they are dropped once shapes are known. */
  readonly shapeOnly?: readonly N[number][];
  /** Plain loops in float64. */
  reference?(inputs: Named<N, Reference>, attrs: A): Float64Array;
  readonly samples?: readonly Sample<N, A>[];
}

/** An op with its types erased, as the compiler sees it. */
export type AnyOp = Op<readonly string[], unknown>;

/** Records a call to the op. */
export type OpCall<N extends readonly string[], A> = (inputs: Named<N, Tensor>, attrs: A) => Tensor;

const registry = new Map<string, AnyOp>();

/**
 * Declares an op: `defineOp<Attrs>()({ name, inputs, infer, kernel, … })`; the first call only names the attributes' type.
 * Declaring is all there is to adding one: tests, gradients, fusion and sharding read the declaration.
 *
 * @throws when an op of that name exists.
 */
export function defineOp<A = undefined>(): <const N extends readonly string[]>(op: Op<N, A>) => OpCall<N, A> {
  return <const N extends readonly string[]>(op: Op<N, A>) => {
    if (registry.has(op.name)) throw new Error(`op '${op.name}' is declared twice; choose another name`);
    const erased = op as unknown as AnyOp;
    registry.set(op.name, erased);
    return (inputs: Named<N, Tensor>, attrs: A) => new Tensor(erased, inputs, attrs, op.infer(inputs, attrs));
  };
}

/** The op declared under this name. @throws when there is none, listing what there is. */
export function declaredOp(name: string): AnyOp {
  const op = registry.get(name);
  if (op === undefined)
    throw new Error(`no op is called '${name}'; declared: ${[...registry.keys()].join(', ')}`);
  return op;
}

/** All declared ops, in declaration order. */
export function declaredOps(): readonly AnyOp[] {
  return [...registry.values()];
}
