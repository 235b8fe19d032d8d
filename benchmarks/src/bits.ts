/** The same bits for every mix of data, sequence and pipeline parallelism: small models, each trained in every placement. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StagesOptions } from '@cohesin/distributed';
import { SMALL_MODELS, type SmallModel } from './bits-models.ts';
import type { Cell, Layout, Trained } from './bits-run.ts';
import { commit, environment, publish, ROOT, table } from './report.ts';

const RUN = fileURLToPath(new URL('bits-run.js', import.meta.url));
const CACHE = `${ROOT}node_modules/.cache/bits`;
const STEPS = 20;
const SAVE_AT = 8;
const KILL_AT = 12;
const WHOLE = { batch: 8, parts: 1 };
const PARTS = { batch: 4, parts: 8 };

/** A placement, or two: the run is killed in the first, and goes on in the second from what it saved. */
interface Placement {
  readonly name: string;
  readonly layouts: readonly [Layout] | readonly [killed: Layout, resumed: Layout];
}

interface Result extends Trained {
  readonly model: string;
  readonly cut: string;
  readonly placement: string;
  readonly equal: boolean;
}

/**
 * Cells take seconds each and are kept, so that the benchmark goes on, on the same commit, where it was interrupted; what
 * it has by then is published.
 */
export async function bits(): Promise<void> {
  let isStopped = false;
  process.once('SIGINT', () => {
    isStopped = true;
  });
  let missing = 0;
  const results: Result[] = [];
  for (const model of SMALL_MODELS) {
    for (const [cut, size, placements] of [
      [`${WHOLE.batch} whole sequences`, WHOLE, wholePlacements(model)],
      [`${PARTS.batch} sequences in ${PARTS.parts} parts`, PARTS, partPlacements(model)],
    ] as const) {
      let first: Trained | undefined;
      for (const { name, layouts } of placements) {
        const cells = layouts.map((layout) => ({ ...layout, ...size, model: model.name, steps: STEPS }));
        const trained =
          keptResult(cells) ??
          (isStopped
            ? undefined
            : await trainAndKeep(cells).catch((error: unknown) => {
                if (isStopped) return undefined;
                throw error;
              }));
        if (trained === undefined) {
          missing++;
          continue;
        }
        first ??= trained;
        const equal = trained.sha256 === first.sha256;
        console.error(
          `${model.name}, ${cut}, ${name}: ${trained.sha256.slice(0, 16)} ${equal ? 'equal' : 'DIFFERS'}`,
        );
        results.push({ ...trained, model: model.name, cut, placement: name, equal });
      }
    }
  }
  const differing = results.filter(({ equal }) => !equal);
  publish({
    name: 'bits',
    title: 'The same bits in every placement',
    environment: environment(results[0]!.device),
    text: [pageIntro(results.length, differing.length, missing), ...tables(results)].join('\n\n'),
    data: results.map(({ device, ...result }) => result),
  });
  if (differing.length + missing > 0) process.exitCode = 1;
}

const pageIntro = (cells: number, differing: number, missing: number): string =>
  `\`npm run bench -- --only bits\`. Small models with every kind of layer, crop, dropout, reverse complement and shift, gradients
clipped by their global norm, Adam; ${STEPS} steps. Of weights, running statistics, moments and host counters one SHA-256, to be equal
down each table: ${differing === 0 ? `all ${cells} runs are equal to their table's first` : `${differing} of ${cells} runs DIFFER from their table's first`}${missing === 0 ? '' : `, ${missing} more have not been run`}. The two tables of a model differ from each other by design: how a batch is cut into
leaves is part of the logical plan. A rank is a thread with a device of its own; all are the software driver.`;

function tables(results: readonly Result[]): string[] {
  const groups = [...new Set(results.map(({ model, cut }) => `${model}, ${cut}`))];
  return groups.map((group) => {
    const own = results.filter(({ model, cut }) => `${model}, ${cut}` === group);
    const rows = own.map(({ placement, sha256, equal, loss }) => [
      placement,
      `\`${sha256.slice(0, 32)}\``,
      `${loss}`,
      equal ? 'equal' : 'DIFFERS',
    ]);
    return `## ${group}\n\n${table(['placement', 'SHA-256, first half', 'last loss', 'verdict'], rows)}`;
  });
}

function placement(name: string, ...layouts: Placement['layouts']): Placement {
  return { name, layouts };
}

function staged(
  name: string,
  pipeline: StagesOptions,
  rest: Omit<Layout, 'devices' | 'pipeline'> = {},
): Placement {
  const { devices = pipeline.stages.map(() => 1) } = pipeline;
  return placement(name, onStages({ ...pipeline, devices }, rest));
}

function onStages(pipeline: StagesOptions, rest: Omit<Layout, 'devices' | 'pipeline'> = {}): Layout {
  return { devices: pipeline.devices!.reduce((total, count) => total + count, 0), pipeline, ...rest };
}

const SCHEDULES = ['gpipe', '1f1b', 'zero-bubble'] as const;
const RECOMPUTE = { recompute: ['*'] };
const SHARDED = { shardOptimizer: true };

