/**
 * Tests that follow from an op's declaration alone: equal to its float64 reference, gradient equal to central differences,
 * a piece of the work equal to the same piece of the whole, NaN never swallowed. A user's op gets the built-ins' tests:
 *
 *     for (const { name, skip, run } of checkOp('swish')) test.skipIf(skip !== undefined)(name, () => run(device));
 */
import { compile } from './compile/compile.ts';
import type { Device } from './device.ts';
import { gradients } from './grad.ts';
import { topologicalOrder } from './graph.ts';
import { elementCount, type HostTensor, hostTensor } from './host-tensor.ts';
import { type AnyOp, declaredOp, type Range, type Reference, type Sample } from './op.ts';
import { Parameter, parameter } from './parameter.ts';
import { hashName, mix } from './random.ts';
import { StateStore } from './state.ts';
import { type Spec, shapeText, Tensor } from './tensor.ts';

/** One derived test. */
export interface Check {
  /** A sentence about the op. */
  readonly name: string;
  /** Why there is nothing to test here; shown in the report. */
  readonly skip?: string;
  /** @throws with the numbers when the op is wrong. */
  run(device: Device): Promise<void>;
}

type AnySample = Sample<readonly string[], unknown>;

/** 1e-5 of the largest value: sums of up to some thousand products in f32, whose rounding grows as √terms · 6e-8. */
const VALUE_TOLERANCE = 1e-5;
/** Gradients chain several such sums. */
const GRADIENT_TOLERANCE = 1e-4;

/** All derived tests of a declared op, for each of its samples. */
export function checkOp(name: string): readonly Check[] {
  const op = declaredOp(name);
  return (op.samples ?? []).flatMap((sample) => {
    const at = `${name}(${op.inputs.map((input) => shapeText(sample.inputs[input]!)).join(', ')}${attrsText(sample.attrs)})`;
    const checks = [
      referenceCheck(op, sample),
      ...gradientChecks(op, sample),
      ...splitChecks(op, sample),
      nanCheck(op, sample),
    ];
    return checks.map((check) => ({ ...check, name: `${at} ${check.name}` }));
  });
}

function attrsText(attrs: unknown): string {
  return attrs === undefined ? '' : `, ${JSON.stringify(attrs).replaceAll('"', '')}`;
}

// --- values ------------------------------------------------------------------------------------------------------

export interface RandomOptions {
  readonly seed: number;
  /** Half-open, `[-1, 1)` by default. */
  readonly range?: readonly [number, number];
  /** Whole numbers only. */
  readonly integers?: boolean;
}

/** An f32 tensor whose element i is a hash of (seed, i): the same on every machine and in any order. */
export function randomTensor(shape: readonly number[], options: RandomOptions): HostTensor {
  const { seed, range = [-1, 1], integers = false } = options;
  const values = Float32Array.from({ length: elementCount(shape) }, (_, i) => {
    const value = range[0] + ((range[1] - range[0]) * mix(seed, i)) / 2 ** 32;
    return integers ? Math.floor(value) : value;
  });
  return hostTensor(shape, values);
}

/** max |actual − expected| / max |expected|; infinite where the sizes differ or one of them is NaN and not the other. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    if (Number.isNaN(a) && Number.isNaN(e)) continue;
    difference =
      Number.isNaN(a - e) && a !== e
        ? Number.POSITIVE_INFINITY
        : Math.max(difference, a === e ? 0 : Math.abs(a - e));
    largest = Math.max(largest, Number.isNaN(e) ? 0 : Math.abs(e));
  }
  return difference === 0 ? 0 : difference / largest;
}

function expectClose(
  what: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
): void {
  const error = relativeError(actual, expected);
  if (error <= tolerance) return;
  const worst = Array.from(expected, (e, i) => Math.abs(e - actual[i]!)).reduce(
    (at, d, i, all) => (d > all[at]! ? i : at),
    0,
  );
  throw new Error(
    `${what}: relative error ${error.toPrecision(3)} exceeds ${tolerance}; worst at element ${worst} of ${expected.length}: ${actual[worst]} instead of ${expected[worst]}`,
  );
}

// --- evaluation --------------------------------------------------------------------------------------------------

/**
 * Evaluates tensors in float64 through the references of their ops.
 *
 * @param values of the sources: inputs, parameters and scalars
 * @throws when a source has no value or an op no reference
 */
