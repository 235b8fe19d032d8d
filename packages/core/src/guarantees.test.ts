import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Compiled } from './compile/compile.ts';
import { Device } from './device.ts';
import { NotFiniteError } from './not-finite.ts';
import { compileSmallStep, SMALL_INPUTS, smallBatch } from './testing/small-network.ts';

let device: Device;
let step: Compiled;
beforeAll(async () => {
  device = await Device.open();
  step = await compileSmallStep({ device });
});
afterAll(async () => {
  step.close();
  await device.close();
});

const withNan = (values: Float32Array, at: number): Float32Array => values.with(at, Number.NaN);

async function failureOf(batch: Record<'x' | 'y', Float32Array>): Promise<unknown> {
  return step(batch).then(
    ({ loss }) => `no error but a loss of ${loss!.data[0]}`,
    (error: unknown) => error,
  );
}

test('a NaN in any input stops a training step', async () => {
  for (const name of Object.keys(SMALL_INPUTS) as ('x' | 'y')[]) {
    const batch = smallBatch(0);
    for (const at of [0, batch[name].length - 1])
      expect(await failureOf({ ...batch, [name]: withNan(batch[name], at) }), `${name} ${at}`).toBeInstanceOf(
        NotFiniteError,
      );
  }
});

test('a NaN in any parameter stops a training step, which changes nothing', async () => {
  const before = await step.state.read();
  const names = [...before.keys()].filter((name) => !name.includes('.running_')); // those are not read in training
  expect(names.length).toBeGreaterThan(15);
  for (const name of names) {
    const value = before.get(name)!;
    const spoilt = { ...value, data: withNan(value.data as Float32Array, Math.floor(value.data.length / 3)) };
    step.state.write(new Map([[name, spoilt]]));
    expect(await failureOf(smallBatch(0)), name).toBeInstanceOf(NotFiniteError);
    step.state.write(new Map([[name, value]]));
  }
  expect(await step.state.read()).toEqual(before);
});

test('a step makes no GPU object once the first two have run', async () => {
  for (let i = 0; i < 2; i++) await step(smallBatch(i));
  const made = { ...device.created };
  expect(Math.min(...Object.values(made))).toBeGreaterThan(0);
  for (let i = 0; i < 5; i++) await step(smallBatch(i));
  expect(device.created).toEqual(made);
});
