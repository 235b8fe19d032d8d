import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readRecords } from '@cohesin/io';
import { loadWeights, modelFromParams, saveWeights } from '@cohesin/models';
import { SMALL_BASENJI } from '@cohesin/models/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin, SMALL_DATA } from './cohesin.ts';
import { simulateData } from './simulated-data.ts';

let dir: string;
let data: string;
let model: string;
let out: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-cli-'));
  data = await simulateData(dir, { ...SMALL_DATA, sequences: { train: 16, valid: 3, test: 5 } });
  model = join(dir, 'params.json');
  out = join(dir, 'run');
  await writeFile(model, JSON.stringify(SMALL_BASENJI));
  const { errors } = await cohesin([
    'train',
    '--model',
    model,
    '--data',
    data,
    '--out',
    out,
    '--epochs',
    '2',
    '--devices',
    '2',
  ]);
  expect(errors).toBe('');
});
afterAll(async () => {
  await rm(dir, { recursive: true, force: true });
});

test('evaluation gives the same numbers on any number of devices, from a checkpoint or a weights file', async () => {
  const evaluate = async (args: readonly string[]): Promise<unknown> => {
    const { lines, errors } = await cohesin([
      'evaluate',
      ...args,
      '--data',
      data,
      '--split',
      'test',
      '--json',
    ]);
    expect(errors).toBe('');
    const { model: _name, ...numbers } = JSON.parse(lines.at(-1)!) as Record<string, unknown>;
    return numbers;
  };
  const one = await evaluate(['--checkpoint', out]);
  expect(one).toMatchObject({ split: 'test', sequences: 5, metric: 'pearson', over: 'positions' });
  expect(one).toMatchObject({ means: { pearson: (one as { mean: number }).mean, r2: expect.any(Number) } });
  expect((one as { tracks: unknown[] }).tracks).toHaveLength(5);
  expect(await evaluate(['--checkpoint', out, '--devices', '2'])).toEqual(one);
  expect(await evaluate(['--checkpoint', out, '--devices', '3'])).toEqual(one);
  const ensemble = ['--checkpoint', out, '--rc', '--shifts', '1,0,-1'];
  const averaged = await evaluate(ensemble);
  expect(averaged).not.toEqual(one);
  expect(await evaluate([...ensemble, '--devices', '2', '--spearman'])).toMatchObject({
    mean: (averaged as { mean: number }).mean,
    means: { spearman: expect.any(Number) },
  });
  const stated = join(dir, 'ensemble.json');
  const both = { ...SMALL_BASENJI.model, ensemble_rc: true, ensemble_shifts: [1, 0, -1] };
  await writeFile(stated, JSON.stringify({ ...SMALL_BASENJI, model: both }));
  const weights = join(out, 'checkpoints', 'step-00000004', 'state.safetensors');
  const fromFile = ['--model', stated, '--weights', weights];
  expect(await evaluate(fromFile)).toEqual(averaged);
  expect(await evaluate([...fromFile, '--no-rc', '--shifts', '0'])).toEqual(one);
  const [step] = await readdir(join(out, 'checkpoints'));
  expect(step).toBe('step-00000002');
  const newest = join(out, 'checkpoints', 'step-00000004', 'state.safetensors');
  expect(await evaluate(['--model', model, '--weights', newest])).toEqual(one);
  const built = modelFromParams(SMALL_BASENJI);
  const keras = join(dir, 'model.h5');
  await saveWeights(built, keras, { format: 'keras', weights: await loadWeights(built, newest) });
  expect(await evaluate(['--model', model, '--weights', keras])).toEqual(one);
});

test('weights that do not fit are refused with every name', async () => {
  const other = join(dir, 'wider.json');
  await writeFile(other, JSON.stringify(SMALL_BASENJI).replace('"filters":12', '"filters":13'));
  const weights = join(out, 'checkpoints', 'step-00000004', 'state.safetensors');
  const { code, errors } = await cohesin([
    'evaluate',
    '--model',
    other,
    '--weights',
    weights,
    '--data',
    data,
  ]);
  expect(errors).toMatch(
    /state\.safetensors: weights do not fit the model, and none was loaded:\n {2}.*conv\.weight is \[1, 10, 12\] but the model has \[1, 10, 13\]/s,
  );
  expect(code).toBe(78);
});

