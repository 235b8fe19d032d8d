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
  Segment,
  SlotScope,
  Step,
} from '../program.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { bitsId } from './bits-id.ts';
import { fuse } from './fuse.ts';
import { liveRanges, perLeafOutputs, type Storage } from './lives.ts';
import { FRAME, type Lowered, stored } from './lower.ts';
import { assignSlots, type Live } from './memory.ts';
import { type Layout, type Sharded, shard } from './shard.ts';
import { simplify } from './simplify.ts';
import { type Stages, split, type Work } from './split.ts';

/** What decides the bits besides the graph: how the batch is cut into leaves, and what kernels are written for. */
export interface LogicalPlan {
  readonly leaves: number;
  readonly target: KernelTarget;
}

/**
 * Compiles a traced graph to a program, without a device: simplify, shard, fuse, lower, split, assign memory.
 *
 * @throws when the batch does not divide by the leaves, or a parameter has no name.
 */
export function buildProgram(graph: Graph, plan: LogicalPlan): Program {
  const sharded = shard(simplify(graph), plan.leaves);
  const scalars = scalarNames(sharded.graph);
  const fused = fuse(sharded.graph);
  const stages = split(sharded, fused, scalars, plan.target);
  return new Assembly(graph, sharded, stages, plan, scalars).program();
}

/** Per-step numbers in order of first use; eight fit beside the other immediates. */
function scalarNames(graph: Graph): string[] {
  const nodes = topologicalOrder(roots(graph)).filter((node) => node.op.name === 'scalar');
  const names = [...new Set(nodes.map((node) => (node.attrs as { name: string }).name))];
  if (names.length > 8)
    throw new Error(`${names.length} per-step scalars (${names.join(', ')}); at most 8 fit in immediates`);
  return names;
}

const SUM_ALIGNMENT = 32; // gradients of 8 bytes a value: 256 bytes, WebGPU's default offset alignment

class Assembly {
  private readonly logical: Graph;
  private readonly sharded: Sharded;
  private readonly stages: Stages;
  private readonly plan: LogicalPlan;
  private readonly scalars: readonly string[];
  private readonly slotOf = new Map<Storage, number>();
  private readonly shaders: string[] = [];
  private readonly sums: readonly Tensor[];
  private readonly sumLayout: ReturnType<typeof layOutSums>;

  constructor(
    logical: Graph,
    sharded: Sharded,
    stages: Stages,
    plan: LogicalPlan,
    scalars: readonly string[],
  ) {
    this.logical = logical;
    this.sharded = sharded;
    this.stages = stages;
    this.plan = plan;
    this.scalars = scalars;
    this.sums = topologicalOrder(roots(sharded.graph)).filter((node) => node.op.name === 'leafSum');
    this.sumLayout = layOutSums(this.sums);
  }

  program(): Program {
    const slots = this.assign();
    const segments = this.stages.stages.map(
      (stage): Segment => ({
        once: stage.once.map((work) => this.step(work)),
        leaf: stage.leaf.map((work) => this.step(work)),
        publish: [
          ...stage.gather.map((node) => this.publish(stored(node.inputs.x!), node)),
          ...this.published(stage),
        ],
        combine: stage.gather.map((node) => ({
          slot: this.slot(node),
          bytesPerLeaf: byteLength(node.inputs.x!),
        })),
      }),
    );
    const { update } = this.stages;
    const inputs = this.inputs();
    const sums = this.gradientSums();
    return {
      leaves: this.plan.leaves,
      sequencesPerLeaf: (inputs[0]?.shape[0] ?? this.plan.leaves) / this.plan.leaves,
      slots,
      shaders: this.shaders,
      segments,
      ...(update === undefined ? {} : { update }),
      inputs,
      outputs: this.outputs(),
      state: this.state(),
      scalars: this.scalars,
      ...(sums === undefined ? {} : { sums }),
      bitsId: bitsId({ plan: this.plan, scalars: this.scalars, inputs, stages: this.stages }),
    };
  }

  private assign(): Program['slots'] {
    const pinned = (scope: SlotScope): boolean => scope === 'state' || scope === 'next';
    const ranges = liveRanges(this.sharded, this.stages);
    const pieces = [...ranges].sort(([, a], [, b]) => a.first - b.first);
    const lives = pieces.map(
      ([x, range]): Live => ({
        bytes: this.bytes(x),
        scope: range.scope,
        label:
          typeof x === 'string'
            ? x
            : 'of' in x
              ? `${x.of} partials`
              : x instanceof Parameter
                ? x.name
                : String(x),
        first: range.first,
        last: pinned(range.scope) ? Number.POSITIVE_INFINITY : range.last,
      }),
    );
    const { slots, slotOf } = assignSlots(lives);
    for (const [i, [x]] of pieces.entries()) this.slotOf.set(x, slotOf[i]!);
    return slots;
  }

  private bytes(x: Storage): number {
    if (typeof x !== 'string') return byteLength(x);
    if (x === 'sums') return 8 * this.sumLayout.total;
    if (x === 'peaks' || x === 'scales') return 4 * this.sums.length;
    return byteLength(this.sharded.graph.outputs[x.slice('output '.length)]!) * this.plan.leaves;
  }

  private slot(x: Storage): number {
    const slot = this.slotOf.get(x);
    if (slot === undefined) throw new Error(`${String(x)} has no storage`);
    return slot;
  }

