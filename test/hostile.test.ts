/** Damaged files of every format: an error that names the file, or the values; never a crash, a hang or a huge allocation. */
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Format, writeFormats } from './hostile/formats.ts';
import { reportTrials } from './hostile/report.ts';
import { FAULTS, Reader, type Trial, tryFormat } from './hostile/trial.ts';

/** Mutations of each format; the whole run is `HOSTILE=345`. */
const COUNT = Number(process.env.HOSTILE ?? 15);
/** Where trials are kept, a line each: a run goes on from the formats that are whole in it. */
const LOG = process.env.HOSTILE_LOG;
/** A pattern of names of formats, for a run in pieces. */
const ONLY = new RegExp(process.env.HOSTILE_ONLY ?? '');

let folder: string;
let formats: Format[];
let trials: Trial[];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hostile-'));
  formats = await writeFormats(folder);
  trials = LOG === undefined || !existsSync(LOG) ? [] : keptTrials(LOG);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  if (process.env.HOSTILE === undefined) return;
  const lacking = formats.filter(({ name }) => !isWhole(name));
  if (lacking.length === 0) reportTrials(trials);
});

function keptTrials(path: string): Trial[] {
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line) as Trial);
}

function isWhole(format: string): boolean {
  return trials.filter((trial) => trial.format === format).length === COUNT;
}

it('damaged files end in a clear error or in the values they hold', { timeout: 7_200_000 }, async () => {
  await using reader = new Reader();
  for (const format of formats.filter(({ name }) => ONLY.test(name) && !isWhole(name))) {
    const own: Trial[] = [];
    await tryFormat(reader, format, COUNT, (trial) => own.push(trial));
    trials.push(...own);
    if (LOG !== undefined) appendFileSync(LOG, own.map((trial) => `${JSON.stringify(trial)}\n`).join(''));
  }
  const faults = trials.filter(({ outcome }) => FAULTS.some((fault) => fault === outcome));
  expect(faults).toEqual([]);
});
