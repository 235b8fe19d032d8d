import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Options } from './command-line.ts';
import { logicalDifferences, type PlanFile, readPlanFile, writePlanFile } from './plan-file.ts';
import { readRunOptions } from './run-options.ts';

let dir: string;
let path: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-plan-file-'));
  path = join(dir, 'plan.json');
});
afterAll(() => rm(dir, { recursive: true }));

const PLAN: PlanFile = {
  logical: {
    model: { name: 'params.json', id: 'abc' },
    batch: 8,
    leaves: 8,
    parts: 1,
    batchNorm: 'sequence',
    precision: 'f32',
    bitsId: 'def',
  },
  placement: {
    stages: [
      { layers: ['trunk.0', 'trunk.1'], devices: 2 },
      { layers: ['trunk', 'head'], devices: 1 },
    ],
    schedule: 'zero-bubble',
    ahead: 1,
    shardOptimizer: true,
    recompute: ['trunk.0'],
  },
};

const line = (values: Record<string, string> = {}): Options =>
  new Options('train', { model: 'params.json', data: 'data', out: 'out', ...values });

test('what is written reads back, and becomes the options of a run', async () => {
  await writePlanFile(path, PLAN);
  const plan = await readPlanFile(path);
  expect(plan).toEqual({ ...PLAN, logical: { ...PLAN.logical, kernelTable: undefined }, path });
  expect(readRunOptions(line(), { plan })).toMatchObject({
    devices: 3,
    batch: 8,
    parts: 1,
    recompute: ['trunk.0'],
    shardOptimizer: true,
    pipeline: {
      stages: ['trunk.0|trunk.1', 'trunk|head'],
      devices: [2, 1],
      schedule: 'zero-bubble',
      ahead: 1,
    },
  });
  expect(readRunOptions(line({ devices: '0,1,2', batch: '8' }), { plan }).devices).toEqual(['0', '1', '2']);
});

test('an option that contradicts the plan is refused with both sides', async () => {
  await writePlanFile(path, PLAN);
  const plan = await readPlanFile(path);
  for (const [name, value, planned] of [
    ['devices', '4', '3'],
    ['batch', '16', '8'],
    ['parts', '2', '1'],
    ['batch-norm', 'step', 'sequence'],
    ['precision', 'mixed', 'f32'],
  ] as const)
    expect(() => readRunOptions(line({ [name]: value }), { plan })).toThrow(
      `--${name} is ${value} but ${path} says ${planned}; leave --${name} out, or change the plan`,
    );
  const stages = { stages: 'trunk.0,trunk.3', 'stage-devices': '1,2' };
  expect(() => readRunOptions(line(stages), { plan })).toThrow(
    '--stages is trunk.0,trunk.3 but .* says trunk.0|trunk.1,trunk|head'.replace('.*', path),
  );
});

test.each([
  [{ format: 'cohesin plan 0' }, /the format is "cohesin plan 0" but this version reads 'cohesin plan 1'/],
  [{ extra: 1 }, /plan\.json: unknown option extra; known are format, logical, placement, device/],
  [{ logical: { ...PLAN.logical, seed: 3 } }, /logical: unknown option seed/],
  [{ logical: { ...PLAN.logical, leaves: 3 } }, /a batch of 8 does not divide into 3 leaves/],
  [{ logical: { ...PLAN.logical, parts: 4, leaves: 2 } }, /2 leaves but a batch of 8 in 4 parts each/],
  [
    { placement: { ...PLAN.placement, schedule: 'fast' } },
    /placement\.schedule: expected one of gpipe, 1f1b/,
  ],
  [{ placement: { ...PLAN.placement, replicas: 0 } }, /placement\.replicas: expected a whole number ≥ 1/],
  [{ placement: { ...PLAN.placement, sideBySide: 2 } }, /sideBySide is for a plan of one stage/],
  [
    { placement: { ...PLAN.placement, stages: [{ layers: ['*'] }] } },
    /placement\.stages\[0\]\.devices: expected a whole number ≥ 1, it is missing/,
  ],
])('a file that is no plan is refused: %j', async (change, message) => {
  await writeFile(path, JSON.stringify({ format: 'cohesin plan 1', ...PLAN, ...change }));
  await expect(readPlanFile(path)).rejects.toThrow(message);
});

test('logical plans differ in what decides bits alone', () => {
  expect(logicalDifferences(PLAN.logical, { ...PLAN.logical, bitsId: undefined })).toEqual([]);
  expect(
    logicalDifferences(PLAN.logical, { ...PLAN.logical, precision: 'mixed', kernelTable: 'tiles' }),
  ).toEqual(['precision: f32 and mixed', 'kernelTable: the shipped one and tiles']);
});