  private binding(x: Storage, access: Binding['access']): Binding {
    return { slot: this.slot(x), access, bytes: this.bytes(x) };
  }

  private step(work: Work): Step {
    return work.kind === 'kernel' ? this.kernelStep(work.kernel) : this.sumStep(work.kind, work.sum);
  }

  private kernelStep(kernel: Lowered): Step {
    const node = 'of' in kernel.writes ? kernel.writes.of : kernel.writes;
    return {
      label: kernel.label,
      path: node.path,
      phase: node.phase,
      shader: this.shader(kernel.code),
      bindings: [
        ...kernel.reads.map((x) => this.binding(x, 'read')),
        this.binding(kernel.writes, 'read_write'),
      ],
      workgroups: kernel.workgroups,
      ...(kernel.keys === undefined ? {} : { keys: kernel.keys }),
    };
  }

  private sumStep(kind: 'accumulate' | 'finish', sum: Tensor): Step {
    const index = this.sums.indexOf(sum);
    const count = elementCount(sum.shape);
    const groups = kind === 'accumulate' ? accumulateWorkgroups(count) : finishWorkgroups(count);
    const x = Math.min(groups, 65_535);
    const offset = 8 * this.sumLayout.offsets[index]!;
    const part: Binding = {
      slot: this.slot('sums'),
      access: kind === 'accumulate' ? 'read_write' : 'read',
      offset,
      bytes: 8 * count,
    };
    const scale = this.binding('scales', 'read');
    return {
      label: `${(sum.attrs as { name: string }).name}: ${kind === 'accumulate' ? 'add gradient' : 'gradient sum'}`,
      path: sum.path,
      phase: kind === 'accumulate' ? 'W' : 'U',
      shader: this.shader(kind === 'accumulate' ? accumulateCode(FRAME) : finishCode(FRAME)),
      bindings:
        kind === 'accumulate'
          ? [this.binding(stored(sum.inputs.x!), 'read'), scale, part, this.binding('peaks', 'read_write')]
          : [part, scale, this.binding(sum, 'read_write')],
      workgroups: [x, Math.ceil(groups / x)],
      keys: [index, count, x],
    };
  }

  private shader(code: string): number {
    const known = this.shaders.indexOf(code);
    return known >= 0 ? known : this.shaders.push(code) - 1;
  }

  private publish(from: Tensor, to: Tensor | string): { from: number; to: number; bytes: number } {
    return { from: this.slot(from), to: this.slot(to), bytes: byteLength(from) };
  }

  private published(stage: Stages['stages'][number]): { from: number; to: number; bytes: number }[] {
    return perLeafOutputs(this.sharded, this.stages, stage).map(({ value, key }) =>
      this.publish(stored(value), key),
    );
  }

  private layout(node: Tensor): Layout {
    return this.sharded.layouts.get(node)!;
  }

  private inputs(): ProgramInput[] {
    const nodes = topologicalOrder(roots(this.sharded.graph)).filter((node) => node.op.name === 'input');
    return nodes.map((node) => {
      const [rows = 1, ...rest] = node.shape;
      const { name } = node.attrs as { name: string };
      return { name, slot: this.slot(node), shape: [rows * this.plan.leaves, ...rest], dtype: node.dtype };
    });
  }

  private outputs(): ProgramOutput[] {
    return Object.entries(this.sharded.graph.outputs).map(([name, value]) => {
      const layout = this.layout(value);
      const slot = this.slot(layout === 'whole' ? stored(value) : `output ${name}`);
      return { name, slot, layout, shape: this.logical.outputs[name]!.shape };
    });
  }

  private state(): ProgramState[] {
    const next = new Map(this.sharded.graph.assignments.map(({ parameter, value }) => [parameter, value]));
    const all = new Set(
      topologicalOrder(roots(this.sharded.graph)).filter((node) => node instanceof Parameter),
    );
    for (const parameter of next.keys()) all.add(parameter);
    return [...all].map((parameter) => {
      if (parameter.name === '')
        throw new Error(
          `a parameter ${parameter.shape.join('×')} has no name; put it in a layer or pass { name }`,
        );
      const value = next.get(parameter);
      return {
        name: parameter.name,
        slot: this.slot(parameter),
        shape: parameter.shape,
        ...(value === undefined ? {} : { next: this.slot(value) }),
      };
    });
  }

  private gradientSums(): GradientSums | undefined {
    if (this.sums.length === 0) return undefined;
    const { offsets } = this.sumLayout;
    return {
      slot: this.slot('sums'),
      peakSlot: this.slot('peaks'),
      scaleSlot: this.slot('scales'),
      tensors: this.sums.map((sum, i) => ({
        name: (sum.attrs as { name: string }).name,
        offset: offsets[i]!,
        count: elementCount(sum.shape),
      })),
    };
  }
}

/** Where each tensor's gradient starts among the accumulators, in values. */
function layOutSums(sums: readonly Tensor[]): {
  readonly offsets: readonly number[];
  readonly total: number;
} {
  let total = 0;
  const offsets = sums.map((sum) => {
    const offset = total;
    total += Math.ceil(elementCount(sum.shape) / SUM_ALIGNMENT) * SUM_ALIGNMENT;
    return offset;
  });
  return { offsets, total };
}
