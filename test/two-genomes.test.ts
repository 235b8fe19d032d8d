/** One trunk with a head for each of two genomes, whose batches alternate. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Checkpoint, hashState, loadCheckpoint } from '@cohesin/distributed';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin } from './cohesin.ts';
import { simulateData } from './simulated-data.ts';

const RATE = 0.01;
const PARAMS = {
  train: { batch_size: 4, optimizer: 'adam', learning_rate: RATE, alternation: 'turns' },
  model: {
    seq_length: 128,
    augment_rc: true,
    augment_shift: 3,
    activation: 'gelu',
    norm_type: 'batch',
    trunk: [{ name: 'conv_block', filters: 6, kernel_size: 5, pool_size: 8, dropout: 0.1 }],
    head_human: { name: 'final', units: 5, activation: 'softplus' },
    head_mouse: { name: 'final', units: 3, activation: 'softplus' },
  },
} as const;

let dir: string;
let common: readonly string[];
let data: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-genomes-'));
  const make = async (genome: string, tracks: number, train: number): Promise<string> => {
    await mkdir(join(dir, genome));
    const sequences = { train, valid: 3, test: 2 };
    return `${genome}=${await simulateData(join(dir, genome), { lengthBp: 128, binBp: 8, tracks, sequences })}`;
  };
  data = `${await make('human', 5, 12)},${await make('mouse', 3, 8)}`;
  const model = join(dir, 'params.json');
  await writeFile(model, JSON.stringify(PARAMS));
  common = ['--model', model, '--data', data, '--seed', '7', '--checkpoint-every', '1'];
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function succeed(args: readonly string[]): Promise<readonly string[]> {
  const { code, lines, errors } = await cohesin(args);
  expect(errors, lines.join('\n')).toBe('');
  expect(code).toBe(0);
  return lines;
}

const run = async (name: string, steps: number, more: readonly string[] = []): Promise<Checkpoint> => {
  const out = join(dir, name);
  await succeed(['train', ...common, '--out', out, '--steps', `${steps}`, ...more]);
  return loadCheckpoint(out);
};

/** The state of tensors whose names hold a part. */
const partOf = ({ state }: Checkpoint, part: string): string =>
  hashState(new Map([...state].filter(([name]) => name.includes(part))));

test('each step trains the trunk and its own head, with the same bits on 1 and 2 devices and when resumed in mid-turn', async () => {
  const [one, two] = [await run('one', 1), await run('two', 2)];
  const third = await run('resumed', 3, ['--devices', '2']);
  const five = await run('one', 5, ['--resume', join(dir, 'one')]); // from after the first genome's first turn
  const resumed = await run('resumed', 5, ['--resume', join(dir, 'resumed')]);
  expect(hashState(resumed.state)).toBe(hashState(five.state));
  expect(resumed.host).toEqual(five.host);

  // Steps 1 and 3 are of human, step 2 of mouse.
  expect(partOf(one, 'heads.human')).toBe(partOf(two, 'heads.human'));
  expect(partOf(two, 'heads.mouse')).toBe(partOf(third, 'heads.mouse'));
  for (const [before, after, part] of [
    [one, two, 'trunk.'],
    [two, third, 'trunk.'],
    [one, two, 'heads.mouse'],
    [two, third, 'heads.human'],
  ] as const)
    expect(partOf(before, part)).not.toBe(partOf(after, part));
  const values = ({ state }: Checkpoint, name: string): Float32Array => state.get(name)!.data as Float32Array;
  const moments = [...one.state.keys()].filter((name) => /optimizer.*heads\.mouse/.test(name));
  expect(moments).toHaveLength(4);
  for (const name of moments) expect([...values(one, name)].every((value) => value === 0)).toBe(true);

  // Adam's corrections count the steps of all genomes, as Sonnet's and Keras' do: the first gradient of the mouse head
  // meets them at t = 2, (1 − β₁) / (1 − β₁²) · √((1 − β₂²) / (1 − β₂)).
  const bias = [...two.state.keys()].find((name) => /^heads\.mouse\..*bias$/.test(name))!;
  const [before, after] = [values(one, bias), values(two, bias)];
  for (const [i, value] of after.entries())
    expect(Math.abs(value - before[i]!) / RATE).toBeCloseTo((0.1 / 0.19) * Math.sqrt(1.999), 3);
}, 300_000);

test('evaluation reports each genome, or the one that is named', async () => {
  const evaluate = async (data: string): Promise<Record<string, unknown>[]> => {
    const args = ['evaluate', '--checkpoint', join(dir, 'one'), '--data', data, '--split', 'valid', '--json'];
    return (await succeed(args)).map((line) => JSON.parse(line) as Record<string, unknown>);
  };
  const both = await evaluate(data);
  expect(both).toMatchObject([
    { genome: 'human', sequences: 3, metric: 'pearson' },
    { genome: 'mouse', sequences: 3 },
  ]);
  expect((both[1]!.tracks as unknown[]).length).toBe(3);
  expect(await evaluate(data.split(',')[1]!)).toEqual([both[1]]);
  const other = data.split(',')[1]!.replace('mouse', 'yeast');
  const { code, errors } = await cohesin(['evaluate', '--checkpoint', join(dir, 'one'), '--data', other]);
  expect(errors).toMatch(/--data names yeast, but the model has heads of human, mouse/);
  expect(code).toBe(78);
}, 120_000);
