import { afterAll, beforeAll, expect, test } from 'vitest';
import { compile } from './compile/compile.ts';
import { stepWork } from './compile/work.ts';
import { Device } from './device.ts';
import { conv1d } from './nn/conv.ts';
import { mseLoss } from './nn/loss.ts';
import { batchNorm } from './nn/norm.ts';
import { sequential } from './nn/sequential.ts';
import { geluSigmoid } from './ops/elementwise.ts';
import { adam } from './optim/adam.ts';
import { profile, profileReport } from './profile.ts';
import { randomTensor } from './testing.ts';
import { trainStep } from './train-step.ts';

let device: Device;
beforeAll(async () => {
  device = await Device.open();
});
afterAll(() => device.close());

test('a profile names every layer, adds up, and leaves the state as it was', async () => {
  const model = sequential({
    conv: conv1d({ inputs: 4, outputs: 6, size: 3 }),
    norm: batchNorm({ channels: 6 }),
    gelu: geluSigmoid,
    last: conv1d({ inputs: 6, outputs: 6, size: 3 }),
  });
  const step = trainStep({ model, loss: mseLoss, optimizer: adam({ learningRate: 1e-2 }) });
  const inputs = { x: [2, 37, 4], y: [2, 37, 6] };
  const compiled = await compile(step, { device, inputs, leaves: 2 });
  const values = {
    x: randomTensor(inputs.x, { seed: 1 }),
    y: randomTensor(inputs.y, { seed: 2 }),
  };
  await compiled(values);
  const [state, counters] = [await compiled.state.read(), compiled.counters];

  const result = await profile(compiled, values, { runs: 2 });

  expect(await compiled.state.read()).toEqual(state);
  expect(compiled.counters).toEqual(counters);
  const layers = new Set(result.layers.map(({ path, phase }) => `${path} ${phase}`));
  for (const layer of ['conv F', 'norm F', 'norm I', 'conv W', 'conv U']) expect(layers).toContain(layer);
  expect(result.steps.find(({ kernel }) => kernel.startsWith('conv1d '))?.dispatches).toBe(2);
  const labels = new Set(result.steps.map(({ label }) => label));
  for (const { label } of stepWork(step, { inputs, leaves: 2 }).kernels) expect(labels).toContain(label);
  for (const view of [result.steps, result.layers, result.kernels]) {
    expect(view.reduce((sum, { ms }) => sum + ms, 0)).toBeCloseTo(result.totalMs, 6);
  }
  expect(profileReport(result)).toMatch(/ms +% +phase[\s\S]* conv\n/);
  expect(profileReport(result, { rows: 3 })).toContain(` ${result.steps.length - 3} more\n`);
  compiled.close();
});
