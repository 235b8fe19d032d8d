import { type Graph, roots, topologicalOrder } from '../graph.ts';
import { elementCount } from '../host-tensor.ts';
import type { KernelTarget } from '../kernel.ts';
import { accumulateCode, accumulateWorkgroups, finishCode, finishWorkgroups } from '../kernels/leaf-sum.ts';
import { Parameter } from '../parameter.ts';
import type {
  Binding,
  GradientSums,
  Program,
  ProgramInput,
  ProgramOutput,
  ProgramState,
  Publish,
  Segment,
  Step,
} from '../program.ts';
import type { Precision } from '../scope.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { keptActivations } from './activations.ts';
import { bitsId } from './bits-id.ts';
import { chooseRecompute, type MemoryOptions } from './choose-recompute.ts';
import { fuse } from './fuse.ts';
import { storeHalves } from './halves.ts';
import { updateInPlace } from './in-place.ts';
import { type Layout, partsOf, type Sharded } from './layout.ts';
import { liveRanges, pieceOutputs, type Storage } from './lives.ts';
import type { Lowered } from './lower.ts';
import { assignSlots, type Place, pieces } from './memory.ts';
import { shortenLives } from './order.ts';
import { shard } from './shard.ts';
import { shardRows } from './shard-rows.ts';
import { simplify } from './simplify.ts';
import { type Stages, split, type Work } from './split.ts';
import { layOutSums, type SumLayout, storageBytes } from './storage-bytes.ts';
import { stored } from './stored.ts';
import { FRAME } from './writer.ts';

/** How a program is fitted to a device: decides memory and speed, never the bits. */
export interface Placement extends MemoryOptions {
  /** Leaves that one device works on; all by default. */
  readonly leavesOnDevice?: number;
  /**
   * Bytes the device binds at once: kernels that touch larger tensors run in windows. No limit by default; `compile` and
   * `distribute` take that of their devices.
   */
  readonly bindingLimit?: number;
}

/** What decides the bits besides the graph: how the batch is cut into leaves, and what kernels are written for. */
export interface LogicalPlan {
  /** Leaves of the batch, where they are whole sequences. */
  readonly leaves: number;
  /** Parts into which each sequence is cut along its rows; 1 for leaves of whole sequences. */
  readonly leavesPerSequence: number;
  readonly target: KernelTarget;
  readonly precision: Precision;
  /** Whether nodes share kernels. */
  readonly fuse: boolean;
}

/**
 * Compiles a traced graph to a program, without a device: simplify, shard, fuse, lower, split, order, recompute, assign memory.
 *
 * Kernels that touch a tensor of more than `bindingLimit` bytes are dispatched in windows, which changes neither the bits
 * nor the `bitsId`: it hashes the kernels as they are without.
 *
 * @throws when the batch does not divide by the leaves, a parameter has no name, a tensor has 2³² elements or more, or the
 *   step does not fit the memory budget.
 */
export function buildProgram(graph: Graph, plan: LogicalPlan, placement: Placement): Program {
  const { leaves, leavesPerSequence } = plan;
  if (leaves > 1 && leavesPerSequence > 1)
    throw new Error(`${leaves} leaves of the batch and ${leavesPerSequence} of each sequence; choose one`);
  const sharded = shardedGraph(simplify(graph), plan);
  checkSizes(sharded.graph);
  const scalars = scalarNames(sharded.graph);
  const fused = fuse(sharded.graph, plan.fuse);
  const logical = updateInPlace(split(sharded, fused, scalars, plan.target), sharded, fused, scalars);
  const sumLayout = layOutSums(sharded);
  const bytes = storageBytes(sharded, sumLayout);
  const { leavesOnDevice = sharded.rounds.leaves, bindingLimit = Number.POSITIVE_INFINITY } = placement;
  const ordered = shortenLives(logical, sharded);
  const stages = chooseRecompute({ sharded, stages: ordered, bytes, leavesOnDevice }, placement);
  const parts = {
    graph,
    plan,
    sharded,
    scalars,
    logical,
    ordered,
    stages,
    leavesOnDevice,
    sumLayout,
    bytes,
    bindingLimit,
  };
  return new Assembly(parts).program();
}

