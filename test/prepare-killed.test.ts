/** A data set appears whole or not at all, whenever `prepare` is killed. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { inspect, PREPARE_DEFAULTS, planPrepare, runPrepare } from '@cohesin/io';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cohesin } from './cohesin.ts';
import { writeToy } from './toy-genome.ts';

const CLI = fileURLToPath(new URL('../packages/cli/bin/cohesin.js', import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'killed-'));
  writeToy(folder);
});
afterAll(() => rm(folder, { recursive: true }));

const args = (out: string): string[] => [
  ...['prepare', '--genome', join(folder, 'genome.fa'), '--tracks', join(folder, 'a.bw'), '--out', out],
  ...['--length', '300', '--bin', '4', '--stride', '8', '--valid', 'chrII', '--test', 'chrIII'],
  ...['--per-file', '100', '--threads', '0', '--json'],
];

/** The same, in this process. */
async function prepared(out: string): Promise<void> {
  const plan = await planPrepare({
    ...PREPARE_DEFAULTS,
    genome: join(folder, 'genome.fa'),
    tracks: [
      { file: join(folder, 'a.bw'), identifier: 'a', description: 'a.bw', statistic: 'mean', scale: 1 },
    ],
    split: { kind: 'chromosomes', valid: ['chrII'], test: ['chrIII'] },
    ...{ sequenceLengthBp: 300, poolWidthBp: 4, strideTrainBp: 8, strideTestBp: 300, recordsPerShard: 100 },
  });
  await runPrepare(out, plan).finally(() => plan.close());
}

/** Kills `prepare` as soon as `file` is in its folder aside; false when it ended before. */
async function killAt(out: string, file: string): Promise<boolean> {
  const before = leftovers();
  const child = spawn(process.execPath, [CLI, ...args(out)], { stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  while (child.exitCode === null) {
    const own = leftovers().filter((name) => !before.includes(name));
    const aside = own.find((name) => existsSync(join(folder, name, file)));
    if (aside) child.kill('SIGKILL');
    if (aside) break;
    await wait(1);
  }
  await ended;
  return child.signalCode === 'SIGKILL';
}

const leftovers = (): string[] => readdirSync(folder).filter((name) => name.endsWith('.partial'));

it('a killed prepare leaves no data set; the next one starts over, says so, and writes the same', async () => {
  const out = join(folder, 'data');
  let killed = 0;
  for (const file of ['tfrecords/train-0.tfr', 'tfrecords/train-3.tfr', 'sequences.bed']) {
    if (await killAt(out, file)) killed++;
    if (existsSync(out)) {
      const found = await inspect(out); // it was whole before the signal came
      expect([found.problems, found.warnings]).toEqual([[], []]);
      await rm(out, { recursive: true });
    } else expect(leftovers().length).toBeGreaterThan(0);
  }
  expect(killed).toBeGreaterThanOrEqual(2);
  const left = leftovers().map((name) => join(folder, name));
  const other = join(folder, `data.${hostname()}-${process.pid}.${'0'.repeat(36)}.partial`);
  await mkdir(other);
  const { code, lines, errors } = await cohesin(args(out));
  expect([code, errors]).toEqual([0, '']);
  const notes = lines.map((line) => JSON.parse(line)).filter(({ event }) => event === 'note');
  expect(notes.map(({ text }) => text).sort()).toEqual(
    [
      ...left.map(
        (path) => `an earlier run ended before its data set was whole; starts over, and removed ${path}`,
      ),
      `${other} may be written by another run; delete it if that is no more`,
    ].sort(),
  );
  expect(leftovers()).toEqual([other.slice(folder.length + 1)]);
  const undisturbed = join(folder, 'undisturbed');
  await prepared(undisturbed);
  for (const file of ['sequences.bed', 'statistics.json', 'tfrecords/train-7.tfr', 'tfrecords/test-0.tfr'])
    expect(await readFile(join(out, file))).toEqual(await readFile(join(undisturbed, file)));
  await expect(prepared(out)).rejects.toThrow('holds a data set, which is whole; delete it');
}, 60_000);
