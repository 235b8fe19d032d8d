import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SMALL_BASENJI } from '@cohesin/models/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin, SMALL_DATA } from './cohesin.ts';
import { simulateData } from './simulated-data.ts';

let dir: string;
let common: readonly string[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-plans-'));
  const data = await simulateData(join(dir, 'data'), { ...SMALL_DATA, sequences: { train: 8 } });
  await writeFile(join(dir, 'params.json'), JSON.stringify(SMALL_BASENJI));
  common = ['--model', join(dir, 'params.json'), '--data', data, '--steps', '2', '--seed', '11'];
});
afterAll(() => rm(dir, { recursive: true }));

async function train(name: string, ...args: readonly string[]): Promise<string> {
  const { code, lines, errors } = await cohesin(['train', ...common, '--out', join(dir, name), ...args]);
  expect(errors, lines.join('\n')).toBe('');
  expect(code).toBe(0);
  return lines.at(-1)!;
}

/** The fastest plan, or the fastest of this name. */
async function planned(devices: number, show?: string): Promise<string> {
  const path = join(dir, `${show} ${devices}.json`);
  const of = ['--model', join(dir, 'params.json'), '--devices', `${devices}`, '--batch', '8'];
  const shown = show === undefined ? [] : ['--show', show];
  const { code, errors } = await cohesin(['plan', ...of, '--leaves', '1,4', ...shown, '--out', path]);
  expect(errors).toBe('');
  expect(code).toBe(0);
  return path;
}

const read = async (path: string): Promise<Record<string, Record<string, unknown>>> =>
  JSON.parse(await readFile(path, 'utf8'));
const written = (name: string) => read(join(dir, name, 'plan.json'));

test('a run from a plan has the weights of one from options, and leaves a plan that is logically the same', async () => {
  const hash = await train('options', '--devices', '2');
  expect(hash).toMatch(/^weights sha256 [0-9a-f]{64}$/);
  expect(await train('pipeline', '--plan', await planned(2, 'pipeline'))).toBe(hash);
  expect(await train('fastest', '--plan', await planned(2))).toBe(hash);
  const [options, pipeline] = [await written('options'), await written('pipeline')];
  expect(pipeline.logical).toEqual(options.logical);
  expect(options.logical!.bitsId).toMatch(/^[0-9a-f]{64}$/);
  expect(pipeline.placement).not.toEqual(options.placement);
  expect((pipeline.placement!.stages as unknown[]).length).toBe(2);
  expect((await written('fastest')).placement).toMatchObject({
    stages: [{ devices: 2 }],
    shardOptimizer: true,
  });
});

test('a plan for parts of sequences has the weights of as many parts on one device', async () => {
  const hash = await train('parts', '--parts', '4');
  expect(await train('shared', '--plan', await planned(2, 'sequence'))).toBe(hash);
  expect(await train('groups', '--plan', await planned(4, 'groups of 2'))).toBe(hash);
  const { placement, logical } = await written('shared');
  expect(placement).toMatchObject({ stages: [{ devices: 2 }], replicas: 1, sideBySide: 8 });
  expect((await written('groups')).placement).toMatchObject({ stages: [{ devices: 4 }], replicas: 2 });
  expect(logical).toEqual((await written('parts')).logical);
});

test('a plan for another model, or other kernels, is refused before training with what differs', async () => {
  const plan = join(dir, 'options', 'plan.json');
  const refused = async (change: object, message: RegExp): Promise<void> => {
    const path = join(dir, 'changed.json');
    const { logical, ...rest } = await read(plan);
    await writeFile(path, JSON.stringify({ ...rest, logical: { ...logical, ...change } }));
    const out = join(dir, 'refused');
    const { code, errors } = await cohesin(['train', ...common, '--out', out, '--plan', path]);
    expect(errors).toMatch(message);
    expect(code).toBe(78);
    expect(await readdir(out).catch(() => [])).toEqual([]);
  };
  await refused({ model: { name: 'akita', id: 'abc' } }, /is a plan for akita \(abc\) but --model is/);
  await refused({ kernelTable: 'abc' }, /is for the kernel table abc but this run has the shipped one/);
  await refused({ bitsId: 'abc' }, /the plan has the bitsId abc but this run [0-9a-f]{12}/);
});

/** Lines of `verify`, and whether it found no difference. */
async function verify(...args: readonly string[]): Promise<{ same: boolean; text: string }> {
  const { code, lines, errors } = await cohesin(['verify', ...args]);
  expect(errors).toBe('');
  expect([0, 1]).toContain(code);
  return { same: code === 0, text: lines.join('\n') };
}

test('verify finds two runs the same, or names the first step and the tensors that differ', async () => {
  const of = (name: string): string => join(dir, name);
  const same = await verify(of('options'), of('pipeline'));
  expect(same).toMatchObject({
    same: true,
    text: expect.stringMatching(/^same bits: \d+ tensors at step 1, 2$/m),
  });
  const parts = await verify(of('options'), of('parts'));
  expect(parts.same).toBe(false);
  expect(parts.text).toMatch(/the runs differ in parts: 1 and 4/);
  expect(parts.text).toMatch(/step 1: \d+ of \d+ tensors differ/);
  expect(parts.text).toMatch(
    /conv\.weight: \d+ of \d+ values; first \[\d+\]: \S+ and \S+ \(\d+ ulps?\), at most/,
  );
});

test('verify runs the same steps under two placements and compares every tensor', async () => {
  const replayed = common.slice(0, -4); // without steps and seed
  const of = (name: string): string => join(dir, name, 'plan.json');
  const pipeline = await verify(of('pipeline'), of('options'), ...replayed);
  expect(pipeline).toMatchObject({
    same: true,
    text: expect.stringMatching(
      /same bits: \d{3,} tensors in 2 steps, \d{4,} with those of all leaves; and all state/,
    ),
  });
});