export function interpret(outputs: readonly Tensor[], values: ReadonlyMap<Tensor, Reference>): Reference[] {
  const known = new Map<Tensor, Reference>(values);
  for (const node of topologicalOrder(outputs)) {
    if (!known.has(node)) known.set(node, interpretNode(node, known));
  }
  return outputs.map((output) => known.get(output)!);
}

function interpretNode(node: Tensor, known: ReadonlyMap<Tensor, Reference>): Reference {
  const { shape, op } = node;
  if (op.name === 'constant')
    return { shape, data: Float64Array.of((node.attrs as { value: number }).value) };
  if (op.kernel.kind === 'source') throw new Error(`${node} has no value; give it one`);
  if (op.reference === undefined) throw new Error(`${node}: op '${op.name}' has no reference; add one`);
  const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, x]) => [name, known.get(x)!]));
  const data = op.reference(inputs, node.attrs);
  if (data.length !== elementCount(shape))
    throw new Error(
      `${node}: its reference gives ${data.length} values, but the shape holds ${elementCount(shape)}`,
    );
  return { shape, data };
}

/** Compiles and runs tensors on a device; the parameters they depend on start from their initialisers. */
export async function evaluateOnDevice<K extends string>(
  device: Device,
  outputs: Readonly<Record<K, Tensor>>,
): Promise<Record<K, Float32Array>> {
  const state = stateOf(device, Object.values(outputs));
  const compiled = await compile(() => outputs, { device, inputs: {}, state });
  try {
    const results = await compiled({});
    return Object.fromEntries(
      Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]),
    ) as Record<K, Float32Array>;
  } finally {
    compiled.close();
    state.close();
  }
}

/** Room for all parameters, also for those of which only the shape is used. */
function stateOf(device: Device, outputs: readonly Tensor[]): StateStore {
  const parameters = topologicalOrder(outputs).filter((node) => node instanceof Parameter);
  const state = new StateStore(device);
  state.allocate(parameters.map(({ name, shape }) => ({ name, shape, slot: 0 })));
  state.write(
    new Map(
      parameters.map(({ name, shape, initializer }) => [name, hostTensor(shape, initializer(shape, 0))]),
    ),
  );
  return state;
}

type Values = Readonly<Record<string, HostTensor>>;

/** Inputs of a sample, drawn anew from its op's name: every op sees other numbers. */
function drawInputs(op: AnyOp, { inputs, range, integers }: AnySample): Values {
  return Object.fromEntries(
    op.inputs.map((name) => {
      const own = range?.[name];
      const seed = hashName(`${op.name}.${name}`);
      const options = {
        seed,
        integers: integers?.includes(name) === true,
        ...(own === undefined ? {} : { range: own }),
      };
      return [name, randomTensor(inputs[name]!, options)];
    }),
  );
}

/** Parameters that hold the values: unlike inputs they are not a batch, so no axis of theirs is special. */
function asTensors(values: Values, prefix = ''): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(values).map(([name, { shape, data }]) => [
      name,
      parameter(shape, { name: prefix + name, init: () => data as Float32Array }),
    ]),
  );
}

function call(op: AnyOp, inputs: Readonly<Record<string, Tensor>>, attrs: unknown): Tensor {
  return new Tensor(op, inputs, attrs, op.infer(inputs, attrs));
}

function asReference({ shape, data }: HostTensor): Reference {
  return { shape, data: Float64Array.from(data as Float32Array) };
}

function referenceOf(op: AnyOp, values: Values, attrs: unknown): Float64Array {
  if (op.reference === undefined) throw new Error(`op '${op.name}' has samples but no reference; add one`);
  const inputs = Object.fromEntries(Object.entries(values).map(([name, x]) => [name, asReference(x)]));
  return op.reference(inputs, attrs);
}

// --- equal to the reference --------------------------------------------------------------------------------------