/** Leaves of whole sequences. */
function wholePlacements({ two, three }: SmallModel): Placement[] {
  return [
    ...[1, 2, 3, 4, 8].map((devices) => placement(ranks(devices), { devices })),
    placement('3 devices, recompute', { devices: 3, ...RECOMPUTE }),
    placement('3 devices, optimizer sharded', { devices: 3, ...SHARDED }),
    staged('stages 1 + 1, gpipe', { stages: two, schedule: 'gpipe' }),
    staged('stages 1 + 1 + 1, 1f1b, recompute', { stages: three, schedule: '1f1b' }, RECOMPUTE),
    staged('stages 3 + 1, zero-bubble', { stages: two, devices: [3, 1], schedule: 'zero-bubble' }),
    staged('stages 2 + 2, optimizer sharded', { stages: two, devices: [2, 2] }, SHARDED),
    placement(
      'killed on 2 devices, optimizer sharded, resumed in stages 2 + 1',
      { devices: 2, ...SHARDED },
      onStages({ stages: two, devices: [2, 1] }),
    ),
  ];
}

/** Leaves that are parts of sequences. */
function partPlacements({ two, three }: SmallModel): Placement[] {
  return [
    ...[1, 2, 3, 4, 8].map((devices) => placement(ranks(devices), { devices, replicas: 1 })),
    ...[
      [2, 2],
      [8, 3],
    ].map(([devices, replicas]) =>
      placement(`${devices} devices, ${replicas} replicas`, { devices: devices!, replicas: replicas! }),
    ),
    placement('4 devices, 2 replicas, recompute', { devices: 4, replicas: 2, ...RECOMPUTE }),
    placement('2 devices, 4 side by side', { devices: 2, replicas: 1, sequencesOnDevice: 4 }),
    placement('6 devices, 3 replicas, 2 side by side, optimizer sharded', {
      devices: 6,
      replicas: 3,
      sequencesOnDevice: 2,
      ...SHARDED,
    }),
    staged(
      'stages 2 + 1, zero-bubble, recompute',
      { stages: two, devices: [2, 1], schedule: 'zero-bubble' },
      RECOMPUTE,
    ),
    staged(
      'stages 3 + 1, 2 replicas, 1f1b, 1 ahead, optimizer sharded',
      { stages: two, devices: [3, 1], ahead: 1 },
      { replicas: 2, ...SHARDED },
    ),
    staged(
      'stages 4 + 4, 2 replicas, zero-bubble',
      { stages: two, devices: [4, 4], schedule: 'zero-bubble' },
      { replicas: 2 },
    ),
    ...SCHEDULES.map((schedule) =>
      staged(`stages 4 + 2 + 2, ${schedule}`, { stages: three, devices: [4, 2, 2], schedule }),
    ),
    placement(
      'killed on 4 devices, 2 replicas, resumed in stages 2 + 1',
      { devices: 4, replicas: 2 },
      onStages({ stages: two, devices: [2, 1] }),
    ),
    placement(
      'killed in stages 1 + 2 + 1, resumed on 3 devices',
      onStages({ stages: three, devices: [1, 2, 1], schedule: 'zero-bubble' }),
      { devices: 3 },
    ),
  ];
}

const ranks = (devices: number): string => `${devices} ${devices === 1 ? 'device' : 'devices'}`;

/** Where the result of a cell, or of a killed and a resumed one, is kept: for this commit. */
function fileOf(cells: readonly Cell[]): string {
  const key = createHash('sha256')
    .update(JSON.stringify([commit(), cells]))
    .digest('hex');
  return join(CACHE, `${key.slice(0, 32)}.json`);
}

function keptResult(cells: readonly Cell[]): Trained | undefined {
  const file = fileOf(cells);
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Trained) : undefined;
}

async function trainAndKeep(cells: readonly Cell[]): Promise<Trained> {
  const trained = await train(cells);
  mkdirSync(CACHE, { recursive: true });
  writeFileSync(fileOf(cells), JSON.stringify(trained));
  return trained;
}

async function train([first, second]: readonly Cell[]): Promise<Trained> {
  if (second === undefined) return parsed(await runCell(first!));
  const dir = mkdtempSync(join(tmpdir(), 'cohesin-bits-'));
  try {
    const killed = await runCell({ ...first!, dir, saveAt: SAVE_AT }, KILL_AT);
    if (killed.includes(`step ${STEPS}`))
      throw new Error(`${JSON.stringify(first)} ended before it was killed`);
    return parsed(await runCell({ ...second, dir }));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const parsed = (lines: readonly string[]): Trained => JSON.parse(lines.at(-1)!) as Trained;

/** The lines of a process that trains a cell; at step `killAt` it is killed. */
function runCell(cell: Cell, killAt?: number): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [RUN, JSON.stringify(cell)], { stdio: ['ignore', 'pipe', 'pipe'] });
    let [out, errors] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
      if (killAt !== undefined && out.includes(`step ${killAt}\n`)) child.kill('SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0 || (killAt !== undefined && signal === 'SIGKILL')) resolve(out.trimEnd().split('\n'));
      else reject(new Error(`${JSON.stringify(cell)} ended with ${code ?? signal}: ${errors}`));
    });
  });
}