/** Kernels index elements with u32. */
function checkSizes(graph: Graph): void {
  const large = topologicalOrder(roots(graph)).find(({ shape }) => elementCount(shape) >= 2 ** 32);
  if (large === undefined) return;
  throw new Error(
    `${large}: ${elementCount(large.shape)} elements in one leaf, but a tensor holds fewer than ${2 ** 32}; use more leaves or a shorter input`,
  );
}

function shardedGraph(graph: Graph, plan: LogicalPlan): Sharded {
  const { leaves, leavesPerSequence, precision } = plan;
  const sharded = leavesPerSequence === 1 ? shard(graph, leaves) : shardRows(graph, leavesPerSequence);
  return precision === 'f32' ? sharded : storeHalves(sharded, fuse(sharded.graph, plan.fuse));
}

/** Per-step numbers in order of first use; eight fit beside the other immediates. */
function scalarNames(graph: Graph): string[] {
  const nodes = topologicalOrder(roots(graph)).filter((node) => node.op.name === 'scalar');
  const names = [...new Set(nodes.map((node) => (node.attrs as { name: string }).name))];
  if (names.length > 8)
    throw new Error(`${names.length} per-step scalars (${names.join(', ')}); at most 8 fit in immediates`);
  return names;
}

/** A step on its way from graph to program. */
interface Parts {
  readonly graph: Graph;
  readonly plan: LogicalPlan;
  readonly sharded: Sharded;
  readonly scalars: readonly string[];
  /** As split, which is what decides the bits; in the order they are run; with what is computed again. */
  readonly logical: Stages;
  readonly ordered: Stages;
  readonly leavesOnDevice: number;
  readonly stages: Stages;
  readonly sumLayout: SumLayout;
  readonly bytes: (x: Storage) => number;
  readonly bindingLimit: number;
}

class Assembly {
  private readonly parts: Parts;
  private readonly places = new Map<Storage, Place>();
  private readonly shaders: string[] = [];

  constructor(parts: Parts) {
    this.parts = parts;
  }

  program(): Program {
    const { slots, activations } = this.assign();
    const segments = this.parts.stages.stages.map(
      (stage): Segment => ({
        once: stage.once.flatMap((work) => this.steps(work)),
        leaf: stage.leaf.flatMap((work) => this.steps(work)),
        publish: [
          ...stage.gather.map((node) => this.publish(stored(node.inputs.x!), node, false)),
          ...this.published(stage, false),
        ],
        publishOnce: [
          ...stage.keep.map((node) => this.publish(stored(node.inputs.x!), node, true)),
          ...this.published(stage, true),
        ],
        combine: stage.gather.map((node) => ({
          slot: this.slot(node),
          bytesPerLeaf: byteLength(node.inputs.x!),
          parts: partsOf(this.parts.sharded, stored(node.inputs.x!)),
        })),
      }),
    );
    const { update } = this.parts.stages;
    const inputs = this.inputs();
    const sums = this.gradientSums();
    const { rounds } = this.parts.sharded;
    return {
      leaves: rounds.count * rounds.leaves,
      sequences: inputs[0]?.shape[0] ?? rounds.count,
      leavesPerSequence: this.parts.plan.leavesPerSequence,
      slots,
      shaders: this.shaders,
      segments,
      ...(update === undefined ? {} : { update }),
      inputs,
      outputs: this.outputs(),
      state: this.state(),
      scalars: this.parts.scalars,
      ...(sums === undefined ? {} : { sums }),
      ...(activations === undefined ? {} : { activations }),
      bitsId: bitsId({
        plan: this.parts.plan,
        scalars: this.parts.scalars,
        inputs,
        stages: this.parts.logical,
      }),
    };
  }

  private assign(): Pick<Program, 'slots' | 'activations'> {
    const { sharded, stages, ordered, leavesOnDevice } = this.parts;
    const lives = pieces(liveRanges(sharded, stages), this.parts);
    const { slots, places } = assignSlots([...lives.values()]);
    for (const [i, x] of [...lives.keys()].entries()) this.places.set(x, places[i]!);
    const kept = keptActivations(stages, lives, leavesOnDevice);
    if (kept === undefined) return { slots };
    const whole = pieces(liveRanges(sharded, ordered), { ...this.parts, stages: ordered });
    const { device, leaf } = kept.again === 0 ? kept : keptActivations(ordered, whole, leavesOnDevice)!;
    return { slots, activations: { ...kept, all: { device, leaf } } };
  }

