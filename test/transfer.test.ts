/** A trunk trained on one task and moved below the head of another, as a user does it from the command line. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostTensor } from '@cohesin/core';
import { loadCheckpoint } from '@cohesin/distributed';
import { SMALL_BASENJI } from '@cohesin/models/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin, type Run, SMALL_DATA } from './cohesin.ts';
import { simulateData } from './simulated-data.ts';

const SEQUENCES = { train: 16 };

let dir: string;
let trunk: string;
let common: readonly string[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-transfer-'));
  trunk = join(dir, 'five-tracks');
  const five = await simulateData(join(dir, '5'), { ...SMALL_DATA, sequences: SEQUENCES });
  const two = await simulateData(join(dir, '2'), { ...SMALL_DATA, tracks: 2, sequences: SEQUENCES });
  const text = JSON.stringify(SMALL_BASENJI);
  await writeFile(join(dir, 'five.json'), text);
  await writeFile(join(dir, 'two.json'), text.replace('"units":5', '"units":2'));
  await succeed(['train', '--model', join(dir, 'five.json'), '--data', five, '--out', trunk, '--steps', '2']);
  common = ['train', '--model', join(dir, 'two.json'), '--data', two, '--json'];
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function succeed(args: readonly string[]): Promise<Run> {
  const run = await cohesin(args);
  expect(run.errors, run.lines.join('\n')).toBe('');
  return run;
}

type State = ReadonlyMap<string, HostTensor>;

/** Trains the model of two tracks for a step; gives its state and what was told. */
async function train(
  name: string,
  args: readonly string[],
): Promise<{ readonly state: State; readonly lines: readonly string[] }> {
  const out = join(dir, name);
  const { lines } = await succeed([...common, '--out', out, '--steps', '1', ...args]);
  return { state: (await loadCheckpoint(out)).state, lines };
}

const namesOf = (state: State, pattern: RegExp): string[] =>
  [...state.keys()].filter((name) => pattern.test(name));

/** How far each value of a tensor is from the other state's. */
function difference(from: State, to: State, name: string): Float32Array {
  const [before, after] = [from, to].map((state) => state.get(name)!.data as Float32Array);
  return after!.map((value, i) => Math.abs(value - before![i]!));
}

/** The longest move of any value of these tensors. */
const moved = (from: State, to: State, names: readonly string[]): number =>
  Math.max(...names.map((name) => Math.max(...difference(from, to, name))));

const FROM_TRUNK = (): string[] => ['--from', trunk, '--from-layers', 'trunk.*'];

test('a frozen trunk keeps its values and statistics, a new head is trained, and a resumed run goes on so', async () => {
  const source = (await loadCheckpoint(trunk)).state;
  const { state: frozen, lines } = await train('frozen', [
    ...FROM_TRUNK(),
    '--freeze',
    'trunk.*',
    '--devices',
    '2',
  ]);
  const names = namesOf(frozen, /^trunk\./);
  expect(names.length).toBeGreaterThan(20);
  for (const name of names) expect(frozen.get(name), name).toEqual(source.get(name));
  const told = lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  expect(told.find(({ event }) => event === 'weights')).toEqual({
    event: 'weights',
    source: join(trunk, 'checkpoints', 'step-00000002'),
    loaded: expect.arrayContaining(['trunk.0.conv.weight', 'trunk.0.norm.running_var']),
    fresh: ['head.0.dense.weight', 'head.0.dense.bias'],
  });
  expect(namesOf(frozen, /^optimizer\/.*\/trunk/)).toEqual([]);
  const out = join(dir, 'frozen');
  const resumed = [...common, '--out', out, '--resume', out, '--steps', '2'];
  const other = await cohesin([...resumed, '--freeze', 'trunk.0.*']);
  expect([other.code, other.errors]).toEqual([
    78,
    expect.stringContaining('--freeze is trunk.0.* but the run was started with trunk.*'),
  ]);
  await succeed(resumed);
  const later = (await loadCheckpoint(out)).state;
  for (const name of names) expect(later.get(name), name).toEqual(source.get(name));
  expect(moved(frozen, later, namesOf(frozen, /^head\./))).toBeGreaterThan(0);
});

test('a learning rate of its own moves a trunk less', async () => {
  const source = (await loadCheckpoint(trunk)).state;
  const names = namesOf(source, /^trunk\..*\.(weight|bias)$/);
  const whole = moved(source, (await train('whole', FROM_TRUNK())).state, names);
  const slower = await train('tenth', [...FROM_TRUNK(), '--rate', 'trunk.*=0.1']);
  const tenth = moved(source, slower.state, names);
  expect(tenth / whole).toBeCloseTo(0.1, 4); // one step of gradient descent, in f32
});

test.each<[string, readonly string[], RegExp]>([
  [
    'all layers where the heads differ',
    ['--from', 'TRUNK'],
    /head.*weight is \[12, 5\] but the model has \[12, 2\]/s,
  ],
  [
    'layers that the model lacks',
    ['--from', 'TRUNK', '--from-layers', 'stem.*'],
    /no parameter matches 'stem\.\*'/,
  ],
  ['layers of nothing', ['--from-layers', 'trunk.*'], /--from-layers goes with --from/],
  ['weights that are not there', ['--from', 'nowhere.h5'], /nowhere\.h5/],
  ['frozen layers that the model lacks', ['--freeze', 'tower.*'], /no parameter matches 'tower\.\*'/],
  ['a rate of 0', ['--rate', 'trunk.*=0'], /--rate has 'trunk\.\*=0'.*--freeze/],
  [
    'a rate of what is frozen',
    ['--freeze', 'trunk.*', '--rate', 'trunk.0.*=2'],
    /--rate trunk\.0\.\*: all that it fits is frozen/,
  ],
])('%s are refused before any work', async (_, args, message) => {
  const given = args.map((arg) => (arg === 'TRUNK' ? trunk : arg));
  const { code, errors } = await cohesin([...common, '--out', join(dir, 'refused'), ...given]);
  expect(errors).toMatch(message);
  expect(code).toBe(78);
});

test('the trunk of simulated tracks goes below a contact map, as the README has it', async () => {
  const out = join(dir, 'simulated');
  await succeed(['simulate', '--out', out, '--train-tracks', '4', '--train-maps', '4']);
  const task = (name: string): string[] =>
    ['--model', `${name}.json`, '--data', name, '--steps', '1'].map((arg) =>
      arg.startsWith(name) ? join(out, arg) : arg,
    );
  await succeed(['train', ...task('tracks'), '--out', join(out, 'trunk')]);
  const from = ['--from', join(out, 'trunk', 'best'), '--from-layers', 'trunk.*', '--rate', 'trunk.*=0.1'];
  await succeed(['train', ...task('contacts'), '--out', join(out, 'moved'), ...from]);
  const below = (await loadCheckpoint(join(out, 'moved'))).state;
  const source = (await loadCheckpoint(join(out, 'trunk'))).state;
  const kernel = 'trunk.0.conv.weight';
  expect(below.get(kernel)).not.toEqual(source.get(kernel));
  const size = Math.max(...(source.get(kernel)!.data as Float32Array).map(Math.abs));
  expect(Math.max(...difference(below, source, kernel))).toBeLessThan(0.05 * size); // one step of Adam, 0.0003 each
});
