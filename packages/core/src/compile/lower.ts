import { elementCount } from '../host-tensor.ts';
import type { KernelTarget } from '../kernel.ts';
import type { Range, ReduceKernel } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import { type Extent, neighboursOf } from './chunks.ts';
import type { Mode } from './entry-point.ts';
import type { Fused, Group } from './fuse.ts';
import type { Partials, Stored } from './stored.ts';
import { planWindows, type Window } from './window.ts';
import { type Draft, Writer } from './writer.ts';

/** A kernel with the tensors it is bound to, in binding order: inputs, then the output. */
export interface Lowered {
  readonly label: string;
  /** What it computes. */
  readonly node: Tensor;
  /** The node whose layer it belongs to: the reduction or shader at its heart, or else `node`. */
  readonly main: Tensor;
  /** Its place among the kernels of the whole step, once these are in order. */
  readonly ordinal?: number;
  /** Whether it runs a second time, for the backward pass. */
  readonly again?: boolean;
  readonly code: string;
  readonly reads: readonly Stored[];
  readonly writes: Stored;
  readonly workgroups: readonly [x: number, y: number];
  /** Immediates `frame.k` of this use; undefined when the kernel reads no frame. */
  readonly keys: readonly number[] | undefined;
  /** Parts of a sequence it runs for, where that is not all of them. */
  readonly parts?: Range;
  /** The same work for a device that binds at most `limit` bytes at a time. @throws when it cannot be divided. */
  cut(limit: number): Cut;
}

/** A kernel's work in windows: one text, which reads what is bound from the constants of each window. */
export interface Cut {
  readonly code: string;
  readonly keys: readonly number[] | undefined;
  readonly windows: readonly Window[];
}

/** A reduction with fewer outputs than this and more addends than `CHUNK` is done in two stages, for parallelism. */
const FEW_OUTPUTS = 2048;
const CHUNK = 64;
const MAX_CHUNKS = 256;
/** No more addends than `LONG` are added one after the other: rounding grows with the run. Longer ones in runs of `RUN`. */
const LONG = 512;
const RUN = 128;

/** The kernels of one group: one, or several for a reduction in stages. */
export function lower(
  group: Group,
  { inlined }: Fused,
  scalars: readonly string[],
  target: KernelTarget,
): readonly Lowered[] {
  const { core, root } = group;
  const kernel = (of: Tensor | undefined, write: (writer: Writer) => Draft): Lowered => {
    const draft = (mode: Mode): Draft => write(new Writer(inlined, scalars, of, mode));
    const { text, ...whole } = draft('whole');
    return { ...whole, main: of ?? whole.node, code: text(), cut: (limit) => cut(draft, limit) };
  };
  if (core !== undefined && core.op.kernel.kind === 'reduce') return lowerReduce(group, kernel);
  if (core !== undefined && core.op.kernel.kind === 'shader') {
    const body = core.op.kernel.body(core.inputs, core, core.attrs, target);
    return [kernel(core, (writer) => writer.shader(root, core, body))];
  }
  return [kernel(core, (writer) => writer.map(root))];
}

/**
 * The kernel of a group that computes the new value of `own` element by element, written over the old one, which is then
 * not among `reads`; undefined for other groups.
 */
export function lowerInPlace(
  { core, root }: Group,
  { inlined }: Fused,
  scalars: readonly string[],
  own: Tensor,
): Lowered | undefined {
  if (core !== undefined || elementCount(own.shape) !== elementCount(root.shape)) return undefined;
  let elementwise = true;
  const draft = (mode: Mode): Draft => {
    const writer = new Writer(inlined, scalars, undefined, mode, own);
    const written = writer.map(root);
    elementwise &&= writer.elementwise;
    return written;
  };
  const { text, ...whole } = draft('whole');
  if (!elementwise) return undefined;
  return { ...whole, main: whole.node, writes: own, code: text(), cut: (limit) => cut(draft, limit) };
}

function cut(draft: (mode: Mode) => Draft, limit: number): Cut {
  const windowed = draft('window');
  const plan = planWindows(windowed.space(), windowed.operands, { limit, label: windowed.label });
  const { text, keys } = plan.folds ? draft('fold') : windowed;
  return { code: text(plan), keys, windows: plan.windows };
}

function lowerReduce(
  group: Group,
  lowered: (core: Tensor | undefined, write: (writer: Writer) => Draft) => Lowered,
): readonly Lowered[] {
  const core = group.core!;
  const kernel = core.op.kernel as ReduceKernel<unknown>;
  const x = core.inputs[core.op.inputs[0]!]!;
  const [from, to] = kernel.axes(core.attrs, x);
  const whole = {
    outer: elementCount(x.shape.slice(0, from)),
    count: elementCount(x.shape.slice(from, to)),
    inner: elementCount(x.shape.slice(to)),
  };
  const stages: Lowered[] = [];
  let source: Stored = x;
  let extent = whole;
  for (let wanted = Math.max(chunksForParallelism(whole), chunksForAccuracy(whole)); wanted > 1; ) {
    const { outer, inner } = extent;
    const neighbours = neighboursOf(extent);
    const chunks = Math.ceil(wanted / neighbours) * neighbours;
    const partials: Partials = { of: core, shape: [outer, chunks, inner], dtype: 'f32' };
    const [of, from] = [extent, source];
    stages.push(lowered(undefined, (writer) => writer.partial(partials, kernel, of, chunks, from)));
    [source, extent] = [partials, { outer, count: chunks, inner }];
    wanted = chunksForAccuracy(extent);
  }
  return [...stages, lowered(core, (writer) => writer.reduce(group.root, core, kernel, extent, source))];
}

function chunksForParallelism({ outer, count, inner }: Extent): number {
  const outputs = outer * inner;
  if (outputs >= FEW_OUTPUTS || count <= CHUNK) return 1;
  return Math.min(MAX_CHUNKS, Math.ceil(count / CHUNK), Math.ceil((FEW_OUTPUTS * 4) / outputs));
}

function chunksForAccuracy({ count }: Extent): number {
  return count <= LONG ? 1 : Math.ceil(count / RUN);
}
