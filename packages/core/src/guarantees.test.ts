import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Compiled } from './compile/compile.ts';
import { Device } from './device.ts';
import { NotFiniteError } from './not-finite.ts';
import { compileSmallStep, SMALL_INPUTS, smallBatch } from './testing/small-network.ts';

let device: Device;
const steps: Compiled[] = [];
beforeAll(async () => {
  device = await Device.open();
  for (const leavesPerSequence of [1, 2]) steps.push(await compileSmallStep({ device, leavesPerSequence }));
});
afterAll(async () => {
  for (const step of steps) {
    step.close();
    step.state.close();
  }
  await device.close();
});

const withNan = (values: Float32Array, at: number): Float32Array => values.with(at, Number.NaN);

async function failureOf(step: Compiled, batch: Record<'x' | 'y', Float32Array>): Promise<unknown> {
  return step(batch).then(
    ({ loss }) => `no error but a loss of ${loss!.data[0]}`,
    (error: unknown) => error,
  );
}

// In parts, edges, keys and moments go between the leaves: what those ops are given comes from here.
describe.each([
  ['of whole sequences', 0],
  ['of sequences in two parts', 1],
])('%s', (_, index) => {
  test('a NaN in any input stops a training step', async () => {
    const step = steps[index]!;
    for (const name of Object.keys(SMALL_INPUTS) as ('x' | 'y')[]) {
      const batch = smallBatch(0);
      const [, rows, channels] = SMALL_INPUTS[name] as readonly [number, number, number];
      const cut = (rows / 2) * channels;
      for (const at of [0, cut - 1, cut, batch[name].length - 1]) {
        const spoilt = { ...batch, [name]: withNan(batch[name], at) };
        expect(await failureOf(step, spoilt), `${name} ${at}`).toBeInstanceOf(NotFiniteError);
      }
    }
  });

  test('a NaN in any parameter stops a training step, which changes nothing', async () => {
    const step = steps[index]!;
    const before = await step.state.read();
    const names = [...before.keys()].filter((name) => !name.includes('.running_')); // those are not read in training
    expect(names.length).toBeGreaterThan(15);
    for (const name of names) {
      const value = before.get(name)!;
      const at = Math.floor(value.data.length / 3);
      const spoilt = { ...value, data: withNan(value.data as Float32Array, at) };
      step.state.write(new Map([[name, spoilt]]));
      expect(await failureOf(step, smallBatch(0)), name).toBeInstanceOf(NotFiniteError);
      step.state.write(new Map([[name, value]]));
    }
    expect(await step.state.read()).toEqual(before);
  });
});

test('a step makes no GPU object once the first two have run', async () => {
  const [step] = steps as [Compiled, ...Compiled[]];
  for (let i = 0; i < 2; i++) await step(smallBatch(i));
  const made = { ...device.created };
  expect(Math.min(...Object.values(made))).toBeGreaterThan(0);
  for (let i = 0; i < 5; i++) await step(smallBatch(i));
  expect(device.created).toEqual(made);
});
