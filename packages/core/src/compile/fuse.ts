import { type Graph, readers, roots, topologicalOrder } from '../graph.ts';
import { elementCount } from '../host-tensor.ts';
import { type DType, sameShape, type Tensor } from '../tensor.ts';
import { isAlias, stored } from './stored.ts';

/** One kernel to be: what it stores, what it computes on the way, what it reads. */
export interface Group {
  /** The tensor the kernel stores. */
  readonly root: Tensor;
  /** The reduction or shader at its heart, whose result passes through the maps between it and the root. */
  readonly core: Tensor | undefined;
}

export interface Fused {
  readonly groups: readonly Group[];
  /** Nodes that are computed inside the kernels of their readers and never stored. */
  readonly inlined: ReadonlySet<Tensor>;
}

/** Portable limit of storage buffers in a kernel is 8: seven inputs and the output. */
const MAX_INPUTS = 7;
/** A cheap value that takes more nodes than this to recompute is stored if several kernels need it. */
const MAX_RECOMPUTED_NODES = 12;

/**
 * Forms the groups that become kernels, each with exactly one stored output. Maps and views go into their readers; what
 * follows a reduction or a shader element by element becomes its epilogue. A phase is a barrier except for cheap maps,
 * which are computed again wherever they are read.
 *
 * Without `merge` every node is a group of its own, but for aliases, and integers, which have no storage.
 */
export function fuse(graph: Graph, merge = true): Fused {
  const order = topologicalOrder(roots(graph));
  const readBy = readers(order);
  const kept = new Set(roots(graph));
  const inlined = new Set(
    order.filter((node) => mayInline(node, readBy, kept) && (merge || isAlias(node) || !isFloat(node))),
  );
  if (merge) splitLargeGroups(order, inlined, kept, readBy);
  const cores = merge ? absorbEpilogues(order, readBy, kept, inlined) : new Map<Tensor, Tensor>();
  const groups = order
    .filter((node) => !inlined.has(node) && !isStorage(node) && ![...cores.values()].includes(node))
    .map((root) => ({ root, core: cores.get(root) ?? (isCore(root) ? root : undefined) }));
  return { groups, inlined };
}

const isCore = (node: Tensor): boolean =>
  node.op.kernel.kind === 'reduce' || node.op.kernel.kind === 'shader';

/** Sources and exchanged values have storage of their own; an alias of stored elements needs none. */
export function isStorage(node: Tensor): boolean {
  return node.op.kernel.kind === 'source' || node.op.kernel.kind === 'exchange';
}

/** Readers, looking through aliases. */
function finalReaders(node: Tensor, readBy: ReadonlyMap<Tensor, readonly Tensor[]>): Tensor[] {
  return readBy
    .get(node)!
    .flatMap((reader) => (isAlias(reader) ? [reader, ...finalReaders(reader, readBy)] : [reader]));
}

function mayInline(
  node: Tensor,
  readBy: ReadonlyMap<Tensor, readonly Tensor[]>,
  kept: ReadonlySet<Tensor>,
): boolean {
  const { kernel } = node.op;
  if (isAlias(node)) return !kept.has(node);
  if ((kernel.kind !== 'map' && kernel.kind !== 'view') || kept.has(node)) return false;
  const all = finalReaders(node, readBy);
  if (all.some((reader) => kept.has(reader) && isAlias(reader))) return false;
  const final = all.filter((reader) => !isAlias(reader));
  if (final.some(({ op }) => op.kernel.kind === 'shader' || op.kernel.kind === 'exchange')) return false;
  if (final.some((reader) => wantsStored(reader, node))) return false;
  if (kernel.kind === 'view' || kernel.cheap !== false) return true;
  return final.length === 1 && final[0]!.phase === node.phase;
}

function wantsStored({ op, inputs }: Tensor, node: Tensor): boolean {
  if (op.kernel.kind !== 'map') return false;
  return op.kernel.stored?.some((name) => stored(inputs[name]!) === node) === true;
}

