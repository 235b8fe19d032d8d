import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adam, clipGlobalNorm, nn, type Optimizer, type Traceable, trainStep } from '@cohesin/core';
import { distribute, hashState, hostTensors, type StagesOptions } from '@cohesin/distributed';
import { meshPool } from '@cohesin/distributed/testing';
import { lossOf } from '@cohesin/models';
import { SMALL_BASENJI, smallAkita, smallEnformer } from '@cohesin/models/testing';
import { afterAll, expect, test } from 'vitest';
import { cohesin, SMALL_DATA } from './cohesin.ts';
import { simulateData } from './simulated-data.ts';

const meshes = meshPool();
const dirs: string[] = [];
afterAll(async () => {
  await meshes.close();
  for (const dir of dirs) await rm(dir, { recursive: true, force: true });
});

const SEQUENCES = 4;
const STEPS = 8; // dropout, clipping and moments have all had their say

/** Values that are no short binary fractions, so that every rounding shows. */
const values = (shape: readonly number[], k: number): Float32Array =>
  Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 12.9898 + k) * 1.7);

interface Case {
  readonly model: () => nn.Layer;
  readonly y: readonly number[];
  readonly loss: nn.Loss;
  readonly optimizer: Optimizer;
}

const ENFORMER: Case = {
  model: () => smallEnformer().head('human'),
  y: [SEQUENCES, 24, 3],
  loss: nn.poissonLoss,
  optimizer: adam({ learningRate: 1e-2, clip: clipGlobalNorm(0.2) }),
};

const AKITA: Case = {
  model: () => smallAkita().model,
  y: [SEQUENCES, ...smallAkita().config.outputShape],
  loss: lossOf(smallAkita().train),
  optimizer: adam({ learningRate: 1e-3, clip: clipGlobalNorm(10) }),
};

async function hashOf(one: Case, devices: number, pipeline?: StagesOptions): Promise<string> {
  const { model, loss, optimizer, y } = one;
  const x = [SEQUENCES, 128, 4];
  const fn: Traceable = trainStep({ model: model(), loss, optimizer });
  const options = { mesh: await meshes.of(devices), leaves: SEQUENCES, inputs: { x, y }, seed: 5 };
  const step = await distribute(fn, { ...options, ...(pipeline === undefined ? {} : { pipeline }) });
  for (let i = 0; i < STEPS; i++) await step({ x: values(x, i), y: values(y, i + 7).map(Math.abs) });
  await step.state.checkEqual();
  const hash = hashState(new Map([...(await step.state.read()), ...hostTensors(step.host)]));
  await step.close();
  return hash;
}

test.each([
  ['Enformer', ENFORMER, ['trunk.stem', 'trunk.transformer.0', 'trunk.transformer.1']],
  ['Akita', AKITA, ['trunk.0', 'trunk.2', 'head']],
] as const)(
  'a small %s has the same weights in one piece and in two and three stages',
  async (_, one, stages) => {
    const hashes = [
      await hashOf(one, 1),
      await hashOf(one, 2, { stages: stages.slice(0, 2), schedule: 'zero-bubble' }),
      await hashOf(one, 3, { stages, schedule: '1f1b' }),
    ];
    expect(new Set(hashes), hashes.join('\n')).toHaveProperty('size', 1);
  },
  300_000,
);

async function train(args: readonly string[], killAt?: number): Promise<readonly string[]> {
  const { code, lines, errors } = await cohesin(['train', ...args], killAt);
  if (killAt !== undefined) return lines;
  expect(errors, lines.join('\n')).toBe('');
  expect(code).toBe(0);
  return lines;
}

test('a Basenji2 is killed in three stages that shard the optimizer and resumed on two devices, and the other way round: one hash', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'cohesin-stages-'));
  dirs.push(dir);
  const data = await simulateData(join(dir, 'data'), { ...SMALL_DATA, sequences: { train: 16, valid: 3 } });
  const model = join(dir, 'params.json');
  await writeFile(
    model,
    JSON.stringify({ ...SMALL_BASENJI, train: { ...SMALL_BASENJI.train, optimizer: 'adam' } }),
  );
  const common = ['--model', model, '--data', data, '--steps', '9', '--seed', '11'];
  const stages = ['--stages', 'trunk.0,trunk.2,trunk.4', '--stage-devices', '1,2,1'];
  const places = {
    whole: ['--devices', '2'],
    stages: [...stages, '--schedule', 'zero-bubble', '--shard-optimizer'],
  };
  const last: string[] = [];
  for (const [name, first, then] of [
    ['a', places.whole, places.whole],
    ['b', places.stages, places.whole],
    ['c', places.whole, places.stages],
  ] as const) {
    const out = join(dir, name);
    if (name === 'a') last.push((await train([...common, ...first, '--out', out])).at(-1)!);
    else {
      await train([...common, ...first, '--out', out, '--checkpoint-every', '3', '--json'], 7);
      const lines = await train([...common, ...then, '--out', out, '--resume', out]);
      if (name === 'c') {
        const held = lines.filter((line) =>
          /^stage \d on rank .* weights, statistics and moments/.test(line),
        );
        expect(held).toHaveLength(3);
      }
      last.push(lines.at(-1)!);
    }
  }
  expect(last[0]).toMatch(/^weights sha256 [0-9a-f]{64}$/);
  expect(new Set(last), last.join('\n')).toHaveProperty('size', 1);
}, 300_000);

test('stages that cannot be are bad use', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'cohesin-stages-'));
  dirs.push(dir);
  const data = await simulateData(join(dir, 'data'), { ...SMALL_DATA, sequences: { train: 8 } });
  const model = join(dir, 'params.json');
  await writeFile(model, JSON.stringify(SMALL_BASENJI));
  const refused = async (args: readonly string[], message: RegExp): Promise<void> => {
    const { code, errors } = await cohesin([
      'train',
      '--model',
      model,
      '--data',
      data,
      '--out',
      join(dir, 'out'),
      ...args,
    ]);
    expect(errors).toMatch(message);
    expect(code).toBe(78);
  };
  await refused(['--schedule', '1f1b'], /--schedule is about stages of layers/);
  await refused(
    ['--stages', 'trunk.0,trunk.2', '--replicas', '2'],
    /replicas is 2 but sequences are not cut into parts/,
  );
  await refused(
    ['--stages', 'trunk.0,trunk.2', '--devices', '3', '--stage-devices', '1,1'],
    /2 stages on 1 \+ 1 devices, but the mesh has 3/,
  );
  await refused(['--stages', 'trunk.0,tower'], /no layer matches 'tower'; there are trunk, head/);
}, 120_000);
