/**
 * A data set's folder without records: `direct.json` says what they are made of, and they are read from the genome and its tracks
 * when they are asked for. The tables beside it are those of a written data set.
 */
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { explain, replacePath } from '@cohesin/core';
import { openGenome } from '../genome.ts';
import type { Dataset } from '../shard-set.ts';
import { readStatistics } from '../statistics.ts';
import { readTargets } from '../targets-table.ts';
import { bedRow, checkVacant, writeTables } from '../write-dataset.ts';
import { type DirectOptions, type IntervalDataset, openIntervals } from './direct.ts';
import type { PrepareOptions } from './options.ts';
import { type PreparePlan, planPrepare } from './plan.ts';
import { tableRow } from './prepare.ts';
import { describeFile, describeInputs, type InputFile } from './provenance.ts';

const DESCRIPTION = 'direct.json';

interface Input extends InputFile {
  /** As of its last change; where it is still so, the bytes are not hashed again. */
  readonly modifiedMs: number;
}

interface Description {
  /** With absolute paths. */
  readonly options: PrepareOptions;
  readonly inputs: readonly Input[];
}

/** Whether there is a data set without records in `dir`. */
export async function isDescribed(dir: string): Promise<boolean> {
  return await stat(join(dir, DESCRIPTION)).then(
    (found) => found.isFile(),
    () => false,
  );
}

/**
 * Makes the new folder `dir` for the data set of a plan, without its records. Returns the records per split.
 *
 * @throws when `dir` is not empty, or the plan is one whose records cannot be read one by one
 */
export async function describeDataset(
  dir: string,
  plan: PreparePlan,
): Promise<Readonly<Record<string, number>>> {
  checkDirect(plan.options);
  await checkVacant(dir);
  const options = withAbsolutePaths(plan.options);
  const inputs: Input[] = [];
  for (const input of await describeInputs(options))
    inputs.push({ ...input, modifiedMs: (await stat(input.path)).mtimeMs });
  const records = Object.fromEntries(plan.sequences.splits.map(({ split, count }) => [split, count]));
  const { sequenceLengthBp, poolWidthBp, cropBp, tracks, contacts } = options;
  const targets = tracks.map((track) => tableRow(track, options));
  const sizes = {
    ...{ sequenceLengthBp, targetLength: plan.targetLength, poolWidthBp, cropBp },
    ...(contacts && { diagonalOffset: contacts.diagonalOffset }),
  };
  await replacePath(dir, async (aside) => {
    await mkdir(aside, { recursive: true });
    await writeTables(aside, { ...sizes, targets }, records);
    await writeFile(join(aside, 'sequences.bed'), bedOf(plan), { flush: true });
    const description: Description = { options, inputs };
    await writeFile(join(aside, DESCRIPTION), `${JSON.stringify(description, undefined, 2)}\n`, {
      flush: true,
    });
  });
  return records;
}

/**
 * The data set that `dir` describes, every input checked as `prepare` checks it. The order of its records and their bits are those
 * of the data set that `prepare` would write.
 *
 * @throws when an input is not what it was, or the places of sequences are others
 */
