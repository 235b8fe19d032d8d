/** An op's gradient rule against central differences through its reference, and on the device against both. */
import type { Device } from '../device.ts';
import { gradients } from '../grad.ts';
import type { AnyOp } from '../op.ts';
import { hashName } from '../random.ts';
import type { Tensor } from '../tensor.ts';
import {
  type AnySample,
  asReference,
  asTensors,
  type Check,
  call,
  drawInputs,
  evaluateOnDevice,
  interpret,
  type Values,
} from './evaluate.ts';
import { expectClose, GRADIENT_TOLERANCE, randomTensor } from './values.ts';

const STEP = 1e-4; // truncation STEP²/6 · f''' and rounding 1e-16 / STEP are both far below the tolerance
const DIFFERENCE_TOLERANCE = 1e-6;
/** Inputs of up to this many elements are checked element by element, larger ones along one random direction. */
const FEW_ELEMENTS = 16;

export function gradientChecks(op: AnyOp, sample: AnySample): readonly Check[] {
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