function referenceCheck(op: AnyOp, sample: AnySample): Check {
  return {
    name: 'equals its float64 reference',
    run: async (device) => {
      const values = drawInputs(op, sample);
      const output = call(op, asTensors(values), sample.attrs);
      const { y } = await evaluateOnDevice(device, { y: output });
      const expected = referenceOf(op, values, sample.attrs);
      expectClose(
        op.name,
        total(op, sample.attrs, output, y),
        total(op, sample.attrs, output, expected),
        VALUE_TOLERANCE,
      );
    },
  };
}

/** Of partial sums (an output axis called `+`, always the first) only the total is defined. */
function total(
  op: AnyOp,
  attrs: unknown,
  { shape }: Spec,
  values: Float32Array | Float64Array,
): Float64Array {
  if (!hasPartialSums(op, attrs)) return Float64Array.from(values);
  const totals = new Float64Array(elementCount(shape.slice(1)));
  for (let i = 0; i < values.length; i++) totals[i % totals.length]! += values[i]!;
  return totals;
}

function hasPartialSums(op: AnyOp, attrs: unknown): boolean {
  return op.axes !== undefined && parseAxes(op, attrs).output[0]?.name === '+';
}

// --- equal to central differences --------------------------------------------------------------------------------

const STEP = 1e-4; // truncation STEP²/6 · f''' and rounding 1e-16 / STEP are both far below the tolerance
const DIFFERENCE_TOLERANCE = 1e-6;
/** Inputs of up to this many elements are checked element by element, larger ones along one random direction. */
const FEW_ELEMENTS = 16;

function gradientChecks(op: AnyOp, sample: AnySample): readonly Check[] {
  const name = 'has the gradient of central differences';
  if (op.gradient === undefined) return [];
  const run = async (device: Device): Promise<void> => {
    const values = drawInputs(op, sample);
    const inputs = asTensors(values);
    const y = call(op, inputs, sample.attrs);
    const seedValue = randomTensor(y.shape, { seed: hashName(`${op.name} seed`) });
    const { seed } = asTensors({ seed: seedValue });
    const names = differentiable(op, sample, inputs, y, seed!);
    const results = gradients(
      y,
      seed!,
      names.map((input) => inputs[input]!),
    );
    const known = new Map(Object.entries(inputs).map(([input, x]) => [x, asReference(values[input]!)]));
    const exact = interpret(results, known.set(seed!, asReference(seedValue)));
    names.forEach((input, i) => {
      checkDifferences(op, sample.attrs, values, input, asReference(seedValue).data, exact[i]!.data);
    });
    const measured = await evaluateOnDevice(
      device,
      Object.fromEntries(names.map((input, i) => [input, results[i]!])),
    );
    names.forEach((input, i) => {
      expectClose(`gradient of ${input} on the device`, measured[input]!, exact[i]!.data, GRADIENT_TOLERANCE);
    });
  };
  return [{ name, run }];
}

/** The inputs with a gradient rule, whole numbers left out. */
function differentiable(
  op: AnyOp,
  { integers, attrs }: AnySample,
  inputs: Readonly<Record<string, Tensor>>,
  y: Tensor,
  seed: Tensor,
): string[] {
  const rules = op.gradient!(seed, inputs, attrs, y);
  return op.inputs.filter((name) => rules[name] !== undefined && integers?.includes(name) !== true);
}

function checkDifferences(
  op: AnyOp,
  attrs: unknown,
  values: Values,
  input: string,
  seed: Float64Array,
  gradient: Float64Array,
): void {
  const inputs = Object.fromEntries(Object.entries(values).map(([name, x]) => [name, asReference(x)]));
  const center = inputs[input]!;
  const along = (direction: Float64Array, step: number): number => {
    const data = center.data.map((value, i) => value + step * direction[i]!);
    return dot(op.reference!({ ...inputs, [input]: { shape: center.shape, data } }, attrs), seed);
  };
  directions(center.data.length, hashName(`${op.name}.${input} direction`)).forEach((direction, i) => {
    const difference = (along(direction, STEP) - along(direction, -STEP)) / (2 * STEP);
    const expected = dot(gradient, direction);
    const scale = Math.max(1, dot(gradient.map(Math.abs), direction.map(Math.abs)));
    if (Math.abs(difference - expected) <= DIFFERENCE_TOLERANCE * scale) return;
    throw new Error(
      `gradient of ${input} along direction ${i}: the rule gives ${expected}, central differences ${difference}`,
    );
  });
}