/** Stores inlined nodes where a kernel would otherwise read too many tensors or recompute too much. */
function splitLargeGroups(
  order: readonly Tensor[],
  inlined: Set<Tensor>,
  kept: ReadonlySet<Tensor>,
  readBy: ReadonlyMap<Tensor, readonly Tensor[]>,
): void {
  const reads = new Map<Tensor, Set<Tensor>>();
  const work = new Map<Tensor, number>();
  const measure = (node: Tensor): void => {
    const sources = Object.values(node.inputs);
    const set = new Set(
      sources.flatMap((source) =>
        inlined.has(source) ? [...reads.get(source)!] : isNumber(source) ? [] : [source],
      ),
    );
    reads.set(node, set);
    const inner = sources.reduce((total, source) => total + (inlined.has(source) ? work.get(source)! : 0), 1);
    work.set(node, inner);
  };
  for (const node of order) {
    measure(node);
    while (reads.get(node)!.size > MAX_INPUTS) {
      const widest = Object.values(node.inputs)
        .filter((source) => inlined.has(source) && !isAlias(source))
        .sort((a, b) => reads.get(b)!.size - reads.get(a)!.size)[0];
      if (widest === undefined)
        throw new Error(`${node} reads more than ${MAX_INPUTS} tensors; split the op`);
      inlined.delete(widest);
      measure(node);
    }
    const shared = finalReaders(node, readBy).filter((reader) => !isAlias(reader)).length > 1;
    if (shared && work.get(node)! > MAX_RECOMPUTED_NODES && !isAlias(node) && !kept.has(node))
      inlined.delete(node);
  }
}

const isNumber = (node: Tensor): boolean => node.op.name === 'constant' || node.op.name === 'scalar';

/** Finds for each reduction or shader the last map that can be its epilogue: root → core. */
function absorbEpilogues(
  order: readonly Tensor[],
  readBy: ReadonlyMap<Tensor, readonly Tensor[]>,
  kept: ReadonlySet<Tensor>,
  inlined: Set<Tensor>,
): Map<Tensor, Tensor> {
  const cores = new Map<Tensor, Tensor>();
  const taken = new Set<Tensor>();
  for (const core of order.filter(isCore)) {
    const path: Tensor[] = [];
    let end = core;
    for (;;) {
      const next = readBy.get(end)!;
      const [map] = next;
      if (
        next.length !== 1 ||
        map === undefined ||
        kept.has(end) ||
        taken.has(map) ||
        !continues(end, map, core)
      )
        break;
      path.push(map);
      end = map;
    }
    if (end === core || boundInputs(end, core, inlined) > MAX_INPUTS) continue;
    for (const map of path) taken.add(map);
    inlined.delete(end);
    for (const map of path.slice(0, -1)) inlined.add(map);
    cores.set(end, core);
  }
  return cores;
}

/** The value that an inlined alias stands for. */
export function throughAliases(node: Tensor, inlined: ReadonlySet<Tensor>): Tensor {
  return isAlias(node) && inlined.has(node)
    ? throughAliases(node.inputs[node.op.inputs[0]!]!, inlined)
    : node;
}

/** Whether a value comes of the core by inlined nodes alone. */
export function dependsOn(node: Tensor, core: Tensor, inlined: ReadonlySet<Tensor>): boolean {
  return Object.values(node.inputs).some(
    (source) => source === core || (inlined.has(source) && dependsOn(source, core, inlined)),
  );
}

export const isFloat = ({ dtype }: { readonly dtype: DType }): boolean => dtype === 'f32' || dtype === 'f16';

function continues(from: Tensor, map: Tensor, core: Tensor): boolean {
  const { kernel } = map.op;
  if (kernel.kind !== 'map' || kernel.index !== undefined || map.phase !== core.phase || !isFloat(map))
    return false;
  const uses = Object.values(map.inputs).filter((source) => source === from).length;
  return uses === 1 && sameShape(from.shape, map.shape) && elementCount(map.shape) > 1;
}

/** Stored tensors that the kernel of a group reads. */
function boundInputs(root: Tensor, core: Tensor | undefined, inlined: ReadonlySet<Tensor>): number {
  const found = new Set<Tensor>();
  const visit = (node: Tensor): void => {
    for (const source of Object.values(node.inputs)) {
      if (source === core || inlined.has(source)) visit(source);
      else if (!isNumber(source)) found.add(source);
    }
  };
  visit(root);
  return found.size;
}