  private place(x: Storage): Place {
    const place = this.places.get(x);
    if (place === undefined) throw new Error(`${String(x)} has no storage`);
    return place;
  }

  /** The slot of what has a buffer for itself. */
  private slot(x: Storage): number {
    return this.place(x).slot;
  }

  private binding(x: Storage, access: Binding['access']): Binding {
    const { slot, offset } = this.place(x);
    const half = typeof x !== 'string' && x.dtype === 'f16';
    return {
      slot,
      access,
      ...(offset === 0 ? {} : { offset }),
      bytes: this.parts.bytes(x),
      ...(half ? { half } : {}),
    };
  }

  private steps(work: Work): Step[] {
    if (work.kind !== 'kernel') return this.sumSteps(work.kind, work.sum);
    const step = this.kernelStep(work.kernel);
    return step.bindings.every(({ bytes }) => bytes! <= this.parts.bindingLimit)
      ? [step]
      : this.cut(work.kernel, step);
  }

  /** A kernel in windows. */
  private cut(kernel: Lowered, whole: Step): Step[] {
    const { code, keys, windows } = kernel.cut(this.parts.bindingLimit);
    const bound = [...kernel.reads, kernel.writes];
    return windows.map(({ workgroups, constants, bindings }, index) => ({
      ...whole,
      shader: this.shader(code),
      bindings: bindings.map(({ operand, offset, bytes }) => ({
        ...whole.bindings[operand]!,
        offset: (whole.bindings[operand]!.offset ?? 0) + offset,
        bytes,
      })),
      workgroups,
      ...(keys === undefined ? {} : { keys }),
      window: {
        constants,
        index,
        count: windows.length,
        pages: bindings.length - bound.length + 1,
        output: whole.bindings.at(-1)!,
      },
    }));
  }

  private kernelStep(kernel: Lowered): Step {
    return {
      label: kernel.label,
      path: kernel.node.path,
      phase: kernel.node.phase,
      shader: this.shader(kernel.code),
      bindings: [
        ...kernel.reads.map((x) => this.binding(x, 'read')),
        this.binding(kernel.writes, 'read_write'),
      ],
      workgroups: kernel.workgroups,
      ...(kernel.parts === undefined ? {} : { parts: kernel.parts }),
      ...(kernel.keys === undefined ? {} : { keys: kernel.keys }),
    };
  }

  /** Gradient sums are divided into ranges of values: each is a piece of work of its own. */
  private sumSteps(kind: 'accumulate' | 'finish', sum: Tensor): Step[] {
    const count = elementCount(sum.shape);
    const unit = 64; // values of 4 bytes: the default alignment of a binding
    const piece = Math.min(count, Math.max(Math.floor(this.parts.bindingLimit / 8 / unit), 1) * unit);
    return Array.from({ length: Math.ceil(count / piece) }, (_, i) =>
      this.sumStep(kind, sum, i * piece, Math.min(piece, count - i * piece)),
    );
  }

