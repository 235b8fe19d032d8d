/** An op on pieces of an axis against the same pieces of the whole: what every kind of parallelism relies on. */
import { type Axes, type Axis, parseAxes } from '../axes.ts';
import type { Device } from '../device.ts';
import { elementCount, type HostTensor, hostTensor } from '../host-tensor.ts';
import type { AnyOp, Range } from '../op.ts';
import type { Spec, Tensor } from '../tensor.ts';
import { hasPartialSums, total } from './axes.ts';
import {
  type AnySample,
  asTensors,
  type Check,
  call,
  drawInputs,
  evaluateOnDevice,
  type Values,
} from './evaluate.ts';
import { expectClose, expectSameBits, VALUE_TOLERANCE } from './values.ts';

/** The axes of a map without declaration: those of its output, each shared by the inputs that are not broadcast along it. */
function mapAxes(op: AnyOp, sample: AnySample, y: Spec): Axes {
  const output = y.shape.map((_, axis) => ({ name: `axis${axis}`, window: false }));
  const ofInput = (shape: readonly number[]): Axis[] =>
    shape.map((size, axis) => {
      const own = output[axis + y.shape.length - shape.length]!;
      return size === 1 ? { name: '_', window: false } : own;
    });
  return {
    inputs: Object.fromEntries(op.inputs.map((name) => [name, ofInput(sample.inputs[name]!)])),
    output,
  };
}

export function splitChecks(op: AnyOp, sample: AnySample): readonly Check[] {
  const specs = specsOf(sample);
  const y = op.infer(specs, sample.attrs);
  const { kernel } = op;
  if (op.axes === undefined && (kernel.kind !== 'map' || kernel.index !== undefined))
    return [{ name: 'in pieces equals the whole', skip: 'it declares no axes', run: async () => {} }];
  const axes = op.axes === undefined ? mapAxes(op, sample, y) : parseAxes(op, sample.attrs);
  const all = [...Object.values(axes.inputs).flat(), ...axes.output].map(({ name }) => name);
  return [...new Set(all)]
    .filter((axis) => axis !== '_' && axis !== '+')
    .map((axis) => splitCheck(op, sample, axes, axis, y));
}

function specsOf({ inputs }: AnySample): Record<string, Spec> {
  return Object.fromEntries(Object.entries(inputs).map(([name, shape]) => [name, { shape, dtype: 'f32' }]));
}

function splitCheck(op: AnyOp, sample: AnySample, axes: Axes, axis: string, y: Spec): Check {
  const name = `cut along ${axis} equals the whole`;
  const sizes = plainSizes(sample, axes, axis, y);
  const parts = sizes.reduce(greatestCommonDivisor);
  const skip =
    parts < 2 ? 'the axis cannot be cut in two' : op.combine === true ? 'it folds leaves itself' : undefined;
  const run = async (device: Device): Promise<void> => {
    const values = drawInputs(op, sample);
    const whole = call(op, asTensors(values, 'whole.'), sample.attrs);
    const pieces = cuts(parts).map(([from, to], i) => {
      const rows = (size: number): Range => [(from * size) / parts, (to * size) / parts];
      return piece(op, sample, axes, axis, { values, rows, size: sizes[0]!, prefix: `${i}.` });
    });
    const outputs = { whole, ...Object.fromEntries(pieces.map((tensor, i) => [`piece${i}`, tensor])) };
    const result: Readonly<Record<string, Float32Array>> = await evaluateOnDevice(device, outputs);
    const what = `${op.name} cut along ${axis}`;
    const position = axes.output.findIndex((own) => own.name === axis);
    const computed = pieces.map((_, i) => result[`piece${i}`]!);
    if (position >= 0 && !hasPartialSums(op, sample.attrs)) {
      expectSameBits(what, concatenate(pieces, computed, position), result.whole!);
      return;
    }
    const totals = pieces.map((tensor, i) => total(op, sample.attrs, tensor, computed[i]!));
    const joined =
      position >= 0
        ? concatenate(
            pieces.map(({ shape }) => ({ shape: shape.slice(1) })),
            totals,
            position - 1,
          )
        : totals.reduce((sum, addend) => sum.map((value, i) => value + addend[i]!));
    expectClose(what, joined, total(op, sample.attrs, whole, result.whole!), VALUE_TOLERANCE);
  };
  return skip === undefined ? { name, run } : { name, skip, run };
}

