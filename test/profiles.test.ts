/** BPNet and ChromBPNet on the command line: from fragments and peaks to profiles and counts. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hashState, loadCheckpoint } from '@cohesin/distributed';
import { openDataset } from '@cohesin/io';
import { numbers } from '@cohesin/io/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cohesin } from './cohesin.ts';
import { writeToy } from './toy-genome.ts';

const CHROMOSOMES = ['chrI', 'chrII', 'chrIII'];
const LAYERS = { filters: 3, dilated_layers: 1 }; // see 49 bp beyond a profile, 37 of them for controls

let dir: string;
const at = (name: string): string => join(dir, name);

async function succeed(args: readonly string[]): Promise<readonly string[]> {
  const { code, lines, errors } = await cohesin(args);
  expect(errors, lines.join('\n')).toBe('');
  expect(code).toBe(0);
  return lines;
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cohesin-profiles-'));
  writeToy(dir);
  const draw = numbers(5);
  const place = (room: number): [string, number] => [
    CHROMOSOMES[Math.floor(draw() * 3)]!,
    room + Math.floor(draw() * (3900 - 2 * room)),
  ];
  const fragments = (count: number): string =>
    Array.from({ length: count }, () => {
      const [chrom, start] = place(10);
      return `${chrom}\t${start}\t${start + 20 + Math.floor(draw() * 60)}\n`;
    }).join('');
  await writeFile(at('chip.bed'), fragments(4000));
  await writeFile(at('input.bed'), fragments(2000));
  const peaks = Array.from({ length: 40 }, () => place(200)).map(
    ([chrom, start]) => `${chrom}\t${start}\t${start + 40}\n`,
  );
  await writeFile(at('peaks.bed'), peaks.join(''));
  await writeFile(at('blacklist.bed'), 'chrI\t0\t1500\n');
  const strands = ['chip', 'input'].flatMap((name) => ['+', '-'].map((strand) => ({ name, strand })));
  const rows = strands.map(
    ({ name, strand }, i) =>
      `${i}\t${name}${strand}\t${name}.bed\tsum\t${strand}\t${i ^ 1}\t${name === 'input' ? 'control' : ''}\t${name}\n`,
  );
  await writeFile(
    at('targets.txt'),
    `\tidentifier\tfile\tsum_stat\tstrand\tstrand_pair\trole\tdescription\n${rows.join('')}`,
  );
}, 120_000);
afterAll(() => rm(dir, { recursive: true, force: true }));

const SPLITS = ['--peaks', 'peaks.bed', '--bin', '1', '--valid', 'chrII', '--test', 'chrIII'];
const prepare = (out: string, args: readonly string[]): Promise<readonly string[]> =>
  succeed(
    [
      'prepare',
      '--genome',
      'genome.fa',
      '--blacklist',
      'blacklist.bed',
      ...SPLITS,
      '--out',
      out,
      ...args,
    ].map((arg) => (/\.(bed|fa|txt)$/.test(arg) || arg === out ? at(arg) : arg)),
  );

async function evaluate(args: readonly string[]): Promise<Record<string, number>> {
  const [line] = await succeed(['evaluate', ...args, '--json']);
  const { loss, tracks, counts } = JSON.parse(line!) as {
    loss: number;
    tracks: { jsd: number }[];
    counts: { countPearson: number }[];
  };
  expect(tracks[0]!.jsd).toBeGreaterThan(0);
  expect(tracks[0]!.jsd).toBeLessThan(Math.LN2);
  return { loss, tracks: tracks.length, counts: counts.length };
}

test('BPNet reads control tracks and trains with the same bits on 1 and 2 devices and after a resume', async () => {
  // 120 bp and 8 bp of jitter to either side; targets and controls but for the outer 12 bp.
  const said = await prepare('chip', ['--targets', 'targets.txt', '--length', '136', '--crop', '12']);
  expect(said.join('\n')).toMatch(/of \d+ peaks touch the blacklist; they are left out/);
  await writeFile(
    at('lite.json'),
    JSON.stringify({ model: { name: 'bpnet-lite', seq_length: 120, ...LAYERS } }),
  );
  const common = ['train', '--model', at('lite.json'), '--data', at('chip'), '--batch', '4', '--seed', '2'];
  await succeed([...common, '--out', at('one'), '--steps', '4']);
  await succeed([...common, '--out', at('two'), '--steps', '2', '--devices', '2']);
  await succeed([...common, '--out', at('two'), '--steps', '4', '--resume', at('two')]);
  const [one, two] = [await loadCheckpoint(at('one')), await loadCheckpoint(at('two'))];
  expect(hashState(two.state)).toBe(hashState(one.state));
  expect(two.host).toEqual(one.host);
  expect(one.state.get('profile.weight')!.shape).toEqual([75, 3 + 2, 2]);
  expect(one.validations.best).toMatchObject({ value: expect.any(Number) });
  const found = await evaluate(['--checkpoint', at('one'), '--data', at('chip')]);
  expect(found).toEqual({ loss: expect.any(Number), tracks: 2, counts: 1 });
  expect(await evaluate(['--checkpoint', at('two'), '--data', at('chip'), '--devices', '2'])).toEqual(found);
}, 300_000);

test("the paper's BPNet has a task for two tracks", async () => {
  await prepare('whole', ['--targets', 'targets.txt', '--length', '64']);
  const model = { name: 'bpnet', seq_length: 64, ...LAYERS };
  await writeFile(at('bpnet.json'), JSON.stringify({ model }));
  const args = [
    '--model',
    at('bpnet.json'),
    '--data',
    at('whole'),
    '--out',
    at('bpnet'),
    '--batch',
    '4',
    '--steps',
    '2',
  ];
  await succeed(['train', ...args]);
  const { state, model: saved } = await loadCheckpoint(at('bpnet'));
  expect(state.get('heads.chip.profile.weight')!.shape).toEqual([25, 2, 3]);
  expect(saved.params).toMatchObject({ model: { tasks: ['chip'], controls: 2, count_weight: 5 } });
  expect(await evaluate(['--checkpoint', at('bpnet'), '--data', at('whole')])).toMatchObject({
    tracks: 2,
    counts: 2,
  });
}, 300_000);

test('ChromBPNet keeps the bias model that was trained on background, and predicts with and without it', async () => {
  const window = ['--tracks', 'chip.bed', '--statistic', 'sum', '--length', '120', '--crop', '49'];
  await prepare('peaks', window);
  await prepare('background', [...window, '--background', '2']);
  const { splits } = await openDataset(at('background'));
  expect(splits.train!.records).toBeGreaterThan(4);
  const size = { seq_length: 120, ...LAYERS };
  await writeFile(
    at('bias.json'),
    JSON.stringify({ model: { name: 'chrombpnet-bias', ...size, trimming: 49 } }),
  );
  await writeFile(at('full.json'), JSON.stringify({ model: { name: 'chrombpnet', ...size, bias: LAYERS } }));
  const few = ['--batch', '4', '--steps', '2'];
  await succeed([
    'train',
    '--model',
    at('bias.json'),
    '--data',
    at('background'),
    '--out',
    at('bias'),
    ...few,
  ]);
  const full = ['train', '--model', at('full.json'), '--data', at('peaks'), '--out', at('full'), ...few];
  const refused = await cohesin(full);
  expect(refused.errors).toMatch(/keeps a bias model that was trained before: give its checkpoint/);
  expect(refused.code).toBe(78);
  await succeed([...full, '--bias', at('bias'), '--negatives', at('background')]);
  const [bias, both] = [await loadCheckpoint(at('bias')), await loadCheckpoint(at('full'))];
  for (const name of ['first.weight', 'dilated.0.bias', 'counts.bias'])
    expect(both.state.get(`bias.${name}`)).toEqual(bias.state.get(name));
  const checkpoint = ['--checkpoint', at('full'), '--data', at('peaks')];
  const [withBias, without] = [await evaluate(checkpoint), await evaluate([...checkpoint, '--without-bias'])];
  expect(withBias.loss).not.toBe(without.loss);
}, 300_000);