export async function openDescribed(
  dir: string,
  { cacheBytes, workers = 0 }: { readonly cacheBytes: number; readonly workers?: number },
): Promise<Dataset> {
  if (workers > 0)
    throw new Error(
      `${dir} holds no records: genome and tracks are read by this thread; ask for 0 threads that decode, or prepare records`,
    );
  const { options, inputs } = await readDescription(dir);
  for (const input of inputs) await checkUnchanged(input, dir);
  const plan = await planPrepare(options).catch((cause: Error) => {
    throw new Error(`${dir}: its records cannot be read: ${cause.message}`, { cause });
  });
  // The ends of fragments without an index were read for the plan, and stay as long as the data set is in use.
  if (plan.fragments.size === 0) await plan.close();
  await checkPlaces(dir, plan);
  const { records, ...sizes } = await readStatistics(dir);
  const targets = await readTargets(dir, sizes.numTargets);
  const recordBytes = sizes.sequenceLengthBp + 2 * sizes.targetLength * sizes.numTargets;
  const fits = plan.sequences.length * recordBytes <= cacheBytes;
  const opened = opener(plan, fits ? { kept: new Map() } : {});
  const known = (split: string): string => {
    if (Object.hasOwn(records, split)) return split;
    throw new Error(`no split ${split}; this data set has ${Object.keys(records).join(', ')}`);
  };
  const splits = Object.entries(records).map(([name, count]) => [name, { files: [], records: count }]);
  return {
    ...{ dir, ...sizes, targets, splits: Object.fromEntries(splits) },
    count: async (split) => records[known(split)]!,
    stream: (name, given) => {
      const split = known(name);
      return opened((set) => set.stream(split, given));
    },
    batches: (name, given) => {
      const split = known(name);
      return opened((set) => set.batches(split, given));
    },
  };
}

/** Plays what is asked of a plan, with its files open meanwhile. */
function opener(plan: PreparePlan, direct: DirectOptions) {
  return async function* <Item>(
    play: (set: IntervalDataset) => AsyncGenerator<Item, void, undefined>,
  ): AsyncGenerator<Item, void, undefined> {
    const genome = await openGenome(plan.options.genome);
    const set = await openIntervals({ ...plan, genome, close: () => genome.close() }, direct);
    try {
      yield* play(set);
    } finally {
      await set.close();
    }
  };
}

/** @throws when records depend on more than one sequence, or hold what only files can */
function checkDirect({ extremeQuantile, storeUnmappable }: PrepareOptions): void {
  const wrong = [
    extremeQuantile !== undefined && 'extremeQuantile, which needs all targets of a track',
    storeUnmappable && 'storeUnmappable, a feature of written records',
  ].filter((fault) => typeof fault === 'string');
  if (wrong.length > 0)
    throw new Error(
      `records have to be written for ${wrong.join(', and for ')}; prepare them, or leave it out`,
    );
}

function withAbsolutePaths(options: PrepareOptions): PrepareOptions {
  const { split, tracks } = options;
  const named = ['genome', 'gaps', 'limit', 'blacklist', 'unmappable', 'peaks'] as const;
  const paths = named.flatMap((name) =>
    options[name] === undefined ? [] : [[name, resolve(options[name])]],
  );
  return {
    ...options,
    ...Object.fromEntries(paths),
    tracks: tracks.map((track) => ({ ...track, file: resolve(track.file) })),
    split: split.kind === 'sequences' ? { ...split, path: resolve(split.path) } : split,
  };
}

async function readDescription(dir: string): Promise<Description> {
  const path = join(dir, DESCRIPTION);
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw explain(path, cause);
  });
  try {
    const { options, inputs } = JSON.parse(text) as Partial<Description>;
    if (options && Array.isArray(options.tracks) && Array.isArray(inputs)) return { options, inputs };
  } catch {} // told below
  throw new Error(`${path}: does not say what the records are made of; make the data set again`);
}

async function checkUnchanged({ path, bytes, sha256, modifiedMs }: Input, dir: string): Promise<void> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new Error(
      `${dir}: its records are read from ${path}, which is not there any more; make the data set again`,
      { cause },
    );
  });
  if (found.size === bytes && (found.mtimeMs === modifiedMs || (await describeFile(path)).sha256 === sha256))
    return;
  throw new Error(
    `${dir}: its records are read from ${path}, which has changed (${bytes} bytes, SHA-256 ${sha256.slice(0, 12)} then; ${found.size} bytes now): bring it back, or make the data set again`,
  );
}

async function checkPlaces(dir: string, plan: PreparePlan): Promise<void> {
  const path = join(dir, 'sequences.bed');
  if ((await readFile(path, 'utf8')) === bedOf(plan)) return;
  throw new Error(`${path}: other sequences than its inputs give now; make the data set again`);
}

function bedOf({ sequences }: PreparePlan): string {
  return [...sequences].map(bedRow).join('');
}