  private sumStep(kind: 'accumulate' | 'finish', sum: Tensor, from: number, count: number): Step {
    const index = this.parts.sumLayout.sums.indexOf(sum);
    const groups = kind === 'accumulate' ? accumulateWorkgroups(count) : finishWorkgroups(count);
    const x = Math.min(groups, 65_535);
    const part: Binding = {
      slot: this.slot('sums'),
      access: kind === 'accumulate' ? 'read_write' : 'read',
      offset: 8 * (this.parts.sumLayout.offsets[index]! + from),
      bytes: 8 * count,
    };
    const scale = this.binding('scales', 'read');
    const values = (of: Tensor, access: Binding['access']): Binding => {
      const whole = this.binding(of, access);
      return count * 4 === whole.bytes
        ? whole
        : { ...whole, offset: (whole.offset ?? 0) + 4 * from, bytes: 4 * count };
    };
    const parts = kind === 'accumulate' ? this.parts.sharded.parts.get(stored(sum.inputs.x!)) : undefined;
    return {
      label: `${(sum.attrs as { name: string }).name}: ${kind === 'accumulate' ? 'add gradient' : 'gradient sum'}`,
      path: sum.path,
      phase: kind === 'accumulate' ? 'W' : 'U',
      shader: this.shader(kind === 'accumulate' ? accumulateCode(FRAME) : finishCode(FRAME)),
      bindings:
        kind === 'accumulate'
          ? [values(stored(sum.inputs.x!), 'read'), scale, part, this.binding('peaks', 'read_write')]
          : [part, scale, values(sum, 'read_write')],
      workgroups: [x, Math.ceil(groups / x)],
      keys: [index, count, x],
      ...(parts === undefined ? {} : { parts }),
    };
  }

  private shader(code: string): number {
    const known = this.shaders.indexOf(code);
    return known >= 0 ? known : this.shaders.push(code) - 1;
  }

  private publish(from: Tensor, to: Tensor | string, perRound: boolean): Publish {
    const [parts, bytes] = [partsOf(this.parts.sharded, from), byteLength(from)];
    return { from: this.slot(from), to: this.slot(to), bytes, parts, perRound };
  }

  private published(stage: Stages['stages'][number], shared: boolean): Publish[] {
    return pieceOutputs(this.parts.sharded, this.parts.stages, stage)
      .filter((output) => output.shared === shared)
      .map(({ value, key }) => this.publish(stored(value), key, true));
  }

  private layout(node: Tensor): Layout {
    return this.parts.sharded.layouts.get(node)!;
  }

  private inputs(): ProgramInput[] {
    const nodes = topologicalOrder(roots(this.parts.sharded.graph)).filter(
      (node) => node.op.name === 'input',
    );
    return nodes.map((node) => {
      const [rows = 1, ...rest] = node.shape;
      const { name } = node.attrs as { name: string };
      const { count, leaves } = this.parts.sharded.rounds;
      const shares = this.layout(node) === 'batch' ? leaves : count;
      return { name, slot: this.slot(node), shape: [rows * shares, ...rest], dtype: node.dtype };
    });
  }

  private outputs(): ProgramOutput[] {
    return Object.entries(this.parts.sharded.graph.outputs).map(([name, value]) => {
      const layout = this.layout(value);
      const slot = this.slot(layout === 'whole' ? stored(value) : `output ${name}`);
      const { shape } = this.parts.graph.outputs[name]!;
      return {
        name,
        slot,
        layout: layout === 'batch' || layout === 'partial' ? layout : 'whole',
        shape,
        parts: partsOf(this.parts.sharded, stored(value)),
      };
    });
  }

  private state(): ProgramState[] {
    const next = new Map(
      this.parts.sharded.graph.assignments.map(({ parameter, value }) => [parameter, value]),
    );
    const all = new Set(
      topologicalOrder(roots(this.parts.sharded.graph)).filter((node) => node instanceof Parameter),
    );
    for (const parameter of next.keys()) all.add(parameter);
    return [...all].map((parameter) => {
      if (parameter.name === '')
        throw new Error(
          `a parameter ${parameter.shape.join('×')} has no name; put it in a layer or pass { name }`,
        );
      const value = next.get(parameter);
      const hasOwn = value !== undefined && this.places.has(value); // else it is written over the old one
      return {
        name: parameter.name,
        slot: this.slot(parameter),
        shape: parameter.shape,
        ...(hasOwn ? { next: this.slot(value) } : {}),
      };
    });
  }

  private gradientSums(): GradientSums | undefined {
    if (this.parts.sumLayout.sums.length === 0) return undefined;
    const { offsets } = this.parts.sumLayout;
    return {
      slot: this.slot('sums'),
      peakSlot: this.slot('peaks'),
      scaleSlot: this.slot('scales'),
      tensors: this.parts.sumLayout.sums.map((sum, i) => ({
        name: (sum.attrs as { name: string }).name,
        offset: offsets[i]!,
        count: elementCount(sum.shape),
      })),
    };
  }
}