/** Two or three pieces of `parts` parts; the first is as small as can be, so that windows reach beyond their piece. */
function cuts(parts: number): readonly Range[] {
  const middle = Math.floor(parts / 2) + 1;
  return parts < 3
    ? [
        [0, 1],
        [1, parts],
      ]
    : [
        [0, 1],
        [1, middle],
        [middle, parts],
      ]
        .filter(([from, to]) => from! < to!)
        .map(([from, to]): Range => [from!, to!]);
}

/** Sizes of an axis wherever it is cut as it is, without a window: in the output, then in inputs. */
function plainSizes({ inputs }: AnySample, axes: Axes, axis: string, y: Spec): number[] {
  const tensors: (readonly [readonly Axis[], readonly number[]])[] = [
    [axes.output, y.shape],
    ...Object.entries(axes.inputs).map(([name, own]) => [own, inputs[name]!] as const),
  ];
  return tensors.flatMap(([own, shape]) =>
    own.flatMap((candidate, i) => (candidate.name === axis && !candidate.window ? [shape[i]!] : [])),
  );
}

interface Cut {
  readonly values: Values;
  readonly rows: (size: number) => Range;
  /** Size of the axis in the output, or where it is summed in an input without window. */
  readonly size: number;
  readonly prefix: string;
}

/** The op on a part of one axis. */
function piece(op: AnyOp, sample: AnySample, axes: Axes, axis: string, cut: Cut): Tensor {
  const { values, rows, size, prefix } = cut;
  const windowed = Object.values(axes.inputs).some((own) =>
    own.some(({ name, window }) => name === axis && window),
  );
  if (windowed && op.reads === undefined)
    throw new Error(`op '${op.name}' marks ${axis} with ~ but has no 'reads'`);
  const read = windowed ? op.reads!(specsOf(sample), sample.attrs, rows(size)) : undefined;
  const parts = Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      const position = axes.inputs[name]!.findIndex((own) => own.name === axis);
      if (position < 0) return [name, value];
      return [name, sliceAxis(value, position, read?.rows[name] ?? rows(value.shape[position]!))];
    }),
  );
  const attrs = read?.attrs ?? sample.attrs;
  const position = axes.output.findIndex((own) => own.name === axis);
  const [start, end] = rows(size);
  const own = { axis: position, start, size: end - start, length: size };
  const isBatch = Object.values(axes.inputs).some(([leading]) => leading?.name === axis); // never cut into parts
  return call(op, asTensors(parts, prefix), isBatch ? attrs : (op.atRows?.(attrs, own) ?? attrs));
}

function sliceAxis({ shape, data }: HostTensor, axis: number, [from, to]: Range): HostTensor {
  const inner = elementCount(shape.slice(axis + 1));
  const size = shape[axis]!;
  const kept = Array.from(data as Float32Array).filter((_, i) => {
    const position = Math.floor(i / inner) % size;
    return position >= from && position < to;
  });
  return hostTensor(shape.with(axis, to - from), kept);
}

function concatenate(
  specs: readonly Pick<Spec, 'shape'>[],
  parts: readonly ArrayLike<number>[],
  axis: number,
): Float32Array {
  const outer = elementCount(specs[0]!.shape.slice(0, axis));
  const rows: number[] = [];
  for (let o = 0; o < outer; o++) {
    parts.forEach((values, i) => {
      const count = elementCount(specs[i]!.shape.slice(axis));
      for (let k = 0; k < count; k++) rows.push(values[o * count + k]!);
    });
  }
  return Float32Array.from(rows);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