function directions(count: number, seed: number): Float64Array[] {
  if (count > FEW_ELEMENTS) return [Float64Array.from(randomTensor([count], { seed }).data as Float32Array)];
  return Array.from({ length: count }, (_, i) =>
    Float64Array.from({ length: count }, (__, k) => (k === i ? 1 : 0)),
  );
}

function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}

// --- a piece equals the same piece of the whole ------------------------------------------------------------------

interface Axis {
  readonly name: string;
  /** Marked `~`: a window slides along it. */
  readonly window: boolean;
}

interface Axes {
  readonly inputs: Readonly<Record<string, readonly Axis[]>>;
  readonly output: readonly Axis[];
}

function parseAxes(op: AnyOp, attrs: unknown): Axes {
  const text = typeof op.axes === 'function' ? op.axes(attrs) : (op.axes ?? '');
  const [left = '', right = ''] = text.split('->');
  const list = (part: string): Axis[] =>
    [...part.matchAll(/([^\s~]+)(~?)/g)].map(([, name, mark]) => ({ name: name!, window: mark === '~' }));
  const parts = left.split(',');
  return {
    inputs: Object.fromEntries(op.inputs.map((name, i) => [name, list(parts[i] ?? '')])),
    output: list(right),
  };
}

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

function splitChecks(op: AnyOp, sample: AnySample): readonly Check[] {
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
  return call(op, asTensors(parts, prefix), read?.attrs ?? sample.attrs);
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

function expectSameBits(what: string, actual: Float32Array, expected: Float32Array): void {
  const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.slice().buffer);
  const [a, e] = [bits(actual), bits(expected)];
  const differing = e.reduce((count, word, i) => count + (word === a[i] ? 0 : 1), 0);
  if (a.length === e.length && differing === 0) return;
  const at = e.findIndex((word, i) => word !== a[i]);
  throw new Error(
    `${what}: ${differing} of ${e.length} values differ in bits (${a.length} joined); first at ${at}: ${actual[at]} instead of ${expected[at]}`,
  );
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

// --- NaN is never swallowed --------------------------------------------------------------------------------------

const QUIET_NAN = 0x7fc0_0000;
const NEGATIVE_NAN = 0xffc0_0000; // what ∞ − ∞ gives on x86

/** Puts NaN of both signs into each input in turn: where the reference is NaN the device must be, by its bits. */
function nanCheck(op: AnyOp, sample: AnySample): Check {
  const run = async (device: Device): Promise<void> => {
    const values = drawInputs(op, sample);
    const spoilt = op.inputs
      .filter((name) => sample.integers?.includes(name) !== true && op.shapeOnly?.includes(name) !== true)
      .map((name) => [name, { ...values, [name]: withNan(values[name]!) }] as const);
    const outputs = spoilt.map(
      ([name, own]) => [name, call(op, asTensors(own, `${name}.`), sample.attrs)] as const,
    );
    if (outputs.length === 0) return;
    const results = await evaluateOnDevice(device, Object.fromEntries(outputs));
    spoilt.forEach(([name, own], i) => {
      const y = outputs[i]![1];
      const expected = total(op, sample.attrs, y, referenceOf(op, own, sample.attrs));
      const actual = total(op, sample.attrs, y, results[name]!);
      const lost = expected.findIndex((value, k) => Number.isNaN(value) && !Number.isNaN(actual[k]!));
      if (lost >= 0)
        throw new Error(`NaN in ${name} gives ${actual[lost]} at element ${lost} instead of NaN`);
    });
  };
  return { name: 'passes NaN on', run };
}

function withNan({ shape, data }: HostTensor): HostTensor {
  const spoilt = Float32Array.from(data as Float32Array);
  const bits = new Uint32Array(spoilt.buffer);
  bits[Math.floor(bits.length / 3)] = QUIET_NAN;
  bits[Math.floor((2 * bits.length) / 3)] = NEGATIVE_NAN;
  return hostTensor(shape, spoilt);
}