test('a run leaves TensorBoard events that read back', async () => {
  const [file] = await readdir(join(out, 'events'));
  let records = 0;
  for await (const _ of readRecords(join(out, 'events', file!), { compression: 'none' })) records++;
  expect(records).toBe(1 + 2 * 4 + 2); // version, loss and rate of 4 steps, 2 validations
});

test('a loss that is not finite ends the run with exit code 70 and names tensor and sequence', async () => {
  const wild = join(dir, 'wild.json');
  await writeFile(
    wild,
    JSON.stringify(SMALL_BASENJI).replace('"learning_rate":0.05', '"learning_rate":1e30'),
  );
  const { code, errors } = await cohesin([
    'train',
    '--model',
    wild,
    '--data',
    data,
    '--out',
    join(dir, 'wild'),
    '--steps',
    '9',
  ]);
  expect(errors).toMatch(
    /step \d: .* is the first tensor that is not finite \(sequence \d+, leaf \d\).*Nothing was updated/,
  );
  expect(code).toBe(70);
});

test('a run keeps its kernel table, and is resumed with no other', async () => {
  const tabled = join(dir, 'tabled');
  const train = (folder: string, ...args: readonly string[]): ReturnType<typeof cohesin> =>
    cohesin(['train', '--model', model, '--data', data, '--out', folder, ...args]);
  const written = async (name: string, tile: string): Promise<string> => {
    const families = ['software conv1d 4>8 m1024+', 'gpu conv1d 4>8 m1024'];
    const tiles = Object.fromEntries(families.map((family) => [`${family} b1 15 taps`, tile]));
    await writeFile(join(dir, name), JSON.stringify({ format: 'cohesin kernel table 1', tiles }));
    return join(dir, name);
  };
  const unknown = await train(tabled, '--kernel-table', await written('unknown.json', '99x1 rows'));
  expect(unknown.errors).toMatch(/the kernel table gives '.*conv1d 4>8 .*' the tile '99x1 rows'/);
  expect(unknown.code).toBe(78);
  const other = await train(
    out,
    '--resume',
    out,
    '--kernel-table',
    await written('other.json', '1x1 columns'),
  );
  expect(other.errors).toMatch(/--kernel-table is .* but the run was started with the shipped table/);
  expect(other.code).toBe(78);
  const table = join(dir, 'table.json');
  const tuned = await cohesin(['tune', '--model', model, '--out', table, '--cache', join(dir, 'tune.json')]);
  expect(tuned.lines.at(-1)).toMatch(/0 of 0 classes/); // all products of this model are left to the estimate
  const first = await train(tabled, '--kernel-table', table, '--steps', '1');
  expect(first.lines.join('\n')).toContain('kernel table 44136fa355b3'); // of an empty one
  const resumed = await train(tabled, '--resume', tabled, '--steps', '2'); // refused if its kernels were others
  expect(resumed.errors).toBe('');
  expect(resumed.lines.join('\n')).toContain('kernel table 44136fa355b3');
});

test('help teaches: every command lists its options and complete examples', async () => {
  for (const command of ['train', 'tune', 'evaluate', 'devices', 'demo']) {
    const { code, lines } = await cohesin([command, '--help']);
    expect(code).toBe(0);
    expect(lines.join('\n')).toMatch(new RegExp(`Options:[\\s\\S]*Examples:\\n {2}cohesin ${command}`));
  }
  const { code, errors } = await cohesin(['trian']);
  expect(errors).toMatch(/no command 'trian'[\s\S]*train/);
  expect(code).toBe(78);
});

test('devices says what there is', async () => {
  const { lines } = await cohesin(['devices', '--json']);
  expect(JSON.parse(lines[0]!)).toMatchObject({
    description: expect.any(String),
    software: expect.any(Boolean),
  });
});
