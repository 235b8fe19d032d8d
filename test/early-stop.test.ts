import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hashState, loadCheckpoint } from '@cohesin/distributed';
import { SMALL_BASENJI } from '@cohesin/models/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin, SMALL_DATA } from './cohesin.ts';
import { simulateData } from './simulated-data.ts';

let dir: string;
let data: string;
let common: readonly string[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-early-stop-'));
  // Leaves of two sequences: the five of validation leave a rest on 1, 2 and 3 devices.
  data = await simulateData(dir, { ...SMALL_DATA, sequences: { train: 20, valid: 5 } });
  const model = join(dir, 'params.json');
  const plateau = { factor: 0.25, patience: 0 };
  const train = {
    ...SMALL_BASENJI.train,
    batch_size: 10,
    patience: 2,
    train_epochs_min: 1,
    reduce_lr_on_plateau: plateau,
  };
  await writeFile(model, JSON.stringify({ ...SMALL_BASENJI, train }));
  common = ['train', '--model', model, '--data', data, '--epochs', '30', '--seed', '5', '--json'];
});
afterAll(async () => {
  await rm(dir, { recursive: true, force: true });
});

type Event = Readonly<Record<string, unknown>>;

/** What a run says about validation and its end, without the place of its files. */
function told(lines: readonly string[]): Event[] {
  return lines
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Event)
    .filter(({ event }) => ['validation', 'early stop', 'end'].includes(event as string))
    .map(({ path: _, checkpoint: __, ...event }) => event);
}

async function succeed(args: readonly string[]): Promise<readonly string[]> {
  const { code, lines, errors } = await cohesin(args);
  expect(errors, lines.join('\n')).toBe('');
  expect(code).toBe(0);
  return lines;
}

test('training slows down and stops at the same steps on any number of devices, and after a kill, and keeps the best', async () => {
  const out = (devices: number): string => join(dir, `on-${devices}`);
  const run = (devices: number): string[] => [...common, '--out', out(devices), '--devices', `${devices}`];
  const one = told(await succeed(run(1)));
  const [, second, , fourth, end] = one;
  const best = { step: 4, value: second!.value as number };
  expect(one.map(({ event, step, unimproved, rateFactor }) => [event, step, unimproved, rateFactor])).toEqual(
    [
      ['validation', 2, 0, undefined],
      ['validation', 4, 0, undefined],
      ['validation', 6, 1, 0.25],
      ['validation', 8, 2, 0.0625],
      ['early stop', 8, 2, undefined],
      ['end', undefined, undefined, undefined],
    ],
  );
  expect(fourth).toMatchObject({ best });
  expect(end).toMatchObject({ best });
  expect(told(await succeed(run(2)))).toEqual(one);

  const killed = await cohesin(run(3), 7);
  expect(killed.code).not.toBe(0);
  expect(told(await succeed([...run(3), '--resume', out(3)]))).toEqual(one.slice(3)); // from the checkpoint of step 6

  const evaluation = [
    'evaluate',
    '--checkpoint',
    join(out(1), 'best'),
    '--data',
    data,
    '--split',
    'valid',
    '--json',
  ];
  const genes = join(dir, 'genes.bed'); // the first is in no sequence of the split, the second in two
  const starts = [0, 22_300, 24_064, 25_088];
  await writeFile(genes, starts.map((start, i) => `chr1\t${start}\t${start + 430}\tgene${i}\n`).join(''));
  expect(JSON.parse((await succeed([...evaluation, '--genes', genes]))[0]!)).toMatchObject({
    mean: best.value,
    genes: { genes: 3, tracks: Array.from({ length: 5 }, (_, track) => ({ track })) },
  });
  await writeFile(genes, 'chr1\t0\t9\tone\t0\t+\nchr1\t0\t9\tone\t0\t-\n');
  const refused = await cohesin([...evaluation, '--genes', genes]);
  expect([refused.code, refused.errors]).toEqual([
    78,
    expect.stringContaining('line 2: one is on chr1 - here and on chr1 + before'),
  ]);
  const kept = await Promise.all([1, 2, 3].map((devices) => loadCheckpoint(join(out(devices), 'best'))));
  expect(kept.map(({ host }) => host.step)).toEqual([4, 4, 4]);
  expect(new Set(kept.map(({ state }) => hashState(state)))).toHaveProperty('size', 1);
}, 300_000);
