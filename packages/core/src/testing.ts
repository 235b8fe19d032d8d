/**
 * Tests that follow from an op's declaration alone: equal to its float64 reference, gradient equal to central differences,
 * a piece of the work equal to the same piece of the whole, in windows too, NaN never swallowed. A user's op gets the built-ins' tests:
 *
 *     for (const { name, skip, run } of checkOp('swish')) test.skipIf(skip !== undefined)(name, () => run(device));
 */
import type { Device } from './device.ts';
import { type HostTensor, hostTensor } from './host-tensor.ts';
import { type AnyOp, declaredOp } from './op.ts';
import { shapeText } from './tensor.ts';
import { total } from './testing/axes.ts';
import {
  type AnySample,
  asTensors,
  type Check,
  call,
  drawInputs,
  evaluateOnDevice,
  referenceOf,
} from './testing/evaluate.ts';
import { gradientChecks } from './testing/gradient.ts';
import { splitChecks } from './testing/split.ts';
import { expectClose, VALUE_TOLERANCE } from './testing/values.ts';
import { windowCheck } from './testing/windows.ts';

export { type Check, evaluateOnDevice, interpret } from './testing/evaluate.ts';
export { type RandomOptions, randomTensor, relativeError } from './testing/values.ts';

/** All derived tests of a declared op, for each of its samples. */
export function checkOp(name: string): readonly Check[] {
  const op = declaredOp(name);
  return (op.samples ?? []).flatMap((sample) => {
    const at = `${name}(${op.inputs.map((input) => shapeText(sample.inputs[input]!)).join(', ')}${attrsText(sample.attrs)})`;
    const checks = [
      referenceCheck(op, sample),
      ...gradientChecks(op, sample),
      ...splitChecks(op, sample),
      windowCheck(op, sample),
      nanCheck(op, sample),
      hiddenNanCheck(op, sample),
    ];
    return checks.map((check) => ({ ...check, name: `${at} ${check.name}` }));
  });
}

function attrsText(attrs: unknown): string {
  return attrs === undefined ? '' : `, ${JSON.stringify(attrs).replaceAll('"', '')}`;
}

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

const QUIET_NAN = 0x7fc0_0000;
const NEGATIVE_NAN = 0xffc0_0000; // what ∞ − ∞ gives on x86

/** Puts NaN of both signs into each input in turn: where the reference is NaN the device must be, by its bits. */
function nanCheck(op: AnyOp, sample: AnySample): Check {
  const name = 'passes NaN on';
  const inputs = floatInputs(op, sample);
  const run = async (device: Device): Promise<void> => {
    const values = drawInputs(op, sample);
    const spoilt = inputs.map((input) => [input, { ...values, [input]: withNan(values[input]!) }] as const);
    const outputs = spoilt.map(
      ([input, own]) => [input, call(op, asTensors(own, `${input}.`), sample.attrs)] as const,
    );
    const results = await evaluateOnDevice(device, Object.fromEntries(outputs));
    spoilt.forEach(([input, own], i) => {
      const y = outputs[i]![1];
      const expected = total(op, sample.attrs, y, referenceOf(op, own, sample.attrs));
      const actual = total(op, sample.attrs, y, results[input]!);
      const lost = expected.findIndex((value, k) => Number.isNaN(value) && !Number.isNaN(actual[k]!));
      if (lost >= 0)
        throw new Error(`NaN in ${input} gives ${actual[lost]} at element ${lost} instead of NaN`);
    });
  };
  return inputs.length > 0 ? { name, run } : { name, skip: 'every input holds whole numbers', run };
}

/** The reference itself must not hide a NaN, or the device may: an input of nothing else gives NaN somewhere. */
function hiddenNanCheck(op: AnyOp, sample: AnySample): Check {
  const run = async (): Promise<void> => {
    const values = drawInputs(op, sample);
    for (const name of floatInputs(op, sample)) {
      const { shape, data } = values[name]!;
      const spoilt = { ...values, [name]: hostTensor(shape, new Float32Array(data.length).fill(Number.NaN)) };
      if (!referenceOf(op, spoilt, sample.attrs).some(Number.isNaN))
        throw new Error(`${name} is NaN throughout, but the reference of ${op.name} gives none`);
    }
  };
  return { name: 'has a reference that hides no NaN', run };
}

/** Inputs in which NaN means something. */
function floatInputs({ inputs, shapeOnly }: AnyOp, { integers }: AnySample): readonly string[] {
  return inputs.filter((name) => integers?.includes(name) !== true && shapeOnly?.includes(name) !== true);
}

function withNan({ shape, data }: HostTensor): HostTensor {
  const spoilt = Float32Array.from(data as Float32Array);
  const bits = new Uint32Array(spoilt.buffer);
  bits[Math.floor(bits.length / 3)] = QUIET_NAN;
  bits[Math.floor((2 * bits.length) / 3)] = NEGATIVE_NAN;
  return hostTensor(shape, spoilt);
}
