import { elementCount } from '../host-tensor.ts';
import { accumulateCode, accumulateWorkgroups, finishCode, finishWorkgroups } from '../kernels/leaf-sum.ts';
import { type GatherAttrs, parameterOf } from '../ops/leaf-sum.ts';
import { Parameter } from '../parameter.ts';
import type {
  Binding,
  Combine,
  GradientSums,
  Program,
  ProgramInput,
  ProgramOutput,
  ProgramState,
  Publish,
  Segment,
  Step,
} from '../program.ts';
import { byteLength, type Tensor } from '../tensor.ts';
import { keptActivations } from './activations.ts';
import { FRAME } from './entry-point.ts';
import { partsOf, type Sharded } from './layout.ts';
import { liveRanges, pieceOutputs, type Storage, sourcesOf } from './lives.ts';
import type { Lowered } from './lower.ts';
import { assignSlots, type Place, pieces } from './memory.ts';
import { type Stages, sumLabel, type Work } from './split.ts';
import type { SumLayout } from './storage-bytes.ts';
import { stored } from './stored.ts';

/** A step, or a stage of one, on its way to a program. */
export interface Parts {
  readonly sharded: Sharded;
  readonly facts: Facts;
  /** Logical shapes of outputs. */
  readonly outputShapes: Readonly<Record<string, readonly number[]>>;
  /** In the order they are run; with what is computed again. */
  readonly ordered: Stages;
  readonly stages: Stages;
  readonly leavesOnDevice: number;
  readonly sequencesOnDevice?: number | undefined;
  readonly sumLayout: SumLayout;
  readonly bytes: (x: Storage) => number;
  readonly bindingLimit: number;
}

/** What all parts of a step have in common. */
export type Facts = Pick<Program, 'leaves' | 'sequences' | 'leavesPerSequence' | 'scalars' | 'bitsId'>;

/** An input of the whole batch, from its node for one leaf. */
export function inputSpec(
  node: Tensor,
  { layouts, rounds }: Sharded,
): Pick<ProgramInput, 'name' | 'shape' | 'dtype'> {
  const [rows = 1, ...rest] = node.shape;
  const { name } = node.attrs as { name: string };
  const shares = layouts.get(node) === 'batch' ? rounds.leaves : rounds.count;
  return { name, shape: [rows * shares, ...rest], dtype: node.dtype };
}

/** Gives a step's tensors their memory, and its work the form of plain data. */
export class Assembly {
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
        combine: stage.gather.map((node) => this.combine(node)),
      }),
    );
    const { update } = this.parts.stages;
    const sums = this.gradientSums();
    return {
      ...this.parts.facts,
      slots,
      shaders: this.shaders,
      segments,
      ...(update === undefined ? {} : { update }),
      inputs: this.inputs(),
      outputs: this.outputs(),
      state: this.state(),
      ...(sums === undefined ? {} : { sums }),
      kept: this.parts.stages.stages.flatMap(({ keep }) =>
        keep.map((node) => ({ slot: this.slot(node), bytes: byteLength(node.inputs.x!) })),
      ),
      ...(activations === undefined ? {} : { activations }),
      handOvers: [],
    };
  }

  private assign(): Pick<Program, 'slots' | 'activations'> {
    const { sharded, stages, ordered, leavesOnDevice, sequencesOnDevice } = this.parts;
    const lives = pieces(liveRanges(sharded, stages), this.parts);
    const { slots, places } = assignSlots([...lives.values()]);
    for (const [i, x] of [...lives.keys()].entries()) this.places.set(x, places[i]!);
    const kept = keptActivations(stages, lives, leavesOnDevice, sequencesOnDevice);
    if (kept === undefined) return { slots };
    const whole = pieces(liveRanges(sharded, ordered), { ...this.parts, stages: ordered });
    const { device, sequence, leaf } =
      kept.again === 0 ? kept : keptActivations(ordered, whole, leavesOnDevice, sequencesOnDevice)!;
    return { slots, activations: { ...kept, all: { device, sequence, leaf } } };
  }

  private place(x: Storage): Place {
    const place = this.places.get(x);
    if (place === undefined) throw new Error(`${String(x)} has no storage`);
    return place;
  }

  /** The slot of what has a buffer for itself. */
  slot(x: Storage): number {
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
    if (work.kind !== 'kernel') return this.sumSteps(work.kind, work.sum, work.ordinal!);
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
      ordinal: kernel.ordinal!,
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
  private sumSteps(kind: 'accumulate' | 'finish', sum: Tensor, ordinal: number): Step[] {
    const count = elementCount(sum.shape);
    const unit = 64; // values of 4 bytes: the default alignment of a binding
    const piece = Math.min(count, Math.max(Math.floor(this.parts.bindingLimit / 8 / unit), 1) * unit);
    return Array.from({ length: Math.ceil(count / piece) }, (_, i) => ({
      ...this.sumStep(kind, sum, i * piece, Math.min(piece, count - i * piece)),
      ordinal,
    }));
  }

  private sumStep(
    kind: 'accumulate' | 'finish',
    sum: Tensor,
    from: number,
    count: number,
  ): Omit<Step, 'ordinal'> {
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
      label: sumLabel(kind, sum),
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

  private combine(node: Tensor): Combine {
    const { addressed = false, reach } = node.attrs as GatherAttrs;
    return {
      slot: this.slot(node),
      bytesPerLeaf: byteLength(node.inputs.x!),
      parts: partsOf(this.parts.sharded, stored(node.inputs.x!)),
      ...(addressed && { addressed: true as const }),
      ...(reach !== undefined && { reach }),
    };
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

  private inputs(): ProgramInput[] {
    const inputs = sourcesOf(this.parts.sharded.graph, this.parts.stages).filter(
      ({ op }) => op.name === 'input',
    );
    return inputs.map((node) => ({ ...inputSpec(node, this.parts.sharded), slot: this.slot(node) }));
  }

  private outputs(): ProgramOutput[] {
    return Object.entries(this.parts.sharded.graph.outputs).map(([name, value]) => {
      const layout = this.parts.sharded.layouts.get(value)!;
      const slot = this.slot(layout === 'whole' ? stored(value) : `output ${name}`);
      const shape = this.parts.outputShapes[name]!;
      return {
        name,
        slot,
        layout: layout === 'rows' ? 'sequence' : layout,
        shape,
        parts: partsOf(this.parts.sharded, stored(value)),
      };
    });
  }

  private state(): ProgramState[] {
    const { stages, sharded } = this.parts;
    const { graph } = sharded;
    const next = new Map(graph.assignments.map(({ parameter, value }) => [parameter, value]));
    const all = sourcesOf(graph, stages).filter((node) => node instanceof Parameter);
    return all.map((parameter) => {
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
        name: parameterOf(sum),
        offset: offsets[i]!,
        count: elementCount(sum.shape),
      })),
    };
  }
}
