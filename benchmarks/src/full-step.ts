/** Whole training steps of published models at full size: on one device and two, sequences whole and in parts. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { FullStep } from './full-step-run.ts';
import { commit, environment, publish, ROOT, table } from './report.ts';

const RUN = fileURLToPath(new URL('full-step-run.js', import.meta.url));
const CACHE = `${ROOT}node_modules/.cache/full-step`;

interface Run {
  readonly devices: number;
  readonly parts: number;
  /** Whether devices share moments and update. */
  readonly sharded?: boolean;
}

const RUNS: Readonly<Record<string, readonly Run[]>> = {
  akita: [
    { devices: 1, parts: 16 },
    { devices: 2, parts: 16 },
    { devices: 1, parts: 1 },
  ],
  enformer: [
    { devices: 1, parts: 24 },
    { devices: 2, parts: 24, sharded: true },
  ],
};

const ABOUT: Readonly<Record<string, string>> = {
  akita: '1,048,576 bp as published, mean squared error, SGD with momentum.',
  enformer:
    '196,608 bp as published with both heads, all 251,221,292 parameters: Poisson loss, dropout, Adam, gradients clipped to a global norm of 0.2.',
};

/** Each run takes minutes to hours and is kept, so that the benchmark goes on, on the same commit, where it was interrupted. */
export async function fullStep(model: string): Promise<void> {
  const results = RUNS[model]!.map((run) => ({ ...run, ...kept(model, run) }));
  const [first] = results;
  const rows = results.map(({ devices, parts, sharded, seconds, cpuSeconds, windows, loss, ...run }) => [
    `${devices} device${devices > 1 ? 's' : ''}, ${parts > 1 ? `${parts} parts` : 'whole'}${sharded ? ', optimizer sharded' : ''}`,
    seconds.toFixed(0),
    cpuSeconds.toFixed(0),
    (run.plannedBytes / 1e9).toFixed(2),
    (run.grownBytes / 1e9).toFixed(2),
    (run.grownBytes / run.plannedBytes).toFixed(3),
    (run.residentBytes / 1e9).toFixed(2),
    `${windows}`,
    `${loss}`,
    run.sha256.slice(0, 16),
  ]);
  const head = ['', 'step s', 'CPU s', 'planned GB', 'grown GB', 'grown / planned', 'process GB'];
  const others = results.slice(1).map(({ parts, loss, sha256, devices }) => {
    const what = `${devices} and 1 device, ${parts > 1 ? `${parts} parts` : 'whole against parts'}`;
    return sha256 === first!.sha256
      ? `- ${what}: every bit of weights, moments and statistics is the same.`
      : `- ${what}: losses differ by ${Math.abs(loss / first!.loss - 1).toExponential(1)} of the loss.`;
  });
  publish({
    name: `${model}-step`,
    title: `A whole training step of ${model[0]!.toUpperCase()}${model.slice(1)} at full size`,
    environment: environment(first!.device),
    text: [
      ABOUT[model]!,
      'One sequence, forward, backward and update, f32, on software devices; the time is of the step alone. "Planned" is what the memory plan says for all devices, and on the host for inputs, outputs and exchanges; "grown" is how far the resident process grew over its size with kernels compiled and nothing run (weights and moments, which are written before, count as grown); "process" is the most it took in all.',
      table([...head, 'windows', 'loss', 'sha256 of the state'], rows),
      others.join('\n'),
    ].join('\n\n'),
    data: results,
  });
}

function kept(model: string, { devices, parts, sharded }: Run): FullStep {
  const args = [model, `${devices}`, `${parts}`, ...(sharded ? ['sharded'] : [])];
  const size = process.env.FULL_STEP_BP ?? 'full';
  const file = `${CACHE}/${[...args, size, commit()].join('-')}.json`;
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as FullStep;
  console.log(`${model}: ${devices} device(s), ${parts} part(s)`);
  const { stdout, status } = spawnSync(process.execPath, [RUN, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${model} on ${devices} device(s) ended with ${status}`);
  const line = stdout.trim().split('\n').at(-1)!;
  mkdirSync(CACHE, { recursive: true });
  writeFileSync(file, line);
  return JSON.parse(line) as FullStep;
}
