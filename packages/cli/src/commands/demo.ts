import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Dataset, openDataset } from '@cohesin/io';
import { type Command, type Options, UsageError } from '../command-line.ts';
import { type Findings, heldOut, motifsFound } from '../demo/findings.ts';
import { RECIPE } from '../demo/recipe.ts';
import { pearsonCurve } from '../demo/report.ts';
import { writeTracks } from '../demo/simulated.ts';
import { paramsFor } from '../demo/small-model.ts';
import { type Output, openOutput } from '../progress.ts';
import { type RunResult, runTraining } from '../run.ts';
import type { RunOptions } from '../run-options.ts';
import { usage } from '../task.ts';

export const demo: Command = {
  name: 'demo',
  about: 'train a small Basenji on a simulated genome, or on your data, on two devices',
  examples: ['cohesin demo', 'cohesin demo --data data/hg38 --steps 100'],
  options: {
    data: { value: 'DIR', about: 'a TFRecord data set instead of the simulated genome' },
    out: { value: 'DIR', about: 'a new folder for data, checkpoints and events (default runs/demo-N)' },
    devices: { value: 'N', about: 'devices to train on (default 2)' },
    'share-devices': { about: 'let several ranks use one GPU' },
    steps: { value: 'TOTAL', about: 'steps of the first run' },
  },
  run: async (options) => {
    const output = openOutput(false);
    const data = options.text('data');
    if (data === undefined) await simulated(options, output);
    else await onUserData(data, options, output);
  },
};

/** Steps of the second run, on one device. */
const REPEATED_STEPS = 20;

async function simulated(options: Options, output: Output): Promise<void> {
  const out = await outFolder(options);
  const data = join(out, 'data');
  const { genome, params, steps } = RECIPE;
  const counts = Object.entries(genome.sequences).map(([split, count]) => `${count} ${split}`);
  output.say(
    `1. A simulated genome with planted CTCF, GATA and REB1 motifs: ${counts.join(', ')} sequences of ${genome.lengthBp} bp → ${data}`,
  );
  await writeTracks(data, genome);
  const run = await firstRun(
    { data, out, params, steps: options.count('steps') ?? steps },
    options,
    output,
    async (training) => [...(await heldOut(training)), ...(await motifsFound(training))],
  );
  await secondRun(run, output);
}

async function onUserData(data: string, options: Options, output: Output): Promise<void> {
  const dataset: Dataset = await usage(() => openDataset(data));
  const params = await usage(async () => paramsFor(dataset));
  const out = await outFolder(options);
  output.say(
    `1. ${data}: ${dataset.sequenceLengthBp} bp, ${dataset.numTargets} tracks in bins of ${dataset.poolWidthBp} bp`,
  );
  const run = await firstRun({ data, out, params, steps: options.count('steps') }, options, output, heldOut);
  await secondRun(run, output);
}

interface First {
  readonly options: RunOptions;
  readonly result: RunResult;
}

interface Setting {
  readonly data: string;
  readonly out: string;
  readonly params: unknown;
  readonly steps: number | undefined;
}

async function firstRun(
  { data, out, params, steps }: Setting,
  given: Options,
  output: Output,
  findings: Findings,
): Promise<First> {
  const devices = given.count('devices') ?? 2;
  const model = join(out, 'params.json');
  await writeFile(model, JSON.stringify(params, undefined, 1));
  output.say(`\n2. Training a small Basenji-style network on ${devices} devices`);
  const options: RunOptions = {
    model,
    data,
    out,
    devices,
    shareDevices: given.flag('share-devices'),
    steps,
    epochs: undefined,
    batch: undefined,
    batchNorm: undefined,
    precision: undefined,
    kernelTable: undefined,
    parts: undefined,
    seed: undefined,
    checkpointEvery: undefined,
    patience: undefined,
    resume: undefined,
    from: undefined,
    freeze: undefined,
    rate: undefined,
    decodeThreads: undefined,
  };
  let found: readonly string[] = [];
  const result = await runTraining(options, output, {
    hashAt: [REPEATED_STEPS],
    atEnd: async (training) => {
      found = await findings(training);
    },
  });
  output.say(
    `\n3. What it learned\n${pearsonCurve(result.evaluations.map(({ value }) => value))}  on sequences it was not trained on`,
  );
  for (const line of found) output.say(line);
  return { options, result };
}

/** The same run again on one device. @throws when a bit differs. */
async function secondRun({ options, result }: First, output: Output): Promise<void> {
  const steps = Math.min(REPEATED_STEPS, result.steps);
  output.say(`\n4. The first ${steps} steps again, on one device`);
  const quiet: Output = { ...output, say: () => undefined };
  const again = await runTraining(
    { ...options, out: join(options.out, 'one-device'), devices: 1, steps },
    quiet,
    { hashAt: [steps] },
  );
  const [several, one] = [result.hashes.get(REPEATED_STEPS) ?? result.hash, again.hashes.get(steps)];
  output.say(`after step ${steps} on ${options.devices} devices: sha256 ${several}`);
  output.say(`after step ${steps} on 1 device:  sha256 ${one}`);
  if (several !== one)
    throw new Error('the two runs differ; please report this with the output of `cohesin devices`');
  output.say('equal: every weight, running statistic and moment has the same bits');
  output.say(
    `\n5. What it left\n${result.checkpoint}   (npx cohesin evaluate --checkpoint ${options.out} --data ${options.data} --split test)`,
  );
  output.say(`${join(options.out, 'events')}   (tensorboard --logdir ${options.out})`);
}

async function outFolder(options: Options): Promise<string> {
  const out = options.text('out') ?? (await freshFolder('runs'));
  await mkdir(out, { recursive: true });
  return out;
}

/** The first of runs/demo-1, runs/demo-2, … that does not exist. */
async function freshFolder(parent: string): Promise<string> {
  const taken = new Set(await readdir(parent).catch(() => []));
  for (let i = 1; i < 10_000; i++) if (!taken.has(`demo-${i}`)) return join(parent, `demo-${i}`);
  throw new UsageError(`${parent} holds 10,000 demos; delete some, or pass --out`);
}
