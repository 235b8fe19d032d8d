import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SMALL_BASENJI } from '@cohesin/models/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin } from './cohesin.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'plan-'));
  writeFileSync(join(folder, 'model.json'), JSON.stringify(SMALL_BASENJI));
});
afterAll(() => rmSync(folder, { recursive: true }));

const plan = (...rest: string[]): ReturnType<typeof cohesin> =>
  cohesin(['plan', '--model', join(folder, 'model.json'), '--batch', '8', ...rest]);

test('plan compares ways to train, says that they are simulated, and writes the best', async () => {
  const files = ['--out', join(folder, 'plan.json'), '--trace', join(folder, 'trace.json')];
  const { code, lines } = await plan('--devices', '4', '--json', ...files);
  expect(code).toBe(0);
  const result = JSON.parse(lines[0]!);
  expect(result.simulated).toBe(true);
  expect(result.plans.length).toBeGreaterThan(1);
  const times = result.plans.map(({ stepMs }: { stepMs: number }) => stepMs);
  expect(times).toEqual([...times].sort((a, b) => a - b));
  for (const { efficiency, stages } of result.plans) {
    expect(efficiency).toBeLessThanOrEqual(1);
    expect(stages.reduce((sum: number, { devices }: { devices: number }) => sum + devices, 0)).toBe(4);
  }
  expect(JSON.parse(readFileSync(join(folder, 'plan.json'), 'utf8')).placement.stages[0].layers).toContain(
    'trunk',
  );
  expect(JSON.parse(readFileSync(join(folder, 'trace.json'), 'utf8')).traceEvents.length).toBeGreaterThan(4);
});

test('plan refuses what cannot be, with the reason, and costs that are no costs', async () => {
  const together = await plan('--devices', '2', '--batch-norm', 'step');
  expect(together.lines.join('\n')).toContain('refused: pipeline: batch norm over the whole step');
  writeFileSync(join(folder, 'costs.json'), JSON.stringify({ device: { gigaMultiplyAdds: 100 } }));
  const wrong = await plan('--devices', '2', '--costs', join(folder, 'costs.json'));
  expect(wrong.code).toBe(78);
  expect(wrong.errors).toContain('device.gigabytes is undefined; it must be a number above 0');
  writeFileSync(join(folder, 'torn.json'), '{ "device": ');
  const torn = await plan('--devices', '2', '--costs', join(folder, 'torn.json'));
  expect(torn.errors).toContain('torn.json: no JSON: ');
});

test('measure writes what kernels and a meeting cost here, and plan reckons with it', async () => {
  const out = join(folder, 'measured.json');
  const model = join(folder, 'model.json');
  const measured = await cohesin([
    'measure',
    '--model',
    model,
    '--leaves',
    '1',
    '--runs',
    '1',
    '--share-devices',
    '--out',
    out,
  ]);
  expect(measured.errors).toBe('');
  expect(measured.code).toBe(0);
  const { kernels, link, device } = JSON.parse(readFileSync(out, 'utf8'));
  expect(Object.keys(kernels).length).toBeGreaterThan(20);
  for (const ms of Object.values(kernels)) expect(ms).toBeGreaterThan(0);
  expect(link.latencyMs).toBeGreaterThan(0);
  expect(device.memoryGb).toBeGreaterThan(1);
  const { lines } = await plan('--devices', '2', '--costs', out, '--json');
  const planned = JSON.parse(lines[0]!);
  expect(planned.costs.kernels).toEqual(kernels);
  const stepMs = Object.values(kernels as Record<string, number>).reduce((a, b) => a + b, 0);
  expect(planned.oneDeviceMs).toBeLessThan(20 * stepMs); // eight sequences, and some kernels run more than once
});

test('short sequences are planned as they are trained, several in a leaf', async () => {
  const out = join(folder, 'short.json');
  const { code, lines } = await plan('--devices', '2', '--batch', '24', '--out', out);
  expect(code).toBe(0);
  expect(lines.join('\n')).toContain(
    'refused: 8 leaves a sequence: sequences are short, a leaf has 3 of them',
  );
  expect(JSON.parse(readFileSync(out, 'utf8')).logical).toMatchObject({ batch: 24, leaves: 8, parts: 1 });
});
