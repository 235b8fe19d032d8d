/** Damaged files of every format: an error that names the file, or the values; never a crash, a hang or a huge allocation. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Format, writeFormats } from './hostile/formats.ts';
import { reportTrials } from './hostile/report.ts';
import { FAULTS, Reader, type Trial, tryFormat } from './hostile/trial.ts';

/** Mutations of each format; the whole run is `HOSTILE=345`. */
const COUNT = Number(process.env.HOSTILE ?? 15);

let folder: string;
let formats: Format[];
const trials: Trial[] = [];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hostile-'));
  formats = await writeFormats(folder);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  if (process.env.HOSTILE !== undefined) reportTrials(trials);
});

it('damaged files end in a clear error or in the values they hold', { timeout: 7_200_000 }, async () => {
  await using reader = new Reader();
  const only = process.env.HOSTILE_ONLY;
  for (const format of formats.filter(({ name }) => only === undefined || new RegExp(only).test(name)))
    await tryFormat(reader, format, COUNT, (trial) => trials.push(trial));
  const faults = trials.filter(({ outcome }) => FAULTS.some((fault) => fault === outcome));
  expect(faults).toEqual([]);
});
